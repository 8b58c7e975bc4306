"""Networks with weights that fold wrongly if a fold is wrong, and everything that must hold of a secret run."""

import functools

import numpy as np
import torch
from torch import nn

from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.plan_text import read_plan, write_plan
from edgeward.backends.mpc.inference.reference import check_range, compute, dealt_masks
from edgeward.backends.mpc.inference.simulation import simulate
from edgeward.backends.mpc.offline.tuples import Dealer
from edgeward.graph import capture
from edgeward.nets import lenet


class Module(nn.Module):
    """A forward pass given as a function of the layers and the input."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.layers, self.function = nn.ModuleDict(layers), forward

    def forward(self, x):
        return self.function(self.layers, x)


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                # A fresh batch norm changes nothing, and a fold that forgets it would go unseen.
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.3)
                layer.running_mean.normal_(std=0.3)
                layer.running_var.uniform_(0.5, 2.0)
            if isinstance(layer, nn.LayerNorm) and layer.weight is not None:
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.3)
    return module.eval()


@functools.cache
def lenet_network():
    return capture(seeded(lenet), (1, 28, 28))


def drawn(shape, records, seed=0):
    return np.random.default_rng(seed).random((records, *shape), np.float32)


def checked(module, shape, records=2, tolerance=2e-3, network=None, **options):
    """Run a module on secret records; everything that must hold of every network."""
    network = network or capture(module, shape)
    lowered, x = lower(network, records, **options), drawn(shape, records)
    plan = lowered.plan
    assert read_plan(write_plan(plan)) == plan
    dealer = Dealer(plan.ring)
    run = simulate(lowered, x, dealer=dealer)
    assert run.metered[0].rows == run.declared.rows
    assert run.metered[1].rows == run.declared.rows
    assert run.agrees
    masks = dealt_masks(dealer, plan.ring, plan.demands, len(plan.setup))
    np.testing.assert_array_equal(run.answer, compute(plan, lowered.model, x, masks))
    with torch.no_grad():
        right = module(torch.from_numpy(x)).numpy()
    assert np.abs(right).max() > 20 * tolerance
    np.testing.assert_allclose(run.answer, right, atol=tolerance, rtol=0)
    np.testing.assert_allclose(compute(plan, lowered.model, x), right, atol=tolerance, rtol=0)
    check_range(plan, lowered.model, x)
    return run
