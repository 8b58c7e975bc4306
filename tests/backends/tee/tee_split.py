"""A small split network shared by the tests of deployments, releases and the emulator."""

from dataclasses import replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from codegen_networks import quantised
from edgeward.backends.tee.deployment import SplitDeployment
from edgeward.codegen.quantize import quantize, with_argmax
from edgeward.graph import Network, capture
from edgeward.graph.module import to_module


class Backbone(nn.Module):
    """A normal world with two taps, (8, 16, 16) and (16, 8, 8), and an answer of its own."""

    def __init__(self):
        super().__init__()
        self.early, self.late = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        early = torch.relu(self.early(x))
        late = torch.relu(self.late(early))
        return early, late, self.head(F.adaptive_avg_pool2d(late, 1).flatten(1))


@cache
def backbone() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return capture(Backbone().eval(), (3, 16, 16))


@cache
def records() -> np.ndarray:
    rng = np.random.default_rng(5)
    # brightness and contrast differ widely, so that the untrained network gives more than one answer
    noise = rng.normal(size=(12, 3, 16, 16)) * rng.uniform(0.1, 6, (12, 1, 1, 1)) + rng.normal(0, 4, (12, 3, 1, 1))
    return noise.astype(np.float32)


@cache
def split(policy: str = "label", argmax: bool = True) -> SplitDeployment:
    """The backbone above with the two-tap monitor of the code generator's tests."""
    monitor = quantised("monitor").network
    with torch.no_grad():
        taps = to_module(backbone())(torch.from_numpy(records()))
    graph = quantize(monitor, {name: tap.numpy() for name, tap in zip(monitor.inputs, taps, strict=False)})
    graph = with_argmax(graph) if argmax else graph
    return SplitDeployment("demo", backbone(), graph, {"kind": "test", "width": 8}, "batch", policy)


def tampered(deployment: SplitDeployment) -> SplitDeployment:
    """The same deployment with one weight changed."""
    tensors = dict(deployment.secure.tensors)
    key = next(k for k, t in tensors.items() if t.dtype == np.int8)
    changed = tensors[key].copy()
    changed.flat[0] = 2 if changed.flat[0] == 1 else 1
    return replace(deployment, secure=replace(deployment.secure, tensors={**tensors, key: changed}))
