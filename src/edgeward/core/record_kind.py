"""Kinds of audited records: whose membership an audit varies, and what each kind tells that another does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from edgeward.core.errors import unknown_name


@final
@dataclass(frozen=True)
class RecordKind:
    """One kind of audited record.

    `planted` kinds are made for the audit and never ship; the others are training records as they are. Each planted
    record takes the place of `sources` training records. `group` records share their membership: they are in a model
    together or not at all.
    """

    slug: str
    title: str
    tells: str
    planted: bool
    sources: float = 0.0
    group: int = 1


MISLABELLED = RecordKind(
    "mislabelled",
    "mislabelled canaries",
    "what is learned by heart: nothing but the record itself teaches its label",
    planted=True,
    sources=1.0,
)
TWINS = RecordKind(
    "twins",
    "mislabelled near-duplicates",
    "what is still learned by heart where a second record teaches the same wrong label",
    planted=True,
    sources=0.5,
    group=2,
)
HALF_WRONG_TWINS = RecordKind(
    "half-wrong-twins",
    "near-duplicates, one of two mislabelled",
    "what is learned where two nearly equal records disagree on their label",
    planted=True,
    sources=0.5,
    group=2,
)
OUT_OF_DISTRIBUTION = RecordKind(
    "out-of-distribution",
    "records that look like no other",
    "what is learned of inputs far from all others, under any label",
    planted=True,
)
EXPOSED = RecordKind(
    "exposed",
    "most exposed training records",
    "what happens to the records that plain training gives away first, under their own label",
    planted=False,
)
NATURAL = RecordKind(
    "natural",
    "all training records",
    "what happens to a training record as it comes, under its own label",
    planted=False,
)

KINDS: Mapping[str, RecordKind] = {
    kind.slug: kind for kind in (MISLABELLED, TWINS, HALF_WRONG_TWINS, OUT_OF_DISTRIBUTION, EXPOSED, NATURAL)
}


def kinds_of(slugs: Iterable[str]) -> tuple[RecordKind, ...]:
    """Return the kinds called `slugs` in their order of `KINDS`; raises `ConfigError` naming the nearest known one."""
    asked = tuple(slugs)
    for slug in asked:
        if slug not in KINDS:
            raise unknown_name("kind of audited records", slug, KINDS)
    return tuple(kind for kind in KINDS.values() if kind.slug in asked)
