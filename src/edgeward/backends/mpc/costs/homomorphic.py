"""Costs of CrypTFlow2's SCI_HE: products under BFV with output rotations, comparisons over a prime field.

Sources: the published library (mpc-msri/EzPC, SCI): LinearHE/conv-field.cpp (`configure`, `convolution`) and
utils-HE.h for ciphertexts, NonLinear/drelu-field.h for the sign. Divisions over the field are an outline of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from edgeward.backends.mpc.costs.model import COST_MODELS, CostModel, LayerPrice, check_format
from edgeward.backends.mpc.costs.oblivious import (
    DIGIT,
    and_bits,
    comparison_bits,
    comparison_rounds,
    transfer_bits,
)
from edgeward.backends.mpc.costs.work import Image, Product, Work, work_of
from edgeward.graph.network import Network

SMALLEST, LARGEST = 8192, 131072
"""Slots of a ciphertext: as many as the image asks for within these."""
WORD = 8
"""Bytes in which a coefficient modulo one prime is sent."""
SENT_PRIMES, RETURNED_PRIMES = 3, 2
"""Primes of 60 bits: a fresh ciphertext has three, one is dropped before the answer."""


@final
@dataclass(frozen=True)
class Ciphertexts:
    """Ciphertexts of `slots` slots that the client sends and the server returns."""

    slots: int
    sent: int
    returned: int

    @property
    def bytes(self) -> int:
        """Return their size: two polynomials each."""
        return 2 * self.slots * WORD * (self.sent * SENT_PRIMES + self.returned * RETURNED_PRIMES)


def convolution_ciphertexts(image: Image) -> tuple[Ciphertexts, ...]:
    """Return the ciphertexts of one convolution, one entry per phase of the stride (a sum of plain convolutions).

    A channel takes the next power of two of its pixels; half of the slots hold whole channels. Images beyond the
    largest ciphertext are cut into strips, and groups are packed like channels: the library does neither.
    """
    found = []
    for row in range(image.stride[0]):
        for column in range(image.stride[1]):
            phase = (row, column)
            window = [-(-(image.kernel[i] - phase[i]) // image.stride[i]) for i in (0, 1)]
            if min(window) < 1:
                continue
            high, wide = (image.result[i] + window[i] - 1 for i in (0, 1))
            found.append(_packed(image.channels, image.outputs, high * wide, image.records))
    return tuple(found)


def _packed(channels: int, outputs: int, pixels: int, records: int) -> Ciphertexts:
    padded = 1 << (pixels - 1).bit_length()
    slots = min(LARGEST, max(SMALLEST, 2 * padded))
    strips = -(-padded // (slots // 2))
    per_half = max(1, slots // 2 // padded)
    sent, returned = (records * strips * -(-count // (2 * per_half)) for count in (channels, outputs))
    return Ciphertexts(slots, sent, returned)


def product_ciphertexts(product: Product) -> Ciphertexts:
    """Return the ciphertexts of matrix-vector products, each column on its own."""
    sent, returned = (product.columns * -(-product.count * size // SMALLEST) for size in (product.inner, product.rows))
    return Ciphertexts(SMALLEST, sent, returned)


def sign_bits(bits: int) -> int:
    """Return the bits of one sign over a field of `bits` bits.

    Two comparisons share their leaves, and a table of four joins them.

    >>> sign_bits(32) < 1.5 * 128 * 33 + 27 * 33
    True
    """
    width = bits + 1
    digits, last = -(-width // DIGIT), width % DIGIT or DIGIT
    leaves = transfer_bits(2**DIGIT, 2) + (digits - 2) * transfer_bits(2**DIGIT, 4) + transfer_bits(2**last, 4)
    return leaves + 2 * and_bits(digits) + transfer_bits(4, 1)


@COST_MODELS.register("sci-he")
@final
@dataclass(frozen=True)
class SciHe(CostModel):
    """CrypTFlow2 with homomorphic products; a prime of `bits` bits, `fraction` binary places.

    Truncation divides over the field: counted as one sign, two comparisons of `fraction` + 3 bits and two selections,
    our outline of the protocol. The keys of the client (rotation keys) are not counted.
    """

    slug: ClassVar[str] = "sci-he"
    trust: ClassVar[str] = "semi-honest, one of two parties corrupted, no dealer"
    basis: ClassVar[str] = "packing and comparison of CrypTFlow2's library; division by our outline"

    bits: int = 41
    fraction: int = 12

    def __post_init__(self) -> None:
        """Refuse other fields."""
        check_format(self.bits, self.fraction, 20, 60)

    def layers(self, network: Network, records: int) -> Iterator[LayerPrice]:
        for work in work_of(network, records):
            yield self._price(work)

    def _price(self, work: Work) -> LayerPrice:
        select = 2 * transfer_bits(2, self.bits)
        division = sign_bits(self.bits) + 2 * comparison_bits(self.fraction + 3) + select
        compared = work.rectified + work.maxima
        bits = compared * (sign_bits(self.bits) + select) + work.truncated * division
        level = comparison_rounds(self.bits + 1) + 4
        rounds = 2 * bool(work.products or work.multiplied) + level * (bool(work.rectified) + work.levels)
        rounds += (level + 2) * bool(work.truncated)
        # Two secrets: each side's share under the other's key.
        packs = [product_ciphertexts(Product(1, 1, 1, work.multiplied))] * 2 if work.multiplied else []
        if work.image is not None:
            packs += convolution_ciphertexts(work.image)
        else:
            packs += [product_ciphertexts(product) for product in work.products]
        total = -(-bits // 8) + sum(pack.bytes for pack in packs)
        macs = sum(product.macs for product in work.products) + work.multiplied
        return LayerPrice(work.name, work.layer, work.operator, total, rounds, macs=macs)
