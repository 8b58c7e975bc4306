"""`Backend`: a way of shipping a network as one file and running that file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

from edgeward.backends.executable import Executable
from edgeward.core.errors import ModelError
from edgeward.core.registry import Registry
from edgeward.graph.network import Network


class Backend(ABC):
    """Lowers networks to files and runs the files; stateless.

    `tolerance` is the declared error: outputs equal the reference interpreter within `tolerance` (1 + |output|), apart
    from values that rounding moves across a step of a quantised or binary layer.
    """

    slug: ClassVar[str]
    file_name: ClassVar[str]
    tolerance: ClassVar[float]

    @abstractmethod
    def reasons_against(self, network: Network) -> list[str]:
        """Return why this backend cannot take `network`, layer by layer; an empty list when it can."""

    @abstractmethod
    def lower(self, network: Network) -> bytes:
        """Return the file; the same network gives the same bytes. Raises: `ModelError` with all reasons against."""

    @abstractmethod
    def load(self, artefact: bytes) -> Executable:
        """Return the file as an `Executable`. Raises: `ModelError` for a malformed file."""

    @abstractmethod
    def replay_tolerance(self, artefact: bytes) -> float:
        """Return within which error the same file repeats its logits on another machine; 0 is bit for bit."""


BACKENDS: Registry[Backend] = Registry("backend")


@final
class OnnxBackend(Backend):
    """ONNX files, run by ONNX Runtime."""

    slug = "onnx"
    file_name = "model.onnx"
    tolerance = 1e-4

    def reasons_against(self, network: Network) -> list[str]:
        from edgeward.backends.cleartext.onnx_lowering import reasons_against

        return reasons_against(network)

    def lower(self, network: Network) -> bytes:
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

    def reasons_against(self, network: Network) -> list[str]:
        from edgeward.backends.cleartext.packed_lowering import reasons_against

        return reasons_against(network)

    def lower(self, network: Network) -> bytes:
        from edgeward.backends.cleartext.packed_lowering import to_packed

        return to_packed(network)

    def load(self, artefact: bytes) -> Executable:
        from edgeward.backends.cleartext.packed import PackedExecutable

        return PackedExecutable(artefact)

    def replay_tolerance(self, artefact: bytes) -> float:
        from edgeward.backends.cleartext.packed import PackedExecutable

        # Exponentials come from the machine's mathematics library: the last bit may differ.
        return 0.0 if PackedExecutable(artefact).exact else 1e-5


BACKENDS.register(OnnxBackend.slug)(OnnxBackend())
BACKENDS.register(PackedBackend.slug)(PackedBackend())


def choose_backend(network: Network) -> Backend:
    """Return "packed" for a network with a layer below 8 bits, else "onnx"; the other one where the first cannot.

    Raises: `ModelError` with the reasons of all backends when none takes the network.
    """
    narrow = any(
        node.operator.startswith("binary_") or int(node.attributes.get("weight_bits", 32)) < 8 for node in network.nodes
    )
    order = ("packed", "onnx") if narrow else ("onnx", "packed")
    refused = {slug: BACKENDS[slug].reasons_against(network) for slug in order}
    for slug, reasons in refused.items():
        if not reasons:
            return BACKENDS[slug]
    listing = "\n".join(f"    {slug}: {reason}" for slug, reasons in refused.items() for reason in reasons)
    raise ModelError(f"no backend takes the network:\n{listing}", fix="change the layers above")
