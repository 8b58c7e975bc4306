"""The digest of a network: which weights and operators a bundle was lowered from."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import torch

from edgeward.backends.cleartext.container import canonical_json
from edgeward.graph.network import Network


def network_digest(network: Network) -> str:
    """Return the SHA-256 over a network's nodes, shapes and tensors, in hexadecimal.

    Guarantee: equal for equal networks on every machine; names of layers count, the order of tensors does not.
    """
    tensors = {key: _tensor_digest(tensor) for key, tensor in network.tensors.items()}
    plain = {
        "inputs": network.inputs,
        "outputs": network.outputs,
        "nodes": [asdict(node) for node in network.nodes],
        "values": {name: asdict(value) for name, value in network.values.items()},
        "tensors": tensors,
    }
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()


def _tensor_digest(tensor: torch.Tensor) -> str:
    array = tensor.detach().to("cpu").contiguous().numpy()
    head = f"{array.dtype.newbyteorder('<').str}{list(array.shape)}".encode()
    return hashlib.sha256(head + array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()
