"""The throttle: every byte is accounted for, and the moments follow from the bytes alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward.backends.mpc.transport.frames import CHUNK_BYTES, HEADER_BYTES, wire_bytes
from edgeward.backends.mpc.transport.network import LAN, WAN, Clock, Network, Shaper
from edgeward.backends.mpc.transport.pair import local_pair, run_parties
from edgeward.core.errors import ConfigError
from patience import PATIENCE


class Frozen(Clock):
    """Time stands still for those who ask; the moments that frames wait for are written down."""

    def __init__(self):
        self.moments = []

    def now(self):
        return 0.0

    def wait_until(self, moment, stop):
        self.moments.append(moment)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 10**7)), min_size=1, max_size=30),
    st.floats(1e3, 1e10),
    st.floats(0, 1),
)
def test_a_link_is_never_faster_than_its_bandwidth_and_its_delay(steps, rate, delay):
    shaper, now, arrivals, busy = Shaper(Network("any", rate, delay)), 0.0, [], 0.0
    for pause, count in steps:
        now += pause
        busy = max(busy, now) + count * 8 / rate
        arrivals.append(shaper.due(now, count))
        assert arrivals[-1] == pytest.approx(busy + delay / 2)
        assert arrivals[-1] >= now + count * 8 / rate + delay / 2 - 1e-9
    assert arrivals == sorted(arrivals)
    assert shaper.bytes == sum(count for _, count in steps)


def test_what_is_sent_at_once_takes_its_bytes_over_the_bandwidth_plus_half_a_round_trip():
    counts = [0, 100, CHUNK_BYTES, 3 * CHUNK_BYTES + 5]
    clocks = Frozen(), Frozen()
    network = Network("slow", 8e3, 3.0)
    first, second = local_pair(network, timeout=PATIENCE, clocks=clocks)
    for count in counts:
        first.send(np.zeros(count, np.uint8), "step")
    for count in counts:
        second.receive((count,), np.uint8, "step")
    assert first.shaped_bytes == sum(wire_bytes(count) for count in counts) == first.meter.reading().total.wire_sent
    assert second.shaped_bytes == 0
    frames = [count + HEADER_BYTES for count in (0, 100, *[CHUNK_BYTES] * 4, 5)]
    np.testing.assert_allclose(clocks[0].moments, np.cumsum(frames) / 1000 + 1.5)
    assert clocks[0].moments[-1] == pytest.approx(network.seconds(first.shaped_bytes, 1))
    for channel in (first, second):
        channel.abort()


def test_a_throttle_changes_no_byte_and_no_round():
    def party(channel):
        for count in (10, 5000, 40_000):
            channel.exchange(np.arange(count), "step")
        return channel.meter.reading(), channel.shaped_bytes

    plain = run_parties(party, party, timeout=PATIENCE)
    throttled = run_parties(party, party, timeout=PATIENCE, network=Network("fast", 1e9, 0.002))
    for number in (0, 1):
        assert throttled[number][0] == plain[number][0]
        assert throttled[number][1] == plain[number][0].total.wire_sent
        assert plain[number][1] == 0


def test_the_named_networks():
    assert LAN.seconds(125_000_000, 0) == pytest.approx(1.0)
    assert WAN.seconds(0, 2) == pytest.approx(0.08)


@pytest.mark.parametrize("figures", [(0, 0.1), (-1, 0.1), (1e6, -0.1), (float("nan"), 0.1), (1e6, float("inf"))])
def test_links_that_do_not_exist(figures):
    with pytest.raises(ConfigError, match="not a network"):
        Network("odd", *figures)
