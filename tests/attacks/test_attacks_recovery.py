"""Recovery of disguised weights: exact with a relative as prior, nothing with a stranger, never an order made up."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cosine_similarity

from attacks import stealing_toys as toys
from edgeward.attacks.extraction import Exposure, Obfuscation, recover
from edgeward.attacks.extraction.exposure import learned_keys, reordered_inputs, resolution_ends, shadow, weight_keys
from edgeward.attacks.extraction.surrogate import Surrogate
from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.graph import capture


@cache
def captured():
    layers = [nn.Conv2d(4, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 10, 3), nn.ReLU()]
    return capture(nn.Sequential(*layers, nn.Flatten(), nn.Linear(10 * 4, 5)), (4, 10, 10))


def two_layers(seed=0):
    """Two convolutions and a linear layer with normal weights."""
    generator = Seed(seed).torch()
    drawn = {k: torch.randn(t.shape, generator=generator) * 0.1 for k, t in captured().tensors.items()}
    return captured().with_tensors(drawn)


def drifted(network, drift, seed=1):
    """A public relative: the network's tensors with noise of `drift` standard deviations."""
    generator = Seed(seed).torch()
    return {k: t + drift * t.std() * torch.randn(t.shape, generator=generator) for k, t in network.tensors.items()}


def logits(network, tensors, records):
    return Surrogate(network, network.outputs, tensors)(records)


@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.1]), st.sampled_from([1.0, 10.0]))
@settings(max_examples=8, deadline=None)
def test_masked_and_permuted_kernels_come_back_exactly(seed, drift, spread):
    network = two_layers(seed)
    exposure = Exposure.of("shadow", network, drifted(network, drift, seed + 1))
    exposure = exposure.shadowed(toys.convolutions(network), Seed(seed), scaled=False, spread=spread)
    found = recover(exposure)
    assert found.share == 1
    for key in toys.convolutions(network):
        torch.testing.assert_close(found.tensors[key], network.tensors[key], atol=1e-5, rtol=0)


@given(st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_scaled_kernels_come_back_in_direction_and_nearly_in_size(seed):
    network = two_layers(seed)
    exposure = Exposure.of("shadow", network, drifted(network, 0.05, seed + 1))
    found = recover(exposure.shadowed(toys.convolutions(network), Seed(seed)))
    assert found.share == 1
    for key in toys.convolutions(network):
        own, true = found.tensors[key].flatten(1), network.tensors[key].flatten(1)
        assert float(cosine_similarity(own, true).min()) > 1 - 1e-6
        torch.testing.assert_close(own.norm(dim=1), true.norm(dim=1), rtol=0.03, atol=0)


def test_a_shadow_has_the_published_form():
    weight = two_layers().tensors["0.weight"]
    disguised, masks = shadow(weight, Seed(0), ratio=1.25, spread=10.0)
    assert masks == 3
    assert disguised.shape == (15, 4, 3, 3)
    assert not any(torch.equal(row, kernel) for row in disguised for kernel in weight)
    assert float(disguised.abs().max()) > 5 * float(weight.abs().max())
    assert not torch.equal(shadow(weight, Seed(1))[0], disguised)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_stranger_as_prior_recovers_nothing(scaled, seed):
    network = two_layers(seed)
    exposure = Exposure.of("shadow", network, toys.random_prior(network, seed + 100))
    found = recover(exposure.shadowed(toys.convolutions(network), Seed(seed), scaled=scaled))
    assert found.share == 0
    assert not set(toys.convolutions(network)) & set(found.tensors)


def test_no_prior_recovers_nothing():
    network = two_layers()
    found = recover(Exposure.of("shadow", network, {}).shadowed(toys.convolutions(network), Seed(0)))
    assert [line.method for line in found.layers] == ["no prior", "no prior"]


def test_a_permuted_network_computes_the_same_and_is_put_in_order():
    network, records = two_layers(), torch.randn(3, 4, 10, 10, generator=Seed(5).torch())
    exposure = Exposure.of("permuted", network, drifted(network, 0.3))
    exposure = exposure.permuted(toys.convolutions(network), Seed(3))
    assert not torch.equal(exposure.visible["0.weight"], network.tensors["0.weight"])
    torch.testing.assert_close(logits(network, exposure.visible, records), logits(network, network.tensors, records))
    found = recover(exposure)
    assert found.share == 1
    for key, tensor in network.tensors.items():
        assert torch.equal(found.tensors[key], tensor), key


def test_a_permuted_network_stays_usable_without_a_prior_that_helps():
    network, records = two_layers(), torch.randn(3, 4, 10, 10, generator=Seed(5).torch())
    for prior in ({}, toys.random_prior(network, 7)):
        found = recover(Exposure.of("permuted", network, prior).permuted(toys.convolutions(network), Seed(3)))
        torch.testing.assert_close(logits(network, found.tensors, records), logits(network, network.tensors, records))


def test_channels_that_are_added_cannot_be_reordered():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            y = self.one(x)
            return (y + self.two(y)).flatten(1)

    network = capture(Residual(), (2, 2, 2))
    with pytest.raises(ModelError, match="cannot be reordered"):
        Exposure.of("permuted", network, {}).permuted(["one.weight"], Seed(0))


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_reordering_inputs_is_undone_by_the_inverse_order(inputs, pixels, seed):
    weight = torch.randn(3, inputs * pixels, generator=Seed(seed).torch())
    order = torch.randperm(inputs, generator=Seed(seed).torch())
    assert torch.equal(reordered_inputs(reordered_inputs(weight, order), order.argsort()), weight)


def test_zeroed_weights_are_filled_from_the_prior_and_others_kept():
    network = two_layers()
    prior = drifted(network, 0.5)
    exposure = Exposure.of("magnitude", network, prior).zeroing(0.1)
    sizes = torch.cat([network.tensors[k].abs().flatten() for k in ("0.weight", "3.weight", "6.weight")])
    bound = sizes.topk(round(0.1 * len(sizes))).values[-1]
    found = recover(exposure)
    for key in ("0.weight", "3.weight", "6.weight"):
        true, large = network.tensors[key], network.tensors[key].abs() >= bound
        assert bool((exposure.visible[key][large] == 0).all())
        assert torch.equal(found.tensors[key], torch.where(large, prior[key], true))
    assert 0 < found.share < 1


def test_an_exposure_hides_what_is_not_visible():
    network = two_layers()
    exposure = Exposure.of("deep", network, {}, hidden=("6.weight", "6.bias"))
    assert exposure.hidden == ("6.weight", "6.bias")
    assert all(bool((tensor == 0).all()) for tensor in exposure.architecture.tensors.values())
    assert "6.weight" not in recover(exposure).tensors
    assert exposure.hiding(["0.weight"]).hidden == ("0.weight", "6.weight", "6.bias")


def test_all_problems_of_an_exposure_are_reported_together():
    network = two_layers()
    with pytest.raises(ModelError) as error:
        Exposure(
            "wrong",
            network,
            {"0.weight": torch.zeros(3), "foreign": torch.zeros(1)},
            {"6.bias": torch.zeros(1000)},
            {"3.weight": Obfuscation(masks=2)},
            taps=("nowhere",),
        )
    for part in ("'0.weight' is [3]", "'foreign'", "'6.bias' is [1000]", "'3.weight' is not visible", "'nowhere'"):
        assert part in str(error.value)


def test_fixed_buffers_are_no_secret_and_stay():
    standardised = nn.Sequential(
        nn.Conv2d(3, 3, 1, groups=3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )
    for parameter in ("weight", "bias"):
        tensor = getattr(standardised[0], parameter).detach()
        delattr(standardised[0], parameter)
        standardised[0].register_buffer(parameter, tensor)
    network = capture(standardised, (3, 4, 4))
    assert learned_keys(network) == ("1.weight", "1.bias", "4.weight", "4.bias")
    assert weight_keys(network) == ("1.weight", "4.weight")
    exposure = Exposure("black box", network, {})
    assert torch.equal(exposure.architecture.tensors["0.weight"], standardised[0].weight)
    assert not exposure.architecture.tensors["1.weight"].any()
    assert exposure.taps == resolution_ends(network) == ("0.conv2d", "2.relu")
