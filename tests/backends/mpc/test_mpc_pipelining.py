"""Pipelined runs: the same results, bytes and rounds as without, in another order of work."""

import functools
import queue

import numpy as np
import pytest
import torch
from torch import nn

from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.session import Session
from edgeward.backends.mpc.interleaving import interleave
from edgeward.backends.mpc.offline.tuples import Dealer, Supply
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols import slicing
from edgeward.backends.mpc.protocols.activation import Relu, relu
from edgeward.backends.mpc.protocols.linear import Linear, Use, WeightMask, linear, mask_weights
from edgeward.backends.mpc.protocols.linear_map import Convolution, Dense
from edgeward.backends.mpc.protocols.multiplication import Square
from edgeward.backends.mpc.rehearsal import MemoryLink
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import reconstruct, share
from edgeward.backends.mpc.simulator import Simulator
from edgeward.backends.mpc.transport.network import Network
from edgeward.backends.mpc.transport.pair import run_parties
from edgeward.core.errors import ConfigError
from edgeward.graph import capture

RING = Ring(64, 16)


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr(slicing, "LEAST", 8)


def dealt(demands, seeds):
    dealer = Dealer(RING, seeds=seeds)
    supplies = tuple(Supply(RING, number, seed) for number, seed in enumerate(dealer.seeds))
    for demand in demands:
        for supply, entry in zip(supplies, dealer.deal(demand), strict=True):
            supply.add(entry)
    return supplies


def counted(channel):
    traffic = channel.meter.reading().traffic
    return {label: (t.sent, t.received, t.rounds) for label, t in traffic.items()}


@pytest.mark.parametrize("count", [16, 37, 1000])
@pytest.mark.parametrize("slices", [2, 3])
def test_a_sliced_rectifier_gives_the_same_words_bytes_and_rounds(count, slices):
    seeds = Dealer(RING).seeds
    z = np.random.default_rng(count).normal(size=count) * 50
    shares = share(RING, Ring(64, 32).encode(z), 32)
    demand = Relu(count, 16)

    def outcome(parts):
        supplies = dealt([demand], seeds)

        def program(channel):
            party = Party(channel.party, RING, channel, parts)
            return relu(party, shares[channel.party], supplies[channel.party].draw(demand)), counted(channel)

        return run_parties(program, program)

    whole, sliced = outcome(1), outcome(slices)
    for (before, count_before), (after, count_after) in zip(whole, sliced, strict=True):
        np.testing.assert_array_equal(before.elements, after.elements)
        assert count_before == count_after
    assert sum(sent for sent, _, _ in whole[0][1].values()) == demand.cost(RING).bytes


@pytest.mark.parametrize(
    ("shape", "uses"),
    [
        ((4, 3, 6, 6), (Use("a", Convolution(padding=(1, 1)), (5, 3, 3, 3)), Use("b", Convolution(), (2, 3, 1, 1)))),
        ((1, 5, 6, 6), (Use("a", Convolution(stride=(2, 2)), (5, 5, 3, 3)),)),
        ((1, 6, 6, 6), (Use("a", Convolution(groups=2), (4, 3, 3, 3)),)),
        ((1, 50), (Use("a", Dense(), (7, 50)),)),
        ((9, 20), (Use("a", Dense(), (7, 20)),)),
    ],
)
def test_a_sliced_layer_gives_the_products_of_the_ring(shape, uses):
    draws = np.random.default_rng(0)
    x = RING.encode(draws.normal(size=shape))
    weights = [RING.encode(draws.normal(size=use.weights)) for use in uses]
    xs, ws = share(RING, x), [share(RING, w) for w in weights]
    demands = [*(WeightMask(use.name, use.weights) for use in uses), Linear(shape, uses)]
    supplies = Dealer(RING).supplies(demands)

    def program(channel):
        me = channel.party
        party, supply = Party(me, RING, channel, 2), supplies[me]
        held = [mask_weights(party, w[me], supply.draw(d)) for w, d in zip(ws, demands, strict=False)]
        before = channel.meter.reading()
        results = linear(party, xs[me], held, supply.draw(demands[-1]))
        return results, (channel.meter.reading() - before).total

    (first, cost), (second, _) = run_parties(program, program)
    assert (cost.sent, cost.rounds) == (8 * x.size, 1)
    for use, w, a, b in zip(uses, weights, first, second, strict=True):
        np.testing.assert_array_equal(reconstruct(RING, a, b), Simulator(RING).linear(use.map, x, w))


@functools.lru_cache
def small():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5), nn.ReLU()
        )
    return lower(capture(module, (2, 8, 8)), 3)


def run_batches(seeds, batches, *, slices=1, together=False, network=None):
    lowered = small()
    plan = lowered.plan
    demands = [*plan.setup, *plan.demands * len(batches)]
    supplies = dealt(demands, seeds)

    def play(channel):
        me = channel.party
        model = lowered.model if me else None
        session = Session(Party(me, RING, channel, slices), plan, supplies[me], model)
        requests = [session.prepare() for _ in batches]
        pairs = list(zip(requests, [None if me else b for b in batches], strict=True))
        if not together:
            return [session.run(*pair) for pair in pairs], channel.meter.reading()

        def on_lane(request, records):
            return lambda link: Session(Party(me, RING, link), plan, None, model, held=session.held).run(
                request, records
            )

        return interleave(channel, [on_lane(*pair) for pair in pairs]), channel.meter.reading()

    return run_parties(play, play, network=network)


def answers_and_bytes(outcome):
    (answers, reading), (_, other) = outcome
    return answers, [{k: (t.sent, t.received) for k, t in r.traffic.items()} for r in (reading, other)], reading.rounds


def batch(seed):
    return np.random.default_rng(seed).normal(size=(3, 2, 8, 8))


def test_a_network_in_slices_answers_and_sends_the_same():
    seeds = Dealer(RING).seeds
    whole = answers_and_bytes(run_batches(seeds, [batch(1)]))
    sliced = answers_and_bytes(run_batches(seeds, [batch(1)], slices=2))
    np.testing.assert_array_equal(whole[0], sliced[0])
    assert whole[1:] == sliced[1:]


def test_two_batches_taking_turns_answer_the_same_in_the_rounds_of_one():
    seeds, both = Dealer(RING).seeds, [batch(1), batch(2)]
    apart = answers_and_bytes(run_batches(seeds, both))
    together = answers_and_bytes(run_batches(seeds, both, together=True))
    alone = answers_and_bytes(run_batches(seeds, both[:1]))
    np.testing.assert_array_equal(apart[0], together[0])
    assert apart[1] == together[1]
    assert together[2] == alone[2] < apart[2]


def test_a_throttled_channel_changes_nothing():
    seeds = Dealer(RING).seeds
    slow = Network("slow", 1e8, 0.001)
    whole = answers_and_bytes(run_batches(seeds, [batch(1)]))
    assert answers_and_bytes(run_batches(seeds, [batch(1)], slices=2, network=slow))[1:] == whole[1:]


def test_a_program_that_fails_ends_the_others():
    def fails(link):
        link.exchange(np.zeros(3, np.uint8), "one")
        raise ConfigError("a reason")

    def goes_on(link):
        while True:
            link.exchange(np.zeros(3, np.uint8), "one")

    with pytest.raises(ConfigError, match="a reason"):
        run_parties(*[lambda channel: interleave(channel, [goes_on, fails, goes_on])] * 2)


def test_only_taken_material_is_divided():
    supply = Dealer(RING).supplies([Square(4)])[0]
    with pytest.raises(ConfigError, match="not taken"):
        supply.draw(Square(4)).divided([])


def test_no_slice_is_refused():
    with pytest.raises(ConfigError, match="cut"):
        Party(0, RING, MemoryLink(queue.Queue(), queue.Queue()), 0)
