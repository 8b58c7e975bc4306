"""Two kinds of randomness that cannot be swapped: reproducible simulation and secrets."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import final

import numpy as np
import torch


@final
@dataclass(frozen=True)
class Seed:
    """A reproducible source for simulation: initial weights, data order, splits, shadow membership.

    Guarantee: none against an adversary; anybody who knows `value` can replay every draw. Never use it for secrets.

    >>> Seed(0).child("shadow", 3) == Seed(0).child("shadow", 3)
    True
    >>> Seed(0).child("a") == Seed(0).child("b")
    False
    """

    value: int

    def child(self, *labels: str | int) -> Seed:
        """Derive an independent seed for the purpose named by `labels`."""
        text = "\x1f".join([str(self.value), *map(str, labels)])
        return Seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))

    def torch(self, device: str = "cpu") -> torch.Generator:
        """Return a fresh torch generator on `device`."""
        return torch.Generator(device=device).manual_seed(self.value)

    def numpy(self) -> np.random.Generator:
        """Return a fresh NumPy generator."""
        return np.random.default_rng(self.value)


@final
class SecretRandomness:
    """Randomness for keys, masks, shares and DP noise that must stay unknown: the operating system's CSPRNG.

    Guarantee: unpredictability as given by the operating system (assumed); it takes no seed and cannot be replayed.
    """

    __slots__ = ()

    def bytes(self, count: int) -> bytes:
        """Return `count` unpredictable bytes."""
        return secrets.token_bytes(count)

    def seed(self) -> int:
        """Return an unpredictable 63-bit integer."""
        return secrets.randbits(63)


@final
class SecretBytes:
    """Bytes that must stay unknown, such as a key: never printed, never stored by copying or pickling machinery.

    Guarantee: the value is in no text made of this object (repr, str, format, tracebacks of its methods); equality
    takes the same time wherever two values differ. It stays readable to whoever can read this process's memory.

    >>> SecretBytes(b"top secret")
    SecretBytes(10 bytes)
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        """Hold a copy of `value`."""
        self._value = bytes(value)

    @classmethod
    def draw(cls, count: int) -> SecretBytes:
        """Return `count` unpredictable bytes from the operating system's generator."""
        return cls(SecretRandomness().bytes(count))

    def reveal(self) -> bytes:
        """Return the bytes; the caller must neither print nor store them."""
        return self._value

    def __len__(self) -> int:
        """Return the number of bytes."""
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        """Return whether both hold the same bytes."""
        return isinstance(other, SecretBytes) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the number of bytes, never the bytes."""
        return f"SecretBytes({len(self._value)} bytes)"

    def __reduce__(self) -> str:
        """Refuse to be copied into a file."""
        raise TypeError("secret bytes are not written to files")
