"""Who is a member of which model: the design of a membership audit, one panel per kind of audited records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgeward.core.randomness import Seed
from edgeward.core.record_kind import EXPOSED, RecordKind
from edgeward.core.threat import MembershipInference
from edgeward.data.planting import plant
from edgeward.data.splits import Splits


def balanced(shadows: int, records: int, seed: Seed) -> Bool[Tensor, "S n"]:
    """Return a random membership in which every record is in exactly half of the models (Carlini et al. S&P'22).

    With two records or more, no model has all or none of them: such draws, which few records allow, are drawn again.
    """
    generator = seed.torch()
    while True:
        draws = torch.rand(shadows, records, generator=generator)
        members = draws.argsort(0).argsort(0) < shadows // 2
        if records < 2 or not bool((members.all(1) | ~members.any(1)).any()):
            return members


@final
@dataclass(frozen=True)
class Panel:
    """One kind of audited records: the models it is audited on, its rows, and who is a member with whom.

    Shapes: `models` [S] and `rows` [m] number models and records of the design; records with equal `group` [m] share
    their membership.
    """

    kind: RecordKind
    models: Int[Tensor, " S"]
    rows: Int[Tensor, " m"]
    group: Int[Tensor, " m"]

    @property
    def clusters(self) -> Int[Tensor, " m"]:
        """One number per group that is the same in every panel: the row of its first record."""
        first = torch.full((int(self.group.max()) + 1,), torch.iinfo(torch.int64).max)
        return first.scatter_reduce(0, self.group, self.rows, "amin")[self.group]


@final
@dataclass(frozen=True)
class MembershipDesign:
    """Records to train on and who trains on what: the audited models, then the one that ships.

    Shapes: `x` [n, ...], `y` [n] (as trained on: planted records carry their planted label), `members` [T, n].
    """

    x: Float[Tensor, "n ..."]
    y: Int[Tensor, " n"]
    members: Bool[Tensor, "T n"]
    panels: tuple[Panel, ...]

    def keep(self, panel: Panel) -> Bool[Tensor, "S m"]:
        """Return the membership of a panel's records in its models."""
        return self.members[panel.models][:, panel.rows]


def design(
    splits: Splits, threat: MembershipInference, seed: Seed, exposed: Int[Tensor, " e"] | None = None
) -> MembershipDesign:
    """Lay out an audit of every kind the threat names.

    The first `shadows` models are for the planted kinds: they train on all records but the sources of the planted
    ones, and each planted record (or group) is in half of them. The next are for the natural kinds: each training
    record is in half of them, and no planted one. The last model ships: it trains on every true record and on nothing
    planted. Where one of both sorts is not asked for, its models are left out. `exposed` are the training records to
    audit as the most exposed; without them that kind is left out.
    Source: Aerni, Zhang, Tramèr, CCS'24, section 4 (planted); Carlini et al., S&P'22 (natural).
    """
    n, s = len(splits.train), threat.shadows
    planted = plant(splits, threat.planted, seed)
    x = torch.cat([splits.train.x, *(p.records.x for p in planted)])
    y = torch.cat([splits.train.y, *(p.records.y for p in planted)])
    members, panels, first = [], [], 0
    if planted:
        mask = torch.ones(s, len(x), dtype=torch.bool)
        mask[:, splits.canary_sources] = False
        start = n
        for p in planted:
            rows = torch.arange(start, start + len(p))
            groups = int(p.group.max()) + 1
            mask[:, rows] = balanced(s, groups, seed.child(p.kind.slug))[:, p.group]
            panels.append(Panel(p.kind, torch.arange(s), rows, p.group))
            start += len(p)
        members.append(mask)
        first = s
    if threat.natural:
        mask = torch.zeros(s, len(x), dtype=torch.bool)
        mask[:, :n] = balanced(s, n, seed.child("natural"))
        members.append(mask)
        for kind in threat.natural:
            audited = torch.arange(n) if kind is not EXPOSED else exposed
            if audited is not None and len(audited):
                panels.append(Panel(kind, torch.arange(first, first + s), audited, torch.arange(len(audited))))
    shipped = torch.arange(len(x))[None] < n
    return MembershipDesign(x, y, torch.cat([*members, shipped]), tuple(panels))
