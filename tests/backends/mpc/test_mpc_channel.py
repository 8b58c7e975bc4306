"""A channel between two parties: what comes, what is counted, and how it ends."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.mpc.channel_reasons import reason
from edgeward.backends.mpc.transport.failures import Failure
from edgeward.backends.mpc.transport.frames import CHUNK_BYTES, wire_bytes
from edgeward.backends.mpc.transport.meter import Traffic
from edgeward.backends.mpc.transport.pair import run_parties
from edgeward.core.errors import ConfigError
from patience import PATIENCE

pytest_plugins = ["backends.mpc.channel_fixtures"]


def array(count, kind):
    return np.random.default_rng(count).integers(0, 255, count).astype(kind)


@pytest.mark.parametrize("count", [0, 1, 1000, CHUNK_BYTES, 2_000_000])
@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_exchange_of_any_size(count, kind):
    mine, yours = array(count, kind), array(count, kind)[::-1]
    first, second = run_parties(
        lambda c: c.exchange(mine, "step"), lambda c: c.exchange(yours, "step"), timeout=PATIENCE
    )
    assert first.dtype == second.dtype == np.dtype(kind)
    np.testing.assert_array_equal(first, yours)
    np.testing.assert_array_equal(second, mine)


def test_shapes_orders_and_types_survive(pair):
    first, second = pair
    for number, value in enumerate(
        [np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1), np.array([True, False]), np.int32(7)]
    ):
        value = np.asarray(value)
        first.send(value, str(number))
        came = second.receive(value.shape, value.dtype, str(number))
        np.testing.assert_array_equal(came, value)
        assert came.dtype == value.dtype
    big = np.arange(5, dtype=">i8")
    first.send(big, "big")
    np.testing.assert_array_equal(second.receive((5,), np.int64, "big"), big)


@pytest.mark.parametrize("value", [np.zeros(2), np.zeros(2, np.float32), np.array(["a"]), np.array([None])])
def test_only_integers_are_sent(pair, value):
    with pytest.raises(ConfigError, match="may not be sent"):
        pair[0].send(value, "step")
    with pytest.raises(ConfigError, match="may not be sent"):
        pair[0].receive((1,), value.dtype, "step")


def test_both_may_send_far_more_than_the_sockets_hold_before_either_receives():
    def party(channel):
        for number in range(6):
            channel.send(np.full(1_000_000, number), f"part {number}")
        return [int(channel.receive((1_000_000,), np.int64, f"part {n}").sum()) for n in range(6)]

    wanted = [n * 1_000_000 for n in range(6)]
    assert run_parties(party, party, timeout=PATIENCE) == (wanted, wanted)


def test_many_small_messages_without_reading_do_not_stop_either_party():
    def party(channel):
        for number in range(1000):
            channel.send(np.full(1000, number), "small")
        return all((channel.receive((1000,), np.int64, "small") == n).all() for n in range(1000))

    assert run_parties(party, party, timeout=PATIENCE) == (True, True)


def test_what_waits_to_be_sent_is_a_copy():
    value = np.zeros(3_000_000, np.int64)

    def sender(channel):
        channel.send(value, "step")
        value[:] = 1
        channel.receive((1,), np.int64, "done")

    def receiver(channel):
        time.sleep(0.05)
        came = channel.receive(value.shape, value.dtype, "step")
        channel.send(np.ones(1, np.int64), "done")
        return int(came.sum())

    assert run_parties(sender, receiver, timeout=PATIENCE)[1] == 0


def test_a_boolean_is_0_or_1(pair):
    pair[0].send(np.array([0, 1, 2], np.uint8), "step")
    assert reason(pair[1].receive, (3,), np.bool_, "step") is Failure.MALFORMED


def test_the_queue_is_bounded_and_a_slow_reader_loses_nothing(monkeypatch):
    monkeypatch.setattr("edgeward.backends.mpc.transport.sender._QUEUE_BYTES", 1 << 20)

    def sends(channel):
        for number in range(40):
            channel.send(np.full(50_000, number), "part")
            assert channel._sender._waiting <= (1 << 20) + 400_000

    def receives(channel):
        time.sleep(0.05)
        return [int(channel.receive((50_000,), np.int64, "part")[-1]) for _ in range(40)]

    assert run_parties(sends, receives, timeout=PATIENCE)[1] == list(range(40))


def test_bytes_of_unknown_length(pair):
    pair[0].send_bytes(b"settings", "names")
    assert pair[1].receive_bytes(100, "names") == b"settings"
    pair[0].send_bytes(b"x" * 101, "names")
    assert reason(pair[1].receive_bytes, 100, "names") is Failure.MALFORMED


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["send", "receive", "exchange"]), st.integers(0, 70000)), max_size=12))
def test_the_meters_count_exactly_and_agree(steps):
    """Random programs: payload, frames and rounds against a model of both parties."""

    def party(channel):
        for number, (kind, count) in enumerate(steps):
            label = f"step {number % 3}"
            outgoing = (kind == "send") == (channel.party == 0)
            if kind == "exchange":
                channel.exchange(np.zeros(count, np.uint8), label)
            elif outgoing:
                channel.send(np.zeros(count, np.uint8), label)
            else:
                channel.receive((count,), np.uint8, label)
        return channel.meter.reading()

    depth, sent, wire = [0, 0], [0, 0], [0, 0]
    rounds = 0
    for kind, count in steps:
        senders = (0, 1) if kind == "exchange" else ((0,) if kind == "send" else (1,))
        carried = {s: depth[s] + 1 for s in senders}
        for s in senders:
            sent[s] += count
            wire[s] += wire_bytes(count)
            depth[1 - s] = max(depth[1 - s], carried[s])
        rounds = max([rounds, *carried.values()])
    for number, reading in enumerate(run_parties(party, party, timeout=PATIENCE)):
        assert (reading.sent, reading.received) == (sent[number], sent[1 - number])
        assert (reading.total.wire_sent, reading.total.wire_received) == (wire[number], wire[1 - number])
        assert reading.rounds == rounds


def test_rounds_are_chains_of_messages_that_wait_for_each_other():
    def slices(channel):
        """Two slices, pipelined: both leave before either is waited for, three times over."""
        for _ in range(3):
            for part in "ab":
                channel.send(np.zeros(4, np.int64), part)
            for part in "ab":
                channel.receive((4,), np.int64, part)
        return channel.meter.reading()

    for reading in run_parties(slices, slices, timeout=PATIENCE):
        assert reading.rounds == 3
        assert reading.traffic["a"] == Traffic(96, 96, 3, 3, 3, 96 + 3 * 32, 96 + 3 * 32)
        assert reading.traffic["b"].rounds == 0


def test_readings_subtract():
    def party(channel):
        channel.exchange(np.zeros(1, np.int64), "before")
        earlier = channel.meter.reading()
        channel.exchange(np.zeros(2, np.int64), "span")
        return channel.meter.reading() - earlier

    for span in run_parties(party, party, timeout=PATIENCE):
        assert set(span.traffic) == {"span"}
        assert (span.sent, span.rounds) == (16, 1)
