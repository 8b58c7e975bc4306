"""The query limit that is sealed with the weights: counted inside, over sessions, on both emulated tiers."""

import pytest

from backends.tee.tee_stub import stub_logits
from backends.tee.test_tee_worlds import DIGEST, KEY, WEIGHTS, application, records, world
from edgeward.backends.tee.sealing import seal
from edgeward.backends.tee.session import Param, ParamType, QueryLimitReached
from edgeward.backends.tee.world import Command, Result

__all__ = ["world"]


def test_beyond_the_sealed_query_limit_nothing_is_answered(world):
    taps = records(6)
    with world.open_session(application()) as session:
        session.load(seal(WEIGHTS, KEY, DIGEST, 5, 4))
        first = [session.infer([t[i] for t in taps]) for i in range(2)]
        # what is refused for its form is not counted, and a tap alone asks for nothing
        wrong = [Param.memory(bytes(5)), Param.memory(bytes(4), ParamType.MEMREF_OUTPUT)]
        assert session.invoke(Command.INFER, wrong) == Result.TEE_ERROR_BAD_PARAMETERS
        session.invoke(Command.FEED, [Param.memory(bytes(10)), Param.value(0)])
        first.append(session.stream(t[2] for t in taps))
        first.append(session.infer([t[3] for t in taps]))
        assert first == [stub_logits([t[i] for t in taps], WEIGHTS).argmax() for i in range(4)]
        shown = session.shared.copy()
        for ask in (lambda: session.infer([t[4] for t in taps]), lambda: session.stream(t[4] for t in taps)):
            with pytest.raises(QueryLimitReached, match="TEE_ERROR_ACCESS_DENIED") as caught:
                ask()
            assert caught.value.result == Result.TEE_ERROR_ACCESS_DENIED
        assert session.shared[64:].tobytes() == shown[64:].tobytes()
        session.noop()


def test_a_session_goes_on_from_the_count_of_former_ones(world):
    taps = [t[0] for t in records(1)]
    with world.open_session(application(asked=3)) as session:
        session.load(seal(WEIGHTS, KEY, DIGEST, 5, 4))
        session.infer(taps)
        with pytest.raises(QueryLimitReached):
            session.infer(taps)
    with world.open_session(application(asked=99)) as session:
        session.load(seal(WEIGHTS, KEY, DIGEST, 5))  # no limit, no count
        for _ in range(20):
            session.infer(taps)
