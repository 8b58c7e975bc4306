"""Comparison by function keys: toy rings in full, boundaries at 64 bits, cost, delivery, whole networks; the trade."""

import numpy as np
import pytest
from torch import nn

from backends.mpc.test_mpc_activation import boundaries, every, opened, run
from backends.mpc.whole_runs import checked, seeded
from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.delivery import accept, deliver, introduce, introduced
from edgeward.backends.mpc.offline.tuples import Dealer, Supply
from edgeward.backends.mpc.planes import pack
from edgeward.backends.mpc.protocols.activation import Relu, Sign, relu, sign
from edgeward.backends.mpc.protocols.comparison_layout import VARIANTS, Layout, variant
from edgeward.backends.mpc.rehearsal import rehearse, run_two
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import reconstruct, share
from edgeward.backends.mpc.simulator import Simulator
from edgeward.backends.mpc.transport.pair import run_parties
from edgeward.core.errors import ConfigError


@pytest.mark.parametrize(
    ("bits", "shift", "width"), [(8, 0, 8), (8, 3, 5), (8, 6, 2), (9, 0, 9), (10, 1, 9), (3, 1, 2)]
)
def test_every_input_and_mask_of_a_small_ring(bits, shift, width):
    ring, layout = Ring(bits, 0), Layout(width, keys=True)
    z, mask, choice = every(ring, shift, width)
    simulator, values = Simulator(ring), {"mask": mask, "choice": pack(choice)[None]}
    t = simulator.truncate(z, shift, mask)
    for program, demand, right in (
        (sign, Sign(len(z), shift, layout), simulator.nonnegative(t, width)),
        (relu, Relu(len(z), shift, layout), simulator.relu(t, width)),
    ):
        np.testing.assert_array_equal(opened(ring, run(ring, demand, program, z, values)), right)


@pytest.mark.parametrize(("bits", "shift", "width"), [(64, 16, 32), (64, 12, 48), (64, 0, 64), (32, 10, 22)])
def test_boundary_values_and_masks_of_full_rings(bits, shift, width):
    ring, layout = Ring(bits, 8), Layout(width, keys=True)
    limit = min(1 << (bits - 2), 1 << (width - 1 + shift)) if shift else 1 << (width - 1)
    z = boundaries(limit)
    z = z[z < limit - (1 << shift)] if shift and limit < 1 << (bits - 2) else z
    pairs = np.stack(np.meshgrid(z, boundaries(1 << (bits - 1)), indexing="ij")).reshape(2, -1)
    elements, mask = ring.from_integers(pairs[0]), ring.from_integers(pairs[1])
    simulator = Simulator(ring)
    right = simulator.relu(simulator.truncate(elements, shift, mask), width)
    demand = Relu(len(mask), shift, layout)
    outcome = run(ring, demand, relu, elements, {"mask": mask})
    np.testing.assert_array_equal(opened(ring, outcome), right)
    assert {(m.sent, m.rounds) for m in outcome.meters} == {(demand.cost(ring).bytes, 2)}


def test_dealt_keys_over_both_deliveries():
    ring, demand = Ring(64, 16), Relu(77, 16, variant("fss"))
    x = np.random.default_rng(0).normal(size=77) * 50
    shares = share(ring, Ring(64, 32).encode(x), 32)
    right = np.maximum(x, 0)

    def program(party, supply):
        return relu(party, shares[party.number], supply.draw(demand))

    for outcome in (rehearse(ring, [demand], program), _delivered(ring, demand, program)):
        np.testing.assert_allclose(ring.decode(reconstruct(ring, *outcome.results)), right, atol=2**-15)


def _delivered(ring, demand, program):
    """Run with material that went through channels; the first party needs one too."""
    dealer, supplies = Dealer(ring), {}
    with pytest.raises(ConfigError, match="the first party needs a channel"):
        accept(None, Supply(ring, 0, dealer.seeds[0]), [demand])

    def deal(first):
        def to_second(second):
            introduce(first, dealer, 0)
            introduce(second, dealer, 1)
            deliver(second, dealer, [demand], first)
            return first.meter.reading().sent, second.meter.reading().sent

        def second_party(channel):
            supplies[1] = introduced(channel, ring, 1)
            accept(channel, supplies[1], [demand])

        return run_parties(to_second, second_party)[0]

    def first_party(channel):
        supplies[0] = introduced(channel, ring, 0)
        accept(channel, supplies[0], [demand])

    sent, _ = run_parties(deal, first_party)
    assert sent == tuple(32 + demand.corrections(ring, number) for number in (0, 1))
    return run_two(ring, lambda party: program(party, supplies[party.number]))


def test_what_each_variant_costs_per_rectified_value():
    """Bytes online, rounds, bytes offline to both parties together; 8000 values, 64 bits, 24 bits dropped."""
    ring, found = Ring(64, 16), {}
    for name in VARIANTS:
        demand = Relu(8000, 24, variant(name))
        cost = demand.cost(ring)
        found[name] = (cost.bytes / 8000, cost.rounds, demand.offline_bytes(ring) / 8000)
    assert found["lookup"] == (10.0, 4, 32 + 18.875)
    assert found["lookup8"] == (8.875, 3, 32 + 113.5)
    assert found["tree"] == (18.75, 7, 32 + 10.875)
    assert found["fss"][:2] == (8.125, 2)
    assert found["fss"][2] == 2 * (400 + 16 / 8000) + 32 + 1 / 8
    assert Relu(8000, 24, variant("fss")).cost(ring) == Cost(65_000, 2)


def test_an_unknown_variant_is_named():
    with pytest.raises(ConfigError, match="lookup"):
        variant("lookupp")


@pytest.mark.parametrize("name", VARIANTS)
def test_networks_with_every_variant(name):
    module = seeded(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
    )
    run_ = checked(module, (2, 8, 8), 2, 5e-4, comparison=name)
    rows = {row.operator: row for row in run_.declared.rows}
    assert rows["relu"].online.rounds == variant(name).rounds + 2


def test_party_is_only_told_its_own_root():
    """Roots are each party's own, correction words are equal, nothing of the other's root is in an entry."""
    ring, demand = Ring(64, 16), Relu(9, 16, variant("fss"))
    dealer = Dealer(ring)
    supplies = dealer.supplies([demand])
    arrays = [supply.draw(demand).take(Relu)[1] for supply in supplies]
    assert not np.array_equal(arrays[0]["roots"], arrays[1]["roots"])
    np.testing.assert_array_equal(arrays[0]["words"], arrays[1]["words"])
    np.testing.assert_array_equal(arrays[0]["cipher"], arrays[1]["cipher"])
    entries = Dealer(ring, seeds=dealer.seeds).deal(demand)
    for number in (0, 1):
        other = arrays[1 - number]["roots"]
        assert not any(root.tobytes() in entries[number].corrections for root in other)
