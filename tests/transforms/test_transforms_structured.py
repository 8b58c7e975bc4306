"""Channel groups and structured pruning on plain, residual, depthwise and concatenating networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeward.core.errors import ConfigError, ModelError
from edgeward.graph import Network, Node, Value, capture
from edgeward.train.population import Factory, Population
from edgeward.transforms import Binarize, QuantizeAware, calibrate, channel_groups, prune_channels
from transforms.transform_networks import NETWORKS, mlp, population, records, vgg


def groups(factory: Factory, shape: tuple[int, ...]) -> dict[tuple[str, ...], int]:
    plan = channel_groups(capture(factory(), shape))
    return {tuple(sorted(set(group.layers))): len(group.channels) for group in plan.groups}


def test_groups_of_known_networks() -> None:
    assert groups(*NETWORKS["mlp"]) == {("0",): 10, ("2",): 8}
    assert groups(*NETWORKS["vgg"]) == {("0",): 6, ("3",): 8, ("7",): 12}
    assert groups(*NETWORKS["residual"]) == {
        ("body.0.second", "body.1.second", "stem"): 6,
        ("body.0.first",): 6,
        ("body.1.first",): 6,
    }
    assert groups(*NETWORKS["separable"]) == {("depth", "stem"): 6, ("gate", "point"): 8, ("side",): 4}


def test_hand_made_graph_needs_no_module() -> None:
    values = {name: Value(name, shape) for name, shape in {"x": (3,), "h": (4,), "r": (4,), "y": (2,)}.items()}
    nodes = (
        Node("a", "a", "linear", ("x",), "h", {}, {"weight": "a.weight", "bias": "a.bias"}),
        Node("r", "r", "relu", ("h",), "r"),
        Node("b", "b", "linear", ("r",), "y", {}, {"weight": "b.weight"}),
    )
    tensors = {"a.weight": torch.zeros(4, 3), "a.bias": torch.zeros(4), "b.weight": torch.zeros(2, 4)}
    plan = channel_groups(Network(("x",), ("y",), nodes, values, tensors))
    assert [(g.layers, len(g.channels)) for g in plan.groups] == [(("a",), 4)]
    assert dict(plan.axes["b.weight"])[1] == dict(plan.axes["a.weight"])[0] == dict(plan.axes["a.bias"])[0]
    assert plan.frozen == 2


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_removed_is_exact(name: str) -> None:
    factory, shape = NETWORKS[name]
    models = population(factory, settle=shape)
    narrow, narrow_factory = prune_channels(models, factory, capture(factory(), shape), 0.0)
    x = records(shape)
    assert torch.equal(narrow.logits(x), models.logits(x))
    assert torch.equal(narrow.member(1, narrow_factory)(x), models.member(1, factory)(x))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.99])
def test_removing_silent_channels_changes_nothing(name: str, fraction: float) -> None:
    """Channels whose rows are tiny and whose readers are zero, a different set in every model."""
    factory, shape = NETWORKS[name]
    models = population(factory, settle=shape)
    network = capture(factory(), shape)
    plan = channel_groups(network)
    removed = [_silence(models, plan, fraction, index) for index in range(len(models))]
    assert len({tuple(sorted(labels)) for labels in removed}) > 1
    before = models.clone()
    narrow, narrow_factory = prune_channels(models, factory, network, fraction)
    x = records(shape, 7)
    torch.testing.assert_close(narrow.logits(x), models.logits(x), rtol=1e-4, atol=1e-5)
    for key, tensor in {**models.params, **models.buffers}.items():
        assert torch.equal(tensor, {**before.params, **before.buffers}[key]), "the given population was changed"
    member = narrow.member(2, narrow_factory)
    torch.testing.assert_close(member(x), narrow.logits(x)[2], rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in member.parameters()) < sum(p.numel() for p in factory().parameters())
    again = capture(member, shape)  # sizes are consistent enough for the exporter
    assert [node.operator for node in again.nodes] == [node.operator for node in network.nodes]


def _silence(models: Population, plan, fraction: float, index: int) -> list[int]:
    labels: list[int] = []
    for group in plan.groups:
        count = min(len(group.channels) - 1, round(fraction * len(group.channels)))
        labels += [group.channels[(index + i) % len(group.channels)] for i in range(count)]
    for key, held in plan.axes.items():
        for axis, own in held:
            where = torch.tensor([label in labels for label in own])
            if key in models.params and (axis > 0 or key in plan.producers):
                rows = models.params[key][index].transpose(0, axis)
                rows[where] = rows[where] * (0.0 if axis > 0 else 1e-3)
    return labels


def test_every_model_keeps_its_own_strongest() -> None:
    models = population(mlp)
    narrow, factory = prune_channels(models, mlp, capture(mlp(), (6,)), 0.3)
    strongest = []
    for index in range(3):
        keep = models.params["0.weight"][index].norm(dim=1).topk(7).indices.sort().values
        strongest.append(keep.tolist())
        assert torch.equal(narrow.params["0.weight"][index], models.params["0.weight"][index][keep])
        assert torch.equal(narrow.params["0.bias"][index], models.params["0.bias"][index][keep])
    assert len({tuple(keep) for keep in strongest}) == 3
    module = factory()
    assert (module[0].out_features, module[2].in_features, module[4].out_features) == (7, 7, 4)
    assert narrow.params["4.weight"].shape == (3, 4, 6)  # 8 - round(2.4) inputs; outputs never go


def test_repeated_layer_ties_its_input_to_its_output() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.again, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.again(torch.relu(self.again(torch.relu(self.stem(x)))))))

    assert groups(Twice, (4,)) == {("again", "stem"): 6}
    models = population(Twice)
    narrow, _ = prune_channels(models, Twice, capture(Twice(), (4,)), 0.5)
    assert narrow.params["again.weight"].shape == (3, 3, 3)


class Mixing(nn.Module):
    """Grouped convolution, layer norm over channels, and a constant: nothing may be removed before them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1)
        self.norm, self.head = nn.GroupNorm(2, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.c(self.b(self.a(x)))).mean((2, 3)))


def test_operators_across_channels_freeze() -> None:
    assert groups(Mixing, (2, 3, 3)) == {}
    models = population(Mixing)
    narrow, _ = prune_channels(models, Mixing, capture(Mixing(), (2, 3, 3)), 0.5)
    assert torch.equal(narrow.logits(records((2, 3, 3))), models.logits(records((2, 3, 3))))


class Rigid(nn.Module):
    """Its code knows that there are 8 channels: half of the features would become another record."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 1), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).reshape(-1, 32))


def test_code_that_depends_on_channel_numbers_is_refused() -> None:
    with pytest.raises(ModelError, match="depends on channel numbers"):
        prune_channels(population(Rigid), Rigid, capture(Rigid(), (1, 2, 2)), 0.5)
    with pytest.raises(ConfigError, match="fraction"):
        prune_channels(population(mlp), mlp, capture(mlp(), (6,)), 1.0)


@pytest.mark.parametrize("transform", [Binarize(), QuantizeAware(4, 8)], ids=lambda t: t.slug)
def test_quantised_and_binary_layers_narrow_too(transform) -> None:
    factory = transform.wrap(vgg)
    models = population(factory, settle=(2, 8, 8))
    calibrate(models, records((2, 8, 8)))
    narrow, narrow_factory = prune_channels(models, factory, capture(models.member(0, factory), (2, 8, 8)), 0.5)
    member = narrow.member(0, narrow_factory)
    assert member[3].weight.shape == (4, 3, 3, 3)
    x = records((2, 8, 8))
    torch.testing.assert_close(member(x), narrow.logits(x)[0], rtol=1e-4, atol=1e-5)
    capture(member, (2, 8, 8))
