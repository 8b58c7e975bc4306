"""Perceptrons run as batched products give what `vmap` gives, and nothing else takes that way."""

import pytest
import torch
from torch import nn

from edgeward.core import Seed
from edgeward.train import dense
from edgeward.train.population import Population


def _population(factory, count=3):
    return Population.initialise(factory, [Seed(0).child(str(s)) for s in range(count)])


def _perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4, bias=False), nn.Tanh())


@pytest.mark.parametrize("shape", [(3, 5, 6), (3, 5, 2, 3)])
def test_batched_products_equal_each_model_alone(shape):
    population = _population(_perceptron)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    together = population.forward(x, training=True, per_model=True)
    alone = torch.stack([population.member(s, _perceptron)(x[s]) for s in range(3)])
    assert dense.dense_layers(population.template, x.dim()) is not None
    torch.testing.assert_close(together, alone)


def test_gradients_equal_those_of_vmap(monkeypatch):
    population = _population(_perceptron)
    x = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(2))
    for tensor in population.params.values():
        tensor.requires_grad_()

    def gradients():
        loss = population.forward(x, training=True, per_model=True).square().sum()
        return torch.autograd.grad(loss, list(population.params.values()))

    direct = gradients()
    monkeypatch.setattr("edgeward.train.population.dense_layers", lambda template, axes: None)
    for ours, reference in zip(direct, gradients(), strict=True):
        torch.testing.assert_close(ours, reference)


def test_one_activation_in_two_places_acts_twice():
    rectifier = nn.ReLU()
    population = _population(lambda: nn.Sequential(nn.Linear(6, 8), rectifier, nn.Linear(8, 4), rectifier))
    x = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(3))
    layers = dense.dense_layers(population.template, 3)
    assert layers is not None
    assert len(layers) == 4
    assert float(population.forward(x, training=True, per_model=True).min()) >= 0


_TIED = nn.Linear(6, 6)


class _Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "template",
    [
        nn.Sequential(nn.Linear(6, 4), nn.Dropout()),
        nn.Sequential(_Doubled(6, 4)),
        nn.Sequential(nn.Flatten(2), nn.Linear(6, 4)),
        nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Flatten(0)),
        nn.Sequential(nn.Flatten(), _TIED, nn.ReLU(), _TIED),
        nn.Linear(6, 4),
    ],
)
def test_other_networks_keep_vmap(template):
    assert dense.dense_layers(template, 4) is None


def test_a_hook_keeps_vmap():
    network = _perceptron()
    network[1].register_forward_hook(lambda *_: None)
    assert dense.dense_layers(network, 3) is None
