"""Which layers a transform touches, and how tensors pass between populations."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from edgeward.core.errors import ConfigError, ModelError
from edgeward.core.randomness import Seed
from edgeward.train.population import build
from edgeward.transforms import TRANSFORMS, Binarize, QuantizeAware, QuantLinear, magnitude_masks, targets, transfer
from edgeward.transforms.straight_through import sign
from edgeward.transforms.transform import replace_layers
from transforms.transform_networks import NETWORKS, Separable, mlp, population, records


def test_targets_follow_registration_order_and_skip() -> None:
    assert list(targets(Separable())) == ["depth", "point", "gate", "side"]
    assert list(targets(Separable(), ("first", "last", "depthwise", "gate"))) == ["point", "side"]
    assert list(targets(Separable(), ())) == ["stem", "depth", "point", "gate", "side", "head"]
    assert targets(nn.ReLU()) == {}


def test_attention_projections_are_not_plain() -> None:
    """Multi-head attention reads its projection's weight without calling it: replacing it would change nothing."""
    assert list(targets(nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(4, 4)), ())) == ["1"]


def test_transformed_layers_are_not_transformed_again() -> None:
    module = QuantizeAware(4, 8).apply(Binarize().apply(mlp()))
    assert [type(m).__name__ for m in module if not isinstance(m, nn.ReLU)] == [
        "QuantLinear",
        "BinaryLinear",
        "QuantLinear",
    ]
    with pytest.raises(ModelError, match="no layer is left"):
        Binarize(skip=()).apply(module)


def test_shared_layers_stay_shared_and_roots_are_replaced() -> None:
    shared = nn.Linear(4, 4)
    module = nn.Sequential(nn.Linear(4, 4), shared, nn.ReLU(), shared, nn.Linear(4, 2))
    changed = Binarize().apply(module)
    assert changed[1] is changed[3]
    assert type(changed[1]).__name__ == "BinaryLinear"
    root = nn.Linear(3, 2)
    other = nn.Linear(3, 2)
    assert replace_layers(root, {"": other}) is other


def test_all_unfit_layers_are_named_before_anything_changes() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 1, 3, padding_mode="circular"), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 2, padding="same")
    )
    with pytest.raises(ModelError, match=r"2 layers(.|\n)*0: (.|\n)*2: "):
        QuantizeAware().apply(module)
    assert [type(layer) for layer in module] == [nn.Conv2d] * 3


@pytest.mark.parametrize("slug", sorted(set(TRANSFORMS)))
def test_wrapped_factories_travel_to_other_processes(slug: str) -> None:
    factory = TRANSFORMS[slug]().wrap(mlp)
    again = pickle.loads(pickle.dumps(factory))  # noqa: S301
    assert torch.equal(build(again, Seed(0)).eval()(records((6,))), build(factory, Seed(0)).eval()(records((6,))))


def test_transfer_copies_what_fits() -> None:
    dense, other = population(mlp), population(mlp)
    for tensor in dense.params.values():
        tensor.add_(1.0)
    assert transfer(dense, other) == []
    assert all(torch.equal(other.params[name], tensor) for name, tensor in dense.params.items())
    student = population(Binarize().wrap(mlp))
    left = transfer(dense, student)
    assert sorted(left) == [
        "2.norm.bias",
        "2.norm.num_batches_tracked",
        "2.norm.running_mean",
        "2.norm.running_var",
        "2.norm.weight",
    ]
    torch.testing.assert_close(student.buffers["2.scale"], dense.params["2.weight"].abs().mean(2))


def test_transfer_refuses_strangers() -> None:
    with pytest.raises(ModelError, match="one size"):
        transfer(population(mlp, 2), population(mlp, 3))
    with pytest.raises(ModelError, match="no tensor"):
        transfer(population(mlp), population(lambda: nn.Linear(99, 2)))


def test_binary_layers_are_never_masked() -> None:
    models = population(Binarize().wrap(mlp))
    assert set(magnitude_masks(models, 0.5)) == {"0.weight", "4.weight"}
    with pytest.raises(ConfigError, match="'2'"):
        magnitude_masks(models, 0.5, skip=("2",))


def test_without_gradients_the_value_is_the_operators() -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf")])
    with torch.no_grad():
        assert sign(x).tolist() == [-1, 1, -1]
    layer = build(lambda: QuantLinear(2, 2), Seed(0)).eval()
    with torch.no_grad():
        exported = torch.export.export(layer, (torch.ones(1, 2),)).module()
        bad = torch.tensor([[float("inf"), 1.0]])
        assert torch.equal(exported(bad).nan_to_num(), layer(bad).nan_to_num())


@pytest.mark.parametrize("name", NETWORKS)
def test_applying_draws_no_random_numbers(name: str) -> None:
    factory, _ = NETWORKS[name]
    for slug in TRANSFORMS:
        module = factory()
        torch.manual_seed(3)
        TRANSFORMS[slug]().apply(module)
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))
