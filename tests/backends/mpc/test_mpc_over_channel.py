"""The protocols over the channel of a deployment: same results, same bytes, same rounds as declared."""

import numpy as np
import pytest

from edgeward.backends.mpc.offline.delivery import accept, deliver, introduce, introduced
from edgeward.backends.mpc.offline.tuples import Dealer, Supply
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.activation import Relu, relu
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.linear import Linear, Use, WeightMask, linear, mask_weights
from edgeward.backends.mpc.protocols.linear_map import Dense
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import reconstruct, share
from edgeward.backends.mpc.simulator import Simulator
from edgeward.backends.mpc.transport.pair import run_parties
from edgeward.core.errors import ConfigError


def test_a_layer_and_its_activation_over_sockets():
    ring, draws = Ring(64, 16), np.random.default_rng(0)
    x, w = ring.encode(draws.normal(size=(9, 50))), ring.encode(draws.normal(size=(31, 50)))
    xs, ws = share(ring, x), share(ring, w)
    demands = WeightMask("w", w.shape), Linear(x.shape, (Use("w", Dense(), w.shape),)), Relu(9 * 31, 16, Layout(40))
    supplies = Dealer(ring).supplies(demands)

    def program(channel):
        me = channel.party
        party, supply = Party(me, ring, channel), supplies[me]
        held, seen = mask_weights(party, ws[me], supply.draw(demands[0])), [channel.meter.reading()]
        z = linear(party, xs[me], [held], supply.draw(demands[1]))[0]
        seen.append(channel.meter.reading())
        y = relu(party, z, supply.draw(demands[2]))
        readings = [seen[0], seen[1] - seen[0], channel.meter.reading() - seen[1]]
        return y, party.reveal(y), readings

    results = run_parties(program, program)
    simulator = Simulator(ring)
    z = simulator.linear(Dense(), x, w)
    got = ring.signed(reconstruct(ring, *(y for y, _, _ in results)))
    assert np.isin(got - np.maximum(ring.signed(z) >> 16, 0), (0, 1)).all()
    for _, revealed, readings in results:
        np.testing.assert_array_equal(ring.signed(revealed), got)
        for demand, reading in zip(demands, readings, strict=True):
            cost = demand.cost(ring)
            assert (reading.sent, reading.received, reading.rounds) == (cost.bytes, cost.bytes, cost.rounds)


@pytest.mark.parametrize("number", [0, 1])
def test_the_dealer_delivers_what_it_declares_and_nothing_to_the_first_party(number):
    ring = Ring(64, 16)
    demands = [Relu(11, 16), WeightMask("w", (2, 3)), Linear((1, 3), (Use("w", Dense(), (2, 3)),))]
    dealer = Dealer(ring)

    def deal(channel):
        introduce(channel, dealer, number)
        if number:
            deliver(channel, dealer, demands)
        return channel.meter.reading().sent

    def take(channel):
        supply = introduced(channel, ring, number)
        accept(channel if number else None, supply, demands)
        return supply

    sent, supply = run_parties(deal, take)
    assert sent == 32 + (sum(d.offline_bytes(ring) for d in demands) if number else 0)
    right = Supply(ring, number, dealer.seeds[number])
    # Equal seeds expand to equal shares; the second party's dependent ones are what the first's leave over.
    first = Supply(ring, 0, dealer.seeds[0])
    accept(None, first, demands)
    accept(None, right, demands) if not number else None
    mine, theirs = supply.draw(demands[0]).take(Relu)[1], first.draw(demands[0]).take(Relu)[1]
    if number:
        clear = {f.name: f.combine(theirs[f.name], mine[f.name]) for f in demands[0].fields(ring)}
        for name, value in demands[0].complete(ring, clear, {}).items():
            np.testing.assert_array_equal(clear[name], value)
    else:
        for name, value in right.draw(demands[0]).take(Relu)[1].items():
            np.testing.assert_array_equal(mine[name], value)


def test_the_second_party_needs_a_channel_to_the_dealer():
    ring = Ring(64, 16)
    with pytest.raises(ConfigError, match="needs a channel"):
        accept(None, Supply(ring, 1, Dealer(ring).seeds[1]), [Relu(1, 16)])
