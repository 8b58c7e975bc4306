"""`Backend`: a way of shipping a network as one file and running that file."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
from jaxtyping import Float

from edgeward.backends.executable import Executable
from edgeward.backends.faithful import Rounding, require_faithful
from edgeward.core.errors import ModelError
from edgeward.core.registry import Registry
from edgeward.graph.network import Network


class Backend(ABC):
    """Lowers networks to files and runs the files; stateless.

    `tolerance` is the declared error: outputs equal the reference interpreter within `tolerance` (1 + |output|), apart
    from values that rounding moves across a step of a quantised or binary layer. Infinite where a form rounds values
    that the network keeps in float: no bound is declared then, and utility is measured on the form itself.
    """

    slug: ClassVar[str]
    file_name: ClassVar[str]
    tolerance: ClassVar[float]
    drift: ClassVar[float]

    @abstractmethod
    def reasons_against(self, network: Network) -> list[str]:
        """Return why this backend cannot take `network`, layer by layer; an empty list when it can."""

    def ready(self, network: Network, records: Float[np.ndarray, "n ..."]) -> Network:
        """Return `network` with what this backend must know of records [n, ...input shape] it will meet.

        By default nothing. Records leave a trace in the result: give training records of that very network only.
        """
        return network

    @final
    def lower(self, network: Network) -> bytes:
        """Return the file, compared with the network on random and extreme records.

        The same network gives the same bytes. Cost and guarantee: those of `faithful.require_faithful`.
        Raises: `ModelError` with all reasons against, or when the file's answers drift from the network's.
        """
        artefact = self.write(network)
        ours = self.load(artefact)
        require_faithful(network, ours, name=self.slug, drift=self.drift, rounded=self.rounded(network))
        return artefact

    @abstractmethod
    def write(self, network: Network) -> bytes:
        """Return the file as it is, compared with nothing: for its size. Raises: `ModelError` with all reasons."""

    def rounded(self, network: Network) -> Mapping[str, Rounding]:
        """Return the values of the network that its file rounds though the network does not; by default none."""
        return {}

    @abstractmethod
    def load(self, artefact: bytes) -> Executable:
        """Return the file as an `Executable`. Raises: `ModelError` for a malformed file."""

    @abstractmethod
    def replay_tolerance(self, artefact: bytes) -> float:
        """Return within which error the same file repeats its logits on another machine; 0 is bit for bit."""

    def companions(self, artefact: bytes) -> Mapping[str, bytes]:
        """Return further files by path that a device needs beside the file; they follow from it. By default none."""
        return {}


BACKENDS: Registry[Backend] = Registry("backend")


@final
class OnnxBackend(Backend):
    """ONNX files, run by ONNX Runtime."""

    slug = "onnx"
    file_name = "model.onnx"
    tolerance = 1e-4
    drift = 1e-4

    def reasons_against(self, network: Network) -> list[str]:
        from edgeward.backends.cleartext.onnx_lowering import reasons_against

        return reasons_against(network)

    def write(self, network: Network) -> bytes:
        from edgeward.backends.cleartext.onnx_lowering import to_onnx_bytes

        return to_onnx_bytes(network)

    def load(self, artefact: bytes) -> Executable:
        from edgeward.backends.cleartext.onnxruntime import OnnxExecutable

        return OnnxExecutable(artefact)

    def replay_tolerance(self, artefact: bytes) -> float:
        return 1e-4


@final
class PackedBackend(Backend):
    """Packed files, run by edgeward's own small runtime."""

    slug = "packed"
    file_name = "model.packed.safetensors"
    tolerance = 1e-4
    drift = 1e-4

    def reasons_against(self, network: Network) -> list[str]:
        from edgeward.backends.cleartext.packed_lowering import reasons_against

        return reasons_against(network)

    def write(self, network: Network) -> bytes:
        from edgeward.backends.cleartext.packed_lowering import to_packed

        return to_packed(network)

    def load(self, artefact: bytes) -> Executable:
        from edgeward.backends.cleartext.packed import PackedExecutable

        return PackedExecutable(artefact)

    def replay_tolerance(self, artefact: bytes) -> float:
        from edgeward.backends.cleartext.packed import PackedExecutable

        # Exponentials come from the machine's mathematics library: the last bit may differ.
        return 0.0 if PackedExecutable(artefact).exact else 1e-5


@final
class IntegerBackend(Backend):
    """Integer graphs of quantised networks, run in exact integers here and as emitted C on a microcontroller."""

    slug = "c"
    file_name = "model.int8.safetensors"
    tolerance = math.inf
    drift = 0.01

    def reasons_against(self, network: Network) -> list[str]:
        from edgeward.backends.integer.form import reasons_against

        return reasons_against(network)

    def ready(self, network: Network, records: Float[np.ndarray, "n ..."]) -> Network:
        """Return `network` with the range of every value over `records`."""
        from edgeward.codegen.calibration import calibrated

        return calibrated(network, {network.inputs[0]: np.ascontiguousarray(records, np.float32)})

    def write(self, network: Network) -> bytes:
        from edgeward.backends.integer.form import integer_graph
        from edgeward.backends.integer.storage import to_file

        return to_file(integer_graph(network))

    def rounded(self, network: Network) -> Mapping[str, Rounding]:
        """Return the grid of every value that the file holds: it rounds them all."""
        from edgeward.backends.integer.form import integer_graph
        from edgeward.codegen.ranges import grid_of

        grids = {name: grid_of(value) for name, value in integer_graph(network).values.items()}
        return {name: Rounding(g.scale, *g.real(np.array([-128, 127])).tolist()) for name, g in grids.items()}

    def load(self, artefact: bytes) -> Executable:
        from edgeward.backends.integer.executable import IntegerExecutable

        return IntegerExecutable(artefact)

    def replay_tolerance(self, artefact: bytes) -> float:
        return 0.0

    def companions(self, artefact: bytes) -> Mapping[str, bytes]:
        """Return the emitted C, the weights as it reads them, and a description of both."""
        from edgeward.backends.integer.sources import c_files
        from edgeward.backends.integer.storage import from_file

        return c_files(from_file(artefact))


BACKENDS.register(IntegerBackend.slug)(IntegerBackend())
BACKENDS.register(OnnxBackend.slug)(OnnxBackend())
BACKENDS.register(PackedBackend.slug)(PackedBackend())


def choose_backend(network: Network, kind: str = "linux") -> Backend:
    """Return the backend whose file ships for a device of `kind` (a word of `devices.profile.KINDS`).

    On a microcontroller "c" for a network whose layers hold integers. Else, and where "c" cannot take the network,
    "packed" for one with a layer below 8 bits, "onnx" from 8 bits on; the other one where the first cannot.
    Raises: `ModelError` with the reasons of all backends when none takes the network.
    """
    narrow = any(
        node.operator.startswith("binary_") or int(node.attributes.get("weight_bits", 32)) < 8 for node in network.nodes
    )
    order = (*(("c",) if kind == "mcu" else ()), *(("packed", "onnx") if narrow else ("onnx", "packed")))
    refused: dict[str, list[str]] = {}
    for slug in order:
        refused[slug] = BACKENDS[slug].reasons_against(network)
        if not refused[slug]:
            return BACKENDS[slug]
    listing = "\n".join(f"    {slug}: {reason}" for slug, reasons in refused.items() for reason in reasons)
    raise ModelError(f"no backend takes the network:\n{listing}", fix="change the layers above")
