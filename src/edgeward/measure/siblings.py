"""Siblings as shipped: every model of a trained population lowered to the artefact it would ship as, and loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from edgeward.backends.backend import Backend, choose_backend
from edgeward.backends.executable import Executable
from edgeward.core.cost import Cost
from edgeward.core.measurement import LayerCost
from edgeward.core.progress import Watcher
from edgeward.devices import DeviceProfile
from edgeward.graph import Network, capture
from edgeward.graph.network import FOLDED
from edgeward.measure.cost import network_cost
from edgeward.measure.two_worlds import TwoWorlds
from edgeward.train.task import Trained


@final
@dataclass(frozen=True)
class Siblings:
    """The shipped network with its artefact, and the executables of the audited siblings.

    Utility and leakage are measured on these executables, never on the float networks they came from. Where the
    candidate ships as a split, `network` and `artefact` are the normal world's, and `worlds` holds the rest.
    """

    network: Network
    backend: Backend
    artefact: bytes
    shipped: Executable
    audited: tuple[Executable, ...]
    worlds: TwoWorlds | None = None

    def cost(self, device: DeviceProfile) -> tuple[Cost, tuple[LayerCost, ...]]:
        """Return what one inference costs on `device`, and its table per layer."""
        if self.worlds is not None:
            return self.worlds.cost(self.artefact, device)
        return network_cost(self.network, device, file_bytes=len(self.artefact))


def lower(trained: Trained, input_shape: tuple[int, ...], watcher: Watcher, label: str) -> Siblings:
    """Capture the structure, then lower and load every member of the population.

    The last member ships. The others are captured anew only where their tensors cannot be swapped in: computed weights
    (parametrised layers), or non-persistent buffers in which the models differ.
    Errors: `UnsupportedOperators`, `ModelError` for weights that are not finite.
    """
    last = len(trained.population) - 1
    network = capture(trained.population.member(last, trained.factory), input_shape)
    network.finite()
    backend = choose_backend(network)
    artefact = backend.lower(network)
    audited = []
    alone = any(key.startswith(FOLDED) for key in network.tensors) or not trained.population.alike()
    for index in range(last):
        if alone:
            sibling = capture(trained.population.member(index, trained.factory), input_shape)
        else:
            sibling = network.with_tensors(trained.population.state(index))
        audited.append(backend.load(backend.lower(sibling)))
        watcher.step(f"{label}: export siblings", index + 1, last)
    return Siblings(network, backend, artefact, backend.load(artefact), tuple(audited))


def answers(executables: tuple[Executable, ...], x: Tensor) -> Tensor:
    """Return the logits [S, n, C] of every executable on the same records."""
    records = x.numpy()
    return torch.stack([torch.from_numpy(executable.run(records).copy()) for executable in executables])
