"""Costs of CrypTFlow2's SCI_OT: linear layers and comparisons by oblivious transfer, in bits.

Sources: Rathee et al., CCS 2020, arXiv 2010.06457, sections 3 and 4, and the published library (mpc-msri/EzPC, SCI):
`cross_term_cost` of LinearOT/linear-ot.cpp for products, Millionaire/millionaire.h for comparisons. lambda is 128.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from edgeward.backends.mpc.costs.model import COST_MODELS, CostModel, LayerPrice, check_format
from edgeward.backends.mpc.costs.work import Product, Work, work_of
from edgeward.graph.network import Network

LAMBDA = 128
DIGIT = 4
"""Bits of the digits into which a comparison is split."""

Chooser = Literal["alternating", "weights", "values", "cheaper"]


def product_bits(product: Product, bits: int, chooser: Chooser = "weights") -> int:
    """Return the bits that a product costs in one direction of its cross term, over a ring of `bits` bits.

    Every bit of one operand is the choice bit of a correlated transfer, lambda bits, whose messages carry that
    element's products shortened by the bit's place: sum of (bits - i) = bits (bits + 1) / 2 per multiply-accumulate.
    The operand that chooses is the weights, the values, the cheaper one (as the library does where both operands are
    shared), or each for half of the inner dimension (as its threads do).
    """
    messages = product.macs * bits * (bits + 1) // 2
    by_weights = product.count * product.rows * product.inner * bits * LAMBDA
    by_values = product.count * product.inner * product.columns * bits * LAMBDA
    choices = {
        "weights": by_weights,
        "values": by_values,
        "cheaper": min(by_weights, by_values),
        "alternating": (by_weights + by_values) // 2,
    }
    return messages + choices[chooser]


def transfer_bits(choices: int, message: int) -> int:
    """Return the bits of one 1-of-`choices` transfer of messages of `message` bits.

    1 of 2: lambda + 2 messages; more: 2 lambda + `choices` messages.
    """
    return (LAMBDA if choices == 2 else 2 * LAMBDA) + choices * message


def and_bits(digits: int) -> int:
    """Return the bits of the tree of ANDs that joins `digits` comparisons and equalities.

    The ceil(log2 digits) merges at the low edge need one AND, lambda + 16 bits for its triple and 4 to open; the others
    two that share an operand, 2 (lambda + 8) bits and 6 to open.
    """
    edge = (digits - 1).bit_length()
    return edge * (LAMBDA + 16 + 4) + (digits - 1 - edge) * (2 * (LAMBDA + 8) + 6)


def comparison_bits(width: int) -> int:
    """Return the bits to compare two private numbers of `width` bits; below lambda width + 14 width.

    >>> comparison_bits(32) / 32 < 128 + 14
    True
    """
    digits, last = -(-width // DIGIT), width % DIGIT or DIGIT
    if digits == 1:
        return transfer_bits(2**last, 1)
    leaves = transfer_bits(2**DIGIT, 1) + (digits - 2) * transfer_bits(2**DIGIT, 2) + transfer_bits(2**last, 2)
    return leaves + and_bits(digits)


def relu_bits(bits: int) -> int:
    """Return the bits of one ReLU over a ring: the sign by a comparison of bits - 1, then two transfers to select.

    >>> relu_bits(32) < (128 + 18) * 32
    True
    """
    return comparison_bits(bits - 1) + 2 * transfer_bits(2, bits)


def truncation_bits(bits: int, fraction: int) -> int:
    """Return the bits to drop `fraction` bits of one value, exact to the last bit."""
    return LAMBDA * (bits + 3) + 15 * bits + fraction + 20


def comparison_rounds(width: int) -> int:
    """Return two rounds for the leaves and one per level of ANDs."""
    return 2 + (-(-width // DIGIT) - 1).bit_length()


@COST_MODELS.register("sci-ot")
@final
@dataclass(frozen=True)
class SciOt(CostModel):
    """CrypTFlow2 with oblivious transfer; ring of `bits` bits, `fraction` of them binary places.

    `weights` says who knows the weights: "server" alone (one cross term per product), or "shared" by both parties, as
    when the model's owner is a third (two). `chooser` "weights" meets the published totals best.

    Rounds are counted by us: 2 per product, those of its comparison and 2 per rectifier, as many for a truncation. A
    maximum of n values makes n - 1 comparisons in turn, as in the library.
    """

    slug: ClassVar[str] = "sci-ot"
    trust: ClassVar[str] = "semi-honest, one of two parties corrupted, no dealer"
    basis: ClassVar[str] = "closed forms of CrypTFlow2 (CCS 2020) and its library"

    bits: int = 64
    fraction: int = 12
    weights: Literal["server", "shared"] = "server"
    chooser: Chooser = "weights"

    def __post_init__(self) -> None:
        """Refuse other rings."""
        check_format(self.bits, self.fraction, 8, 64)

    def layers(self, network: Network, records: int) -> Iterator[LayerPrice]:
        for work in work_of(network, records):
            yield self._price(work)

    def _price(self, work: Work) -> LayerPrice:
        bits, sides = self.bits, 2 if self.weights == "shared" else 1
        compared, level = work.rectified + work.maxima, comparison_rounds(bits - 1) + 2
        total = sides * sum(product_bits(product, bits, self.chooser) for product in work.products)
        # Two secrets: both cross terms of a product of single values.
        total += 2 * product_bits(Product(1, 1, 1, work.multiplied), bits, self.chooser)
        total += compared * relu_bits(bits) + work.truncated * truncation_bits(bits, self.fraction)
        rounds = 2 * bool(work.products or work.multiplied) + level * bool(work.truncated)
        rounds += level * bool(work.rectified) + level * work.levels
        macs = sum(product.macs for product in work.products) + work.multiplied
        return LayerPrice(work.name, work.layer, work.operator, -(-total // 8), rounds, macs=macs)
