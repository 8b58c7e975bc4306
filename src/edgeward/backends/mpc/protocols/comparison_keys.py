"""Comparing a public number with a shared one by function secret sharing: each party evaluates its key alone.

The borrow of public - mask is [public < mask] over the bits below the sign, which `native.dcf` shares without a
message. See docs/decisions/0011-comparison-by-function-keys.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeward.backends.mpc.offline.demand import Field, Values
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.ring import Elements
from edgeward.native import dcf


def key_fields(layout: Layout, count: int) -> tuple[Field, ...]:
    """Return the keys for `count` comparisons: a root of each party's own, correction words and the cipher's key.

    Cost: 16 (width - 7) bytes to each party and value for widths above 8, beside 16 for all.
    """
    return (
        Field("roots", (count, dcf.BLOCK), 0, False, "own"),
        Field("salt", (dcf.BLOCK,), 0, False),
        Field("cipher", (dcf.BLOCK,), 0, True, "common"),
        Field("words", (count, dcf.word_count(layout.width - 1), dcf.BLOCK), 0, True, "common"),
    )


def complete_keys(layout: Layout, high: Elements, clear: Values) -> dict[str, np.ndarray]:
    """Return the dependent part of `key_fields` for the mask `high` (dealer only).

    Every deal has a cipher key of its own, so that work against one deal's keys is of no use against another's.
    """
    alpha, bits = _below_sign(high, layout.width), layout.width - 1
    return {"cipher": clear["salt"], "words": dcf.generate(alpha, bits, clear["roots"], clear["salt"])}


def borrow(party: Party, layout: Layout, public: Elements, material: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return this party's share of [low bits of public < low bits of mask] as one plane. No communication.

    Guarantee: as `Party`; the keys hide the mask (assumed: see `native.dcf.generate`).
    """
    x, bits = _below_sign(public, layout.width), layout.width - 1
    return dcf.evaluate(party.number, x, bits, material["roots"], material["words"], material["cipher"])


def _below_sign(x: Elements, width: int) -> np.ndarray:
    return np.asarray(x.astype(np.uint64) & np.uint64((1 << (width - 1)) - 1))
