"""Integers of 1 to 8 bits in a stream of bytes, without padding between them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8


def pack_codes(codes: UInt8[np.ndarray, " n"], bits: int) -> UInt8[np.ndarray, " size"]:
    """Return ceil(n bits / 8) bytes that hold the codes one after the other, lowest bit first.

    >>> pack_codes(np.array([1, 2, 3], np.uint8), 2).tolist()
    [57]
    """
    planes = (codes[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(planes.reshape(-1), bitorder="little")


def unpack_codes(packed: UInt8[np.ndarray, " size"], bits: int, count: int) -> UInt8[np.ndarray, " n"]:
    """Read `count` codes back.

    >>> unpack_codes(np.array([57], np.uint8), 2, 3).tolist()
    [1, 2, 3]
    """
    planes = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    return np.asarray(np.bitwise_or.reduce(planes << np.arange(bits, dtype=np.uint8), axis=1).astype(np.uint8))


def weight_codes(weight: Float32[np.ndarray, "o ..."], scale: Float32[np.ndarray, " o"], bits: int) -> np.ndarray:
    """Return the rounded weights as uint8 codes q + 2^(b-1) - 1, q rounded as in `graph.quantized`."""
    top = 2 ** (bits - 1) - 1
    per_channel = scale.reshape(-1, *([1] * (weight.ndim - 1)))
    return np.asarray((np.clip(np.round(weight / per_channel), -top, top) + top).astype(np.uint8))
