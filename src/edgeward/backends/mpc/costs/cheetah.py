"""Costs of Cheetah: products under RLWE with coefficient packing and no rotations, comparisons by silent transfers.

Source: Huang et al., USENIX Security 2022, sections 3 to 5 for the packing. The bits per comparison are measured (the
CHEETAH mode of SPU 0.9.5: 99 bytes per ReLU of 64 bits, 49 of 32 bits, both directions).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from edgeward.backends.mpc.costs.model import COST_MODELS, CostModel, LayerPrice, check_format
from edgeward.backends.mpc.costs.oblivious import comparison_rounds
from edgeward.backends.mpc.costs.work import Image, Product, Work, work_of
from edgeward.graph.network import Network

DEGREE, MODULUS_BITS, RETURNED_BITS = 4096, 109, 60
"""Coefficients of a polynomial, and the bits of one before and after the modulus is switched for the answer."""
RELU_BITS, COMPARISON_BITS = 99 / 8, 11.0
"""Bits sent per bit of a value: with selection (measured), and without (the lower end of what is published)."""


@final
@dataclass(frozen=True)
class Polynomials:
    """Ciphertexts sent (one polynomial each, the other is a seed), returned, and values read from the answer."""

    sent: int
    returned: int
    values: int

    @property
    def bytes(self) -> int:
        """Return their size: of an answer one whole polynomial and the coefficients that hold results."""
        return (self.sent * DEGREE * MODULUS_BITS + (self.returned * DEGREE + self.values) * RETURNED_BITS) // 8


def convolution_polynomials(image: Image) -> Polynomials:
    """Return the ciphertexts of one convolution with the block of pixels that makes them fewest.

    A polynomial holds `side`^2 pixels of as many channels as fit; blocks overlap by the window less 1; channels of
    several polynomials are summed by the server; several filters share an answer where there is room. Windows of one
    pixel are read at the stride's places only. Groups are packed like channels.
    """
    stride = image.stride if image.kernel == (1, 1) else (1, 1)
    size = [-(-image.size[i] // stride[i]) for i in (0, 1)]
    reach = max(image.kernel)
    options = []
    for side in range(reach, min(max(size), int(DEGREE**0.5)) + 1):
        blocks = 1
        for i in (0, 1):
            blocks *= -(-(size[i] - image.kernel[i] + 1) // (side - image.kernel[i] + 1))
        channels = min(image.channels, DEGREE // side**2)
        filters = max(1, DEGREE // (side**2 * channels))
        sent = blocks * -(-image.channels // channels)
        options.append((sent, blocks * -(-image.outputs // filters)))
    values = image.outputs * image.result[0] * image.result[1]
    return min(
        (Polynomials(image.records * sent, image.records * back, image.records * values) for sent, back in options),
        key=lambda found: found.bytes,
    )


def product_polynomials(product: Product) -> Polynomials:
    """Return the ciphertexts of matrix-vector products, each column on its own."""
    total = product.count * product.inner
    sent = -(-total // DEGREE)
    back = max(1, -(-product.count * product.rows * min(product.inner, DEGREE) // DEGREE))
    return Polynomials(product.columns * sent, product.columns * back, product.columns * product.count * product.rows)


@COST_MODELS.register("cheetah")
@final
@dataclass(frozen=True)
class Cheetah(CostModel):
    """Cheetah over a ring of `bits` bits; truncation may be one unit off and costs one comparison (11 bits a bit)."""

    slug: ClassVar[str] = "cheetah"
    trust: ClassVar[str] = "semi-honest, one of two parties corrupted, no dealer"
    basis: ClassVar[str] = "packing of Cheetah (USENIX Security 2022); comparisons measured in SPU; truncation assumed"

    bits: int = 37
    fraction: int = 12

    def __post_init__(self) -> None:
        """Refuse other rings."""
        check_format(self.bits, self.fraction, 8, 64)

    def layers(self, network: Network, records: int) -> Iterator[LayerPrice]:
        for work in work_of(network, records):
            yield self._price(work)

    def _price(self, work: Work) -> LayerPrice:
        level = comparison_rounds(self.bits - 1) + 2
        compared = (work.rectified + work.maxima) * self.bits * RELU_BITS
        compared += work.truncated * self.bits * COMPARISON_BITS
        packs = [product_polynomials(Product(1, 1, 1, work.multiplied))] * 2 if work.multiplied else []
        if work.image is not None:
            packs.append(convolution_polynomials(work.image))
        else:
            packs += [product_polynomials(product) for product in work.products]
        rounds = 2 * bool(packs) + level * (bool(work.rectified) + work.levels + bool(work.truncated))
        total = round(compared / 8) + sum(pack.bytes for pack in packs)
        macs = sum(product.macs for product in work.products) + work.multiplied
        return LayerPrice(work.name, work.layer, work.operator, total, rounds, macs=macs)
