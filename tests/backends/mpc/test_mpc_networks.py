"""The networks of the zoo on secret input: traffic as declared at every layer, answers near the float network."""

import functools

import numpy as np
import pytest
import torch
from benchmarks.mpc_networks import CASES, calibrated, measured

from edgeward.backends.mpc.inference.expense import cost_table
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.reference import check_range, compute, dealt_masks
from edgeward.backends.mpc.inference.simulation import simulate
from edgeward.backends.mpc.offline.tuples import Dealer, SupplyError, supplies_on_demand
from edgeward.backends.mpc.protocols.truncation import Truncation, truncate
from edgeward.backends.mpc.rehearsal import run_two
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.graph import capture

# Over the largest logit. Weights rounded to the ring's 16 bits would be 1e-4 off already.
_ERRORS = {"LeNet": 4e-5, "ResNet-20": 6e-5}


@functools.cache
def captured(name):
    case = CASES[name]
    module = calibrated(case.small, case.small_shape)
    return module, capture(module, case.small_shape)


@pytest.mark.parametrize("name", CASES)
def test_a_small_form_equals_the_reference_in_bits_and_its_declared_cost(name):
    module, network = captured(name)
    x = np.random.default_rng(1).random((1, *CASES[name].small_shape), np.float32)
    lowered = lower(network)
    dealer = Dealer(lowered.plan.ring)
    run = simulate(lowered, x, dealer=dealer)
    assert run.metered[0].rows == run.declared.rows
    assert run.metered[1].rows == run.declared.rows
    masks = dealt_masks(dealer, dealer.ring, lowered.plan.demands, len(lowered.plan.setup))
    np.testing.assert_array_equal(run.answer, compute(lowered.plan, lowered.model, x, masks))
    check_range(lowered.plan, lowered.model, x)
    with torch.no_grad():
        right = module(torch.from_numpy(x)).numpy()
    assert np.abs(run.answer - right).max() < _ERRORS.get(name, 4e-3) * np.abs(right).max()


def test_material_is_dealt_as_the_parties_draw_it():
    """A step or two ahead of the slower party, however long the plan: a batch's material is never there at once."""
    ring, waiting = Ring(64, 16), []
    demands = [Truncation(64, 16)] * 40
    supplies = supplies_on_demand(Dealer(ring), demands, lambda sent: waiting.append(max(map(len, supplies))))

    def program(party):
        for demand in demands:
            value = Shared(np.full(64, 1 << 20, np.uint64), 32)
            truncate(party, value, supplies[party.number].draw(demand))
        return len(supplies[party.number])

    assert run_two(ring, program).results == (0, 0)
    assert len(waiting) == 40
    assert max(waiting) <= 2
    with pytest.raises(SupplyError, match="nothing more"):
        supplies[0].draw(demands[0])


@pytest.mark.parametrize("name", ["LeNet", "ResNet-20", "MobileNetV2"])
def test_variants_of_the_comparison_trade_rounds_for_bytes_offline(name):
    _, network = captured(name)
    tables = {v: cost_table(lower(network, comparison=v).plan) for v in ("tree", "lookup", "lookup8", "fss")}
    rounds = [table.online.rounds for table in tables.values()]
    sent = [table.online.bytes for table in tables.values()]
    offline = [table.offline for table in tables.values()]
    assert rounds == sorted(rounds, reverse=True)
    assert sent == sorted(sent, reverse=True)
    assert offline == sorted(offline)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_network_at_its_published_size(name):
    """Minutes, and about 11 GiB for VGG-16 (parties and dealer in one process); the benchmark is `mpc-networks`."""
    row = measured(name)
    assert row["declared_equals_metered"]
    assert row["error_to_largest_logit"] < 4e-3
    assert row["same_label"]
