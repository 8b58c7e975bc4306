"""`audit`: measure the leakage of a network trained as it is; no bundle has to be chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from edgeward.core.errors import ClaimFailed
from edgeward.protect import Protected, protect
from edgeward.recipes import Recipe
from edgeward.train.population import Factory


def audit(
    model: nn.Module | Factory, *, recipes: Sequence[str | Recipe | Mapping[str, Any]] = ("none",), **arguments: Any
) -> Protected:
    """Audit recipes as `protect` does (same arguments), by default the undefended training alone.

    Guarantee: measured against the attacks named in the report. Cost: one batched training of up to
    2 threat.shadows + 1 models per recipe.
    """
    return protect(model, recipes=recipes, **arguments)


def require_below(report: Mapping[str, Any], rate: str, bound: float) -> None:
    """Raise `ClaimFailed` when any candidate's strongest attack exceeds `bound` at `rate` ("tpr_at_1pct", "auc")."""
    attacked = [(c["recipe"], c["strongest_attack"]) for c in report["candidates"] if c["strongest_attack"]]
    over = [f"{recipe}: {a[rate]['value']:.4f} by {a['name']}" for recipe, a in attacked if a[rate]["value"] > bound]
    if over:
        raise ClaimFailed(
            f"{len(over)} candidates leak more than allowed:\n  " + "\n  ".join(over),
            expected=f"{rate} at most {bound}",
            came=over[0],
            fix="choose another recipe, or raise the bound knowingly",
        )
