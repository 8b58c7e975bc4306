"""Which ROC curves a report keeps: those that are drawn or compared, at the precision that can be seen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MAX_POINTS = 64
# The statistics of the threshold attack differ little; one of their curves stands for all.
_STATISTICS = frozenset({"loss", "logit", "hinge", "entropy", "modified"})


def family(attack: Mapping[str, Any]) -> tuple[str, str]:
    """Return what an attack's curve is compared with: its kind of records, and its first word.

    >>> family({"name": "lira-online-record", "kind": "mislabelled"})
    ('mislabelled', 'lira')
    >>> family({"name": "loss (shipped model)", "kind": "population"})
    ('population', 'threshold')
    """
    word = re.split(r"[-:\s]", attack["name"], maxsplit=1)[0]
    return attack["kind"], "threshold" if word in _STATISTICS else word


def with_kept_curves(measurement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain measurement with the ROC curves that are looked at only, at 6 significant digits.

    The strongest attack keeps every point; the best of each other family on the same kind of records, and the best on
    each other kind, keep `MAX_POINTS`; the rest none. Rates and intervals are untouched. Assumed: attacks on one kind
    are sorted strongest first.
    """
    strongest = measurement["strongest_attack"]
    attacks: Sequence[Mapping[str, Any]] = measurement["attacks"]
    worst = strongest["kind"] if strongest else ""
    best: dict[tuple[str, str], int] = {}
    for place, attack in enumerate(attacks):
        best.setdefault(family(attack) if attack["kind"] == worst else (attack["kind"], ""), place)
    kept = set(best.values())

    def curve(place: int, attack: Mapping[str, Any]) -> list[list[float]]:
        if strongest and (attack["name"], attack["kind"]) == (strongest["name"], strongest["kind"]):
            return _rounded(attack["roc"])
        return _rounded(thinned(attack["roc"])) if place in kept else []

    return {
        **measurement,
        "strongest_attack": {**strongest, "roc": _rounded(strongest["roc"])} if strongest else None,
        "attacks": [{**attack, "roc": curve(place, attack)} for place, attack in enumerate(attacks)],
    }


def thinned(roc: Sequence[Sequence[float]], most: int = MAX_POINTS) -> list[Sequence[float]]:
    """Return at most `most` points of a curve, evenly by place, both ends among them.

    >>> thinned([(0, 0), (0.2, 0.5), (0.4, 0.8), (0.6, 0.9), (1, 1)], 3)
    [(0, 0), (0.4, 0.8), (1, 1)]
    """
    last = len(roc) - 1
    places = range(len(roc)) if last < most else sorted({round(i * last / (most - 1)) for i in range(most)})
    return [roc[place] for place in places]


def _rounded(roc: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[float(f"{rate:.6g}") for rate in point] for point in roc]
