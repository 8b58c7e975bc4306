"""Where a modelled overhead comes from: what the normal world no longer does, and what two worlds do instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeward.report.wording import amount, finite, percent

WHY_NEGATIVE = (
    "A negative overhead is possible and is a figure of the model, not a gain that was measured: the layers behind the "
    "last tap no longer run in the normal world as float32, each with the overhead of a called operator; the secure "
    "world runs its own network on 8-bit integers without calls in between."
)


def balance(split: Mapping[str, Any]) -> str:
    """Return one sentence that adds up the overhead of a split from the terms of its estimate."""
    modelled = split["modelled"]
    saved, spent = modelled.get("saved", {}), modelled["seconds"]
    gone = [finite(saved.get(name)) for name in ("work", "calls")]
    added = [finite(spent.get(name)) for name in ("handover", "switch", "memref", "copy", "secure")]
    if any(value is None for value in (*gone, *added)):
        return ""
    work, calls = (value or 0.0 for value in gone)
    more = sum(value or 0.0 for value in added)
    rest = f"; {_overlap(modelled, more - work - calls)}" if modelled["transfer"] == "stream" else ""
    return (
        f"Overhead {percent(finite(modelled['overhead']), 2)} of {amount(modelled['seconds_normal'], 's')}: the normal "
        f"world is done {amount(work + calls, 's')} earlier ({amount(work, 's')} of float work and "
        f"{amount(calls, 's')} of calling operators behind the last tap), handing over, switching, copying and the "
        f"secure network take {amount(more, 's')}{rest}."
    )


def _overlap(modelled: Mapping[str, Any], sum_of_terms: float) -> str:
    difference = sum_of_terms - (float(modelled["seconds_total"]) - float(modelled["seconds_normal"]))
    return f"{amount(max(difference, 0.0), 's')} of that overlap with the normal world"


def why(split: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sentences below a split's table of terms: the sum, and how a negative one can be."""
    overhead = finite(split["modelled"]["overhead"])
    lines = (balance(split), WHY_NEGATIVE if overhead is not None and overhead < 0 else "")
    return tuple(line for line in lines if line)
