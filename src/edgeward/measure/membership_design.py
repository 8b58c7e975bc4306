"""Who is a member of which model: the designs of a membership audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgeward.core.randomness import Seed
from edgeward.core.threat import MembershipInference
from edgeward.data.splits import Splits


def balanced(shadows: int, records: int, seed: Seed) -> Bool[Tensor, "S n"]:
    """Return a random membership in which every record is in exactly half of the models (Carlini et al. S&P'22)."""
    draws = torch.rand(shadows, records, generator=seed.torch())
    return draws.argsort(0).argsort(0) < shadows // 2


@final
@dataclass(frozen=True)
class MembershipDesign:
    """Records to train on and who trains on what: S audited models, then the one that ships.

    Shapes: `x` [n, ...], `y` [n] (as trained on: canaries carry their wrong label), `members` [S + 1, n], `audited` [m]
    rows that the audit asks about.
    """

    x: Float[Tensor, "n ..."]
    y: Int[Tensor, " n"]
    members: Bool[Tensor, "T n"]
    audited: Int[Tensor, " m"]

    @property
    def keep(self) -> Bool[Tensor, "S m"]:
        """Membership of the audited records in the audited models."""
        return self.members[:-1][:, self.audited]


def design(splits: Splits, threat: MembershipInference, seed: Seed) -> MembershipDesign:
    """Lay out an audit.

    Canaries: audited models train on all records but the canaries' sources, and each canary is in half of them; the
    shipped model trains on every true record and on no canary. Population: each training record is in half of the
    audited models; the shipped model trains on all of them.
    Source: Aerni, Zhang, Tramèr, CCS'24, section 4 (canaries); Carlini et al., S&P'22 (population).
    """
    n = len(splits.train)
    if threat.protocol == "population":
        members = torch.cat([balanced(threat.shadows, n, seed), torch.ones(1, n, dtype=torch.bool)])
        return MembershipDesign(splits.train.x, splits.train.y, members, torch.arange(n))
    c = len(splits.canaries)
    members = torch.ones(threat.shadows + 1, n + c, dtype=torch.bool)
    members[:-1, splits.canary_sources] = False
    members[:-1, n:] = balanced(threat.shadows, c, seed)
    members[-1, n:] = False
    x = torch.cat([splits.train.x, splits.canaries.x])
    y = torch.cat([splits.train.y, splits.canaries.y])
    return MembershipDesign(x, y, members, torch.arange(n, n + c))
