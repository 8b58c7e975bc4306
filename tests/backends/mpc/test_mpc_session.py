"""One party of a secure run: several batches, what it receives, and what it refuses."""

import numpy as np
import pytest
import torch
from torch import nn

from backends.mpc.whole_runs import drawn, lenet_network, seeded
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.session import Session
from edgeward.backends.mpc.offline.tuples import Dealer, TupleReusedError
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.rehearsal import rehearse, run_two
from edgeward.backends.mpc.ring import Ring
from edgeward.core.errors import ConfigError, DataError
from edgeward.graph import capture


def dealt(lowered, batches=1):
    return [*lowered.plan.setup, *lowered.plan.demands * batches]


def test_one_session_answers_several_batches_and_no_request_twice():
    module = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2)))
    lowered = lower(capture(module, (1, 3, 3)), 3)
    batches = [drawn((1, 3, 3), 3, seed) for seed in (1, 2)]

    def program(party, supply):
        session = Session(party, lowered.plan, supply, None if party.first else lowered.model)
        requests = [session.prepare() for _ in batches]
        answers = [session.run(r, x if party.first else None) for r, x in zip(requests, batches, strict=True)]
        assert len(supply) == 0
        with pytest.raises(TupleReusedError, match="run before"):
            session.run(requests[0], batches[0] if party.first else None)
        return answers

    outcome = rehearse(lowered.plan.ring, dealt(lowered, 2), program)
    assert outcome.results[1] == [None, None]
    for x, answer in zip(batches, outcome.results[0], strict=True):
        np.testing.assert_allclose(answer, module(torch.from_numpy(x)).detach().numpy(), atol=1e-3)
    # The model's owner is sent zeros in place of the answer.
    assert not any(m.array.any() for m in outcome.received[1] if m.label == "result")


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_what_a_party_receives_is_uniform_whatever_the_secrets(fill):
    lowered = lower(lenet_network())
    model = {name: np.full_like(t, fill / 64) for name, t in lowered.model.items()}
    x = np.full((1, 1, 28, 28), fill, np.float32)

    def program(party, supply):
        session = Session(party, lowered.plan, supply, None if party.first else model)
        session.run(session.prepare(), x if party.first else None)

    outcome = rehearse(lowered.plan.ring, dealt(lowered), program)
    for received in outcome.received:
        seen = [m.array.view(np.uint8) for m in received if m.array.dtype == np.uint64 and m.label != "result"]
        counts = np.bincount(np.concatenate([part.reshape(-1) for part in seen]), minlength=256)
        expected = counts.sum() / 256
        # 255 degrees of freedom: mean 255, deviation 22.6; 8 deviations make a false alarm rarer than 1e-9.
        assert counts.sum() > 100_000
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 8 * 22.6


def test_wrong_roles_and_shapes_are_refused_before_anything_is_sent():
    lowered = lower(capture(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2)))
    plan, supplies = lowered.plan, Dealer(Ring()).supplies(dealt(lowered))

    def program(party):
        wrong_model = {name: t[:1] for name, t in lowered.model.items()}
        with pytest.raises(ConfigError, match="belongs to the second"):
            Session(party, plan, supplies[party.number], lowered.model if party.first else None)
        with pytest.raises(ConfigError, match="differ in the ring"):
            Session(
                Party(party.number, Ring(64, 12), party.link),
                plan,
                supplies[party.number],
                None if party.first else lowered.model,
            )
        if not party.first:
            with pytest.raises(ConfigError, match="2 tensors of the model do not fit"):
                Session(party, plan, supplies[1], wrong_model)
        assert party.link.meter.reading().sent == 0
        session = Session(party, plan, supplies[party.number], None if party.first else lowered.model)
        request, sent = session.prepare(), party.link.meter.reading().sent
        with pytest.raises(ConfigError, match="belong to the first"):
            session.run(request, None if party.first else np.zeros((1, 1, 2, 2)))
        if party.first:
            with pytest.raises(DataError, match="do not fit the plan"):
                session.run(request, np.zeros((2, 1, 2, 2)))
            with pytest.raises(DataError, match="do not fit the ring"):
                session.run(request, np.full((1, 1, 2, 2), np.nan))
        assert party.link.meter.reading().sent == sent
        return session.run(request, np.ones((1, 1, 2, 2)) if party.first else None)

    assert run_two(plan.ring, program).results[0].shape == (1, 2)
