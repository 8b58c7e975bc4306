"""Siblings as shipped: every model of a trained population lowered to the artefact it would ship as, and loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from edgeward.backends.backend import Backend, choose_backend
from edgeward.backends.executable import Executable
from edgeward.core.cost import Cost
from edgeward.core.measurement import LayerCost
from edgeward.devices import DeviceProfile
from edgeward.devices.profile import Kind
from edgeward.graph import Network, capture
from edgeward.graph.network import FOLDED
from edgeward.measure.cost import network_cost
from edgeward.measure.form import device_form
from edgeward.measure.two_worlds import TwoWorlds
from edgeward.train.task import Task, Trained

CALIBRATION_RECORDS = 256
"""How many training records a backend sees that needs to know the ranges of values."""


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

    def notes(self, device: DeviceProfile) -> tuple[str, ...]:
        """Return what the reader of a cost on `device` must know: that no form of the network runs there."""
        why_not = "" if self.worlds is not None else device_form(self.network, device).why_not
        return (f"no form of this network runs on {device.name}: {why_not}",) if why_not else ()


def lower(trained: Trained, task: Task, kind: Kind, label: str) -> Siblings:
    """Capture the structure once, then lower and load every member of the population for a device of `kind`.

    The last member ships. What a backend must know of records it learns from the first training records of each
    member itself, so that the audit sees the trace they leave. Errors: `UnsupportedOperators`, `ModelError` for weights
    that are not finite. Siblings are captured anew only where their tensors cannot be swapped in: computed weights, or
    non-persistent buffers in which the models differ.
    """
    last = len(trained.population) - 1
    network = capture(trained.population.member(last, trained.factory), task.input_shape)
    network.finite()
    backend = choose_backend(network, kind)
    shipped = backend.ready(network, _seen(task, last))
    artefact = backend.lower(shipped)
    audited = []
    alone = any(key.startswith(FOLDED) for key in network.tensors) or not trained.population.alike()
    for index in range(last):
        if alone:
            sibling = capture(trained.population.member(index, trained.factory), task.input_shape)
        else:
            sibling = network.with_tensors(trained.population.state(index))
        sibling = backend.ready(sibling, _seen(task, index))
        audited.append(backend.load(backend.lower(sibling)))
        task.watcher.step(f"{label}: export siblings", index + 1, last)
    return Siblings(shipped, backend, artefact, backend.load(artefact), tuple(audited))


def _seen(task: Task, model: int) -> np.ndarray:
    """Return the first training records of a model, float32 [n, ...input shape]."""
    rows = task.members[model].nonzero().squeeze(1)[:CALIBRATION_RECORDS]
    return task.x[rows].numpy()


def answers(executables: tuple[Executable, ...], x: Tensor) -> Tensor:
    """Return the logits [S, n, C] of every executable on the same records."""
    records = x.numpy()
    return torch.stack([torch.from_numpy(executable.run(records).copy()) for executable in executables])
