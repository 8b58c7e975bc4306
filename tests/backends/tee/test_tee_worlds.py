"""Secure worlds: the same application, the same answers and the same refusals in every tier."""

from dataclasses import replace

import numpy as np
import pytest

from backends.tee.tee_stub import stub_logits, stub_program
from backends.tee.tee_worlds import DIGEST, KEY, LINUX, WEIGHTS, WORLDS, application, records, world_of
from edgeward.backends.tee.sealing import Refusal, SealedBlobError, new_key, seal
from edgeward.backends.tee.session import MESSAGE, Param, ParamType
from edgeward.backends.tee.tiers import TIERS, secure_world
from edgeward.backends.tee.wasm_world import WasmWorld
from edgeward.backends.tee.world import (
    Command,
    Result,
    SecureMemoryExceeded,
    SecureWorldDead,
    SecureWorldError,
)
from edgeward.core.errors import ConfigError, DataError


@pytest.fixture(params=WORLDS)
def world(request):
    return world_of(request.param)


@pytest.fixture(params=WORLDS)
def test_world(request):
    return world_of(request.param, test_build=True)


def test_answers_are_the_arithmetic_of_the_network(world):
    taps = records(50)
    expected = [stub_logits([t[i] for t in taps], WEIGHTS).argmax() for i in range(50)]
    assert len(set(expected)) > 3
    with world.open_session(application()) as session:
        assert session.load(seal(WEIGHTS, KEY, DIGEST, 6)) == 6
        np.testing.assert_array_equal(session.infer_all(taps), expected)
        assert session.meter.switches == 51
        assert session.meter.bytes_in == 50 * 13 + len(WEIGHTS) + 88
        assert session.meter.bytes_out == 50 * 4


def test_taps_can_come_one_by_one(world):
    taps = records(9)
    with world.open_session(application()) as session:
        session.load(seal(WEIGHTS, KEY, DIGEST, 6))
        for i in range(9):
            one = [t[i] for t in taps]
            assert session.stream(iter(one)) == session.infer(one)
            with pytest.raises(DataError, match="early"):
                session.stream(one[:1])
        assert session.meter.switches == 1 + 9 * 4
        assert session.infer([t[0] for t in taps]) == stub_logits([t[0] for t in taps], WEIGHTS).argmax()
        fed = [Param.memory(bytes(10)), Param.value(0)]
        assert session.invoke(Command.FEED, fed) == Result.TEE_SUCCESS
        fed[1] = Param.value(1)
        assert session.invoke(Command.FEED, fed) == Result.TEE_ERROR_BAD_PARAMETERS
        with pytest.raises(DataError, match="tap 0"):
            session.stream([np.zeros(9, np.int8)])


@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize("policy", ["label", "topk", "logits"])
def test_only_what_the_policy_says_leaves(world, policy, classes):
    program = stub_program(classes=classes, argmax=False)
    taps = records(20, classes=classes)
    with world.open_session(application(program=program, policy=policy, ends_in_argmax=False)) as session:
        session.load(seal(WEIGHTS, KEY, DIGEST, 5))
        session.shared[:] = 0xAA
        for i in range(20):
            one = [t[i] for t in taps]
            logits = stub_logits(one, WEIGHTS)
            best = np.argsort(-logits.astype(int), kind="stable")
            expected = {"label": best[0], "topk": best[: min(5, classes)], "logits": logits}[policy]
            np.testing.assert_array_equal(session.infer(one), expected)
        answer = {"label": 4, "topk": 4 * min(5, classes), "logits": classes}[policy]
        # Everything else in the window is what the normal world put there.
        assert (session.shared[64 + answer :] == 0xAA).all()


def test_ties_in_topk_go_to_the_lowest_index(world):
    program = stub_program(argmax=False)
    with world.open_session(application(program=program, policy="topk", ends_in_argmax=False)) as session:
        session.load(seal(bytes(4096), KEY, DIGEST, 5))
        np.testing.assert_array_equal(session.infer([np.zeros(10, np.int8), np.zeros(3, np.int8)]), range(5))
        lowest = np.full(10, -128, np.int8)
        np.testing.assert_array_equal(session.infer([lowest, np.zeros(3, np.int8)]), range(5))


def refusals():
    good = seal(WEIGHTS, KEY, DIGEST, 6)
    flipped = bytearray(good)
    flipped[64 + 1000] ^= 1
    moved = bytearray(good)
    moved[8] = 9  # a newer counter than the one it was sealed with
    foreign = seal(WEIGHTS, KEY, bytes(31) + b"\1", 6)
    return {
        "empty": (b"", Refusal.TRUNCATED),
        "truncated": (good[:-1], Refusal.TRUNCATED),
        "half": (good[: len(good) // 2], Refusal.TRUNCATED),
        "longer": (good + b"\0", Refusal.TRUNCATED),
        "much longer": (good + bytes(1 << 20), Refusal.TRUNCATED),
        "another length inside": (good[:60] + (17).to_bytes(4, "little") + good[64:], Refusal.TRUNCATED),
        "not a blob": (bytes(len(good)), Refusal.UNKNOWN_FORMAT),
        "a later version": (good[:4] + b"\3" + good[5:], Refusal.UNKNOWN_FORMAT),
        "bit flip": (bytes(flipped), Refusal.TAMPERED),
        "bit flip in the tag": (good[:-1] + bytes([good[-1] ^ 128]), Refusal.TAMPERED),
        "counter rewritten": (bytes(moved), Refusal.TAMPERED),
        "another key": (seal(WEIGHTS, new_key(), DIGEST, 6), Refusal.TAMPERED),
        "another manifest": (foreign, Refusal.FOREIGN_MANIFEST),
        "another manifest, relabelled": (foreign[:16] + DIGEST + foreign[48:], Refusal.TAMPERED),
        "older counter": (seal(WEIGHTS, KEY, DIGEST, 4), Refusal.OLDER_COUNTER),
    }


def test_blobs_are_refused_with_their_reason_and_the_good_one_still_opens(world):
    with world.open_session(application()) as session:
        for name, (blob, reason) in refusals().items():
            with pytest.raises(SealedBlobError, match="refused with TEE_ERROR") as caught:
                session.load(blob)
            assert caught.value.reason == reason, name
            assert isinstance(caught.value, SecureWorldError)
            assert caught.value.result != Result.TEE_SUCCESS
            with pytest.raises(SecureWorldError, match="BAD_STATE"):
                session.infer([t[0] for t in records(1)])
        session.load(seal(WEIGHTS, KEY, DIGEST, 5))
        again = [Param.memory(seal(WEIGHTS, KEY, DIGEST, 6)), Param.value(kind=ParamType.VALUE_OUTPUT)]
        assert session.invoke(Command.LOAD, again) == Result.TEE_ERROR_BAD_STATE


def test_large_counters_survive(world):
    top = (1 << 64) - 1
    with world.open_session(application(counter_floor=top)) as session:
        with pytest.raises(SealedBlobError, match="older"):
            session.load(seal(WEIGHTS, KEY, DIGEST, top - 1))
        assert session.load(seal(WEIGHTS, KEY, DIGEST, top)) == top


def test_over_budget_is_out_of_memory_with_the_figures(world):
    needed = application().needed_bytes
    with world.open_session(application(memory_budget=needed)) as session:
        session.noop()
    for budget in (needed - 64, 4096, 1):
        with pytest.raises(SecureMemoryExceeded, match="TEE_ERROR_OUT_OF_MEMORY") as caught:
            world.open_session(application(memory_budget=budget))
        assert caught.value.result == Result.TEE_ERROR_OUT_OF_MEMORY
        assert str(budget) in str(caught.value)
        assert str(needed) in str(caught.value)


def test_a_network_too_large_for_any_budget_is_refused_too(world):
    huge = stub_program(arena=(1 << 31) - 256)
    with pytest.raises(SecureMemoryExceeded):
        world.open_session(application(program=huge, memory_budget=1 << 20))


def test_a_forbidden_call_kills_the_secure_side_alone(test_world):
    with test_world.open_session(application()) as session:
        session.noop()
        expected = "SIGSYS" if test_world.tier == "process" else "trapped"
        with pytest.raises(SecureWorldDead, match=expected) as caught:
            session.invoke(Command.FORBIDDEN)
        assert caught.value.result == Result.TEE_ERROR_TARGET_DEAD
        with pytest.raises(SecureWorldDead, match=expected):
            session.noop()
    with test_world.open_session(application()) as again:
        again.noop()


def test_the_shipped_build_has_no_forbidden_command(world):
    with world.open_session(application()) as session:
        assert session.invoke(Command.FORBIDDEN) == Result.TEE_ERROR_NOT_SUPPORTED
        session.noop()


def test_wrong_parameters_are_named(world):
    with world.open_session(application()) as session:
        session.load(seal(WEIGHTS, KEY, DIGEST, 5))
        room = Param.memory(bytes(3), ParamType.MEMREF_OUTPUT)
        assert session.invoke(Command.INFER, [Param.memory(bytes(13)), room]) == Result.TEE_ERROR_SHORT_BUFFER
        assert room.size == 4
        wide = Param.memory(bytes(9), ParamType.MEMREF_OUTPUT)
        assert session.invoke(Command.INFER, [Param.memory(bytes(13)), wide]) == Result.TEE_SUCCESS
        assert len(wide.data) == 4
        assert session.invoke(Command.INFER, [Param.memory(bytes(12)), wide]) == Result.TEE_ERROR_BAD_PARAMETERS
        assert session.invoke(Command.INFER, [Param.memory(bytes(13))]) == Result.TEE_ERROR_BAD_PARAMETERS
        assert session.invoke(Command.NOOP, [Param.value(1, 2)]) == Result.TEE_ERROR_BAD_PARAMETERS
        assert session.invoke(77) == Result.TEE_ERROR_NOT_SUPPORTED
        for words in (
            [0, 1 << 63, 0, 4],
            [1 << 63, 13, 0, 4],
            [(1 << 64) - 4, 13, 0, 4],
            [session.shared.size, 13, 0, 4],
        ):
            result, _ = session.exchange(Command.INFER, 0x65, words + [0] * 4)
            assert result == Result.TEE_ERROR_BAD_PARAMETERS
        with pytest.raises(DataError, match="10, 3"):
            session.infer([np.zeros(9, np.int8), np.zeros(3, np.int8)])
        with pytest.raises(DataError, match="at most 4"):
            session.invoke(Command.NOOP, [Param()] * 5)
        with pytest.raises(DataError, match="window"):
            session.invoke(Command.NOOP, [Param.memory(bytes(1 << 20))])


def hostile(rng, window):
    """A good inference with some words turned into sizes and offsets at which programs break."""
    edges = (0, 1, 3, 4, 12, 14, 64, 4176, 4175, window - 13, window - 4, window, window + 1, 2**32, 2**63, 2**64 - 1)
    words = [0, 13, 64, 4, 0, 0, 0, 0]
    for place in rng.integers(8, size=rng.integers(4)):
        kind = rng.integers(3)
        words[place] = edges[rng.integers(16)] if kind else int(rng.integers(2**64, dtype=np.uint64))
    types = (0x65, 0x65, 0x15, 0x25, 0x75, 0x56, 0x7777, 0x4444, 0x10065, 0)
    word = types[rng.integers(10)] if rng.integers(4) else int(rng.integers(2**32))
    command = (2, 2, 2, 1, 0, 3, int(rng.integers(2**32)))[rng.integers(7)]
    return command, word, words


def test_ten_thousand_hostile_invocations_change_nothing(world):
    rng = np.random.default_rng(7)
    one = [t[0] for t in records(1, seed=3)]
    seen = set()
    with world.open_session(application()) as session:
        session.load(seal(WEIGHTS, KEY, DIGEST, 5))
        before, window = session.infer(one), session.shared.size
        for _ in range(10_000):
            session.shared[rng.integers(window, size=8)] = rng.integers(256)
            result, _ = session.exchange(*hostile(rng, window))
            seen.add(result)
        assert session.infer(one) == before == stub_logits(one, WEIGHTS).argmax()
    assert seen == {
        Result.TEE_SUCCESS,
        Result.TEE_ERROR_BAD_PARAMETERS,
        Result.TEE_ERROR_NOT_SUPPORTED,
        Result.TEE_ERROR_SHORT_BUFFER,
        Result.TEE_ERROR_BAD_STATE,
    }


def test_a_closed_session_says_so(world):
    session = world.open_session(application())
    session.close()
    session.close()
    with pytest.raises(SecureWorldDead, match="closed"):
        session.noop()


def test_sessions_do_not_share_anything(world):
    first, second = (world.open_session(application()) for _ in range(2))
    with first, second:
        first.load(seal(WEIGHTS, KEY, DIGEST, 5))
        with pytest.raises(SecureWorldError, match="BAD_STATE"):
            second.infer([t[0] for t in records(1)])


def test_both_tiers_speak_and_count_alike():
    if not LINUX:
        pytest.skip("the process tier needs Linux")
    assert MESSAGE.size == 72
    meters = []
    for tier in ("wasm", "process"):
        with world_of(tier).open_session(application()) as session:
            session.load(seal(WEIGHTS, KEY, DIGEST, 5))
            session.infer([t[0] for t in records(1)])
            meters.append(replace(session.meter, fuel=None))
    assert meters[0] == meters[1]


def test_every_problem_of_an_application_in_one_error():
    with pytest.raises(ConfigError) as caught:
        application(manifest_digest=b"", memory_budget=0, counter_floor=-1, policy="logits")
    for word in ("digest", "budget", "floor", "arg-max"):
        assert word in str(caught.value)


def test_sizes_that_are_not_the_networks_own_do_not_compile(world):
    program = stub_program()
    for name in ("arena_bytes", "weights_bytes"):
        smaller = replace(program, **{name: getattr(program, name) - 64})
        with pytest.raises(ConfigError, match="another network"):
            world.open_session(application(program=smaller))
    with pytest.raises(ConfigError, match="another network"):
        world.open_session(application(program=replace(program, input_bytes=(9, 3))))
    with pytest.raises(ConfigError, match="arena of -1 bytes"):
        application(program=replace(program, arena_bytes=-1))


def test_tiers_by_name():
    for tier in TIERS:
        if tier == "wasm" or LINUX:
            assert secure_world(tier, KEY).tier == tier
    with pytest.raises(ConfigError, match="did you mean 'wasm'"):
        secure_world("wasn", KEY)


def test_notices_say_from_whom_nothing_is_hidden():
    assert "root" in WasmWorld.notice
    if LINUX:
        from edgeward.backends.tee.process_world import ProcessWorld

        assert "root" in ProcessWorld.notice


def test_the_world_judges_the_blob_even_where_the_application_does_not(world, monkeypatch):
    from edgeward.backends.tee import build

    fixed_source = build.fixed_source
    judged = fixed_source("ta_entry.c")
    lax = judged.replace("if (differs(blob + DIGEST", "if (0 && differs(blob + DIGEST")
    lax = lax.replace("if (*counter < edgeward_counter_floor())", "if (0)")
    assert lax.count("(0") >= 2
    monkeypatch.setattr(build, "fixed_source", lambda name: lax if name == "ta_entry.c" else fixed_source(name))
    with world.open_session(application()) as session:
        for blob in (seal(WEIGHTS, KEY, bytes(32), 6), seal(WEIGHTS, KEY, DIGEST, 4)):
            with pytest.raises(SealedBlobError, match="TEE_ERROR_MAC_INVALID"):
                session.load(blob)
        assert session.load(seal(WEIGHTS, KEY, DIGEST, 6)) == 6
