"""Small whole networks in int8, shared by the tests of code generation and of the secure worlds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeward.codegen.integer import IntegerGraph
from edgeward.codegen.quantize import quantize, to_int8, with_argmax
from edgeward.graph import Network, capture
from edgeward.nets import NETS


@dataclass(frozen=True)
class Quantised:
    """A float network, its records (float32, channels first), its integer form, and the records in int8."""

    name: str
    network: Network
    records: dict[str, np.ndarray]
    graph: IntegerGraph

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The records on the grids of the integer graph's inputs, channels last."""
        return {name: to_int8(self.graph.values[name], x) for name, x in self.records.items()}


class Monitor(nn.Module):
    """Two taps of a backbone, each through its own block, fused one way; logits."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 8, 1), nn.ReLU6())
        self.head = nn.Linear(16, 10)

    def forward(self, early: Tensor, late: Tensor) -> Tensor:
        first = F.max_pool2d(self.first(early), 2)
        both = torch.cat([first, self.second(late)], dim=1)
        return self.head(F.adaptive_avg_pool2d(both, 1).flatten(1))


class Gated(nn.Module):
    """Asymmetric padding, groups, average pooling, a gate per channel, a table, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.grouped = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8 * 4 * 4, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu6(self.stem(F.pad(x, (0, 1, 0, 1))))
        y = self.norm(F.hardswish(self.grouped(x)))
        gate = torch.sigmoid(self.up(torch.relu(self.down(F.adaptive_avg_pool2d(y, 1)))))
        y = F.avg_pool2d(y * gate - x, 3, stride=2, padding=1)
        return y, self.head(y.flatten(1))


def small_resnet() -> nn.Module:
    """ResNet-8 of width 8: shortcuts that drop pixels and pad channels."""
    return NETS["resnet"](depth=8, width=8)


_BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "lenet": (NETS["lenet"], ((1, 28, 28),)),
    "resnet": (small_resnet, ((3, 32, 32),)),
    "mobilenet": (lambda: NETS["mobilenet_v1"](width=0.125, classes=2), ((3, 32, 32),)),
    "monitor": (Monitor, ((8, 16, 16), (16, 8, 8))),
    "gated": (Gated, ((3, 16, 16),)),
}
NAMES = tuple(_BUILDERS)


@cache
def quantised(name: str, argmax: bool = False) -> Quantised:
    """Return one of the networks of `NAMES`, with reproducible weights, statistics and 12 records."""
    builder, shapes = _BUILDERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(NAMES.index(name))
        module = builder()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.7, 1.4)
                layer.weight.data.uniform_(0.7, 1.4)
                layer.bias.data.normal_(0, 0.2)
    network = capture(module.eval(), shapes if len(shapes) > 1 else shapes[0])
    rng = np.random.default_rng(7)
    records = {
        value: rng.normal(size=(12, *shape)).astype(np.float32)
        for value, shape in zip(network.inputs, shapes, strict=True)
    }
    graph = quantize(network, records)
    return Quantised(name, network, records, with_argmax(graph) if argmax else graph)
