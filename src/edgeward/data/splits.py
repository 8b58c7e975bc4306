"""`Splits`: the roles records play in an audit, and the check that no record plays two."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import torch
from jaxtyping import Int64
from torch import Tensor

from edgeward.core.errors import DataError
from edgeward.data.records import Records

SHOWN: Final = 8
"""How many labels or positions an error lists before it only counts."""

MAX_CLASSES: Final = 100_000


@final
@dataclass(frozen=True, eq=False, repr=False)
class Splits:
    """The disjoint roles of one data set.

    `train` are the members; `validation` chooses settings; `holdout` are the non-members every number is reported on;
    `shadow` is the attacker's auxiliary population; `canaries` are copies of `train.x[canary_sources]` with wrong
    labels, whose membership the audit varies. `notes` says what was done to the data on the way here.

    Guarantee (checked by `check`, exact up to 128-bit hash collisions): no input of holdout is in train, validation or
    shadow; none of validation or shadow is in train.
    """

    name: str
    classes: int
    train: Records
    validation: Records
    holdout: Records
    shadow: Records
    canaries: Records
    canary_sources: Int64[Tensor, " c"]
    notes: tuple[str, ...] = ()

    @property
    def roles(self) -> dict[str, Records]:
        """The four disjoint roles by name."""
        return {"train": self.train, "validation": self.validation, "holdout": self.holdout, "shadow": self.shadow}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one record."""
        return self.train.shape

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the number of classes and every role (64 hex digits); names and notes do not enter."""
        parts = [str(self.classes), *(r.digest for r in self.roles.values()), self.canaries.digest]
        sources = ",".join(str(i) for i in self.canary_sources.tolist())
        return hashlib.sha256("\n".join([*parts, sources]).encode()).hexdigest()

    def counts(self) -> dict[str, int]:
        """Return the number of records of each role, canaries included."""
        return {**{role: len(records) for role, records in self.roles.items()}, "canaries": len(self.canaries)}

    def __repr__(self) -> str:
        """Show the name, the counts and the digest, never a record."""
        counts = ", ".join(f"{role}={count}" for role, count in self.counts().items())
        return f"Splits({self.name!r}, classes={self.classes}, shape={self.input_shape}, {counts})"

    def check(self) -> Splits:
        """Return self, or raise one `DataError` that lists every problem.

        Problems: empty roles, labels outside 0 .. classes - 1, NaN or infinity, unequal shapes, one input in two
        roles, canaries that are not mislabelled copies of their sources. Cost: one hash per record (cached).
        """
        problems = [*self._empty(), *self._labels(), *self._values(), *self._shapes(), *self._overlaps()]
        problems += self._canary_problems()
        if problems:
            fixes = list(dict.fromkeys(fix for _, fix in problems))
            raise DataError(
                f"the splits of '{self.name}' cannot be used:\n" + "\n".join(f"    - {text}" for text, _ in problems),
                expected="finite records of one shape, each in one role, with labels 0 .. classes - 1",
                came=f"{len(problems)} problem{'s' if len(problems) != 1 else ''}",
                fix="; ".join(fixes),
            )
        return self

    def _empty(self) -> list[tuple[str, str]]:
        meaning = {
            "train": "training record",
            "validation": "validation record",
            "holdout": "non-member record",
            "shadow": "record for the attacker's shadow population",
        }
        found = [
            (f"{role} is empty: expected at least one {meaning[role]}, came 0", f"give records for {role}")
            for role, records in self.roles.items()
            if not len(records)
        ]
        if not 2 <= self.classes <= MAX_CLASSES:
            text = f"classes = {self.classes}: expected 2 to {MAX_CLASSES}"
            found.append((text, "give labels 0, 1, ... of at least two classes"))
        return found

    def _labels(self) -> list[tuple[str, str]]:
        found = []
        for role, records in {**self.roles, "canaries": self.canaries}.items():
            wrong = records.y[(records.y < 0) | (records.y >= self.classes)]
            if len(wrong):
                values = torch.unique(wrong).tolist()
                shown = ", ".join(map(str, values[:SHOWN])) + (", ..." if len(values) > SHOWN else "")
                text = f"{role}: {len(wrong)} labels outside 0 .. {self.classes - 1} (labels {shown})"
                found.append((text, "number the classes from 0 or pass the right number of classes"))
        return found

    def _values(self) -> list[tuple[str, str]]:
        found = []
        for role, records in self.roles.items():
            if not len(records):
                continue
            bad = (~torch.isfinite(records.x)).reshape(len(records), -1).any(1).nonzero()[:, 0]
            if len(bad):
                text = f"{role}: {len(bad)} records hold NaN or infinity (first at index {int(bad[0])})"
                found.append((text, "remove or impute the records with NaN or infinity"))
        return found

    def _shapes(self) -> list[tuple[str, str]]:
        shapes = {role: r.shape for role, r in {**self.roles, "canaries": self.canaries}.items() if len(r)}
        if len(set(shapes.values())) <= 1:
            return []
        text = ", ".join(f"{role} {shape}" for role, shape in shapes.items())
        return [(f"the records of the roles differ in shape: {text}", "bring all records to one shape")]

    def _overlaps(self) -> list[tuple[str, str]]:
        hashes = {role: set(records.row_hashes) for role, records in self.roles.items()}
        pairs = [("train", "holdout"), ("train", "validation"), ("train", "shadow")]
        pairs += [("validation", "holdout"), ("holdout", "shadow")]
        found = []
        for first, second in pairs:
            count = sum(h in hashes[first] for h in self.roles[second].row_hashes)
            if count:
                text = f"{count} of the {len(self.roles[second])} {second} records are also in {first}"
                found.append((text, f"remove the overlap between {first} and {second} (or pass deduplicate=True)"))
        return found

    def _canary_problems(self) -> list[tuple[str, str]]:
        sources, fix = self.canary_sources, "build the canaries with `make_splits`"
        if len(sources) != len(self.canaries):
            return [(f"{len(self.canaries)} canaries have {len(sources)} sources", fix)]
        if not len(sources) or not len(self.train):
            return []
        if int(sources.min()) < 0 or int(sources.max()) >= len(self.train):
            return [(f"canary sources outside train (0 .. {len(self.train) - 1})", fix)]
        found = []
        if len(torch.unique(sources)) < len(sources):
            found.append(("canary sources repeat", fix))
        right = int((self.canaries.y == self.train.y[sources]).sum())
        if right:
            found.append((f"{right} canaries carry the right label: expected a wrong one", fix))
        hashes = self.train.row_hashes
        foreign = sum(h != hashes[i] for h, i in zip(self.canaries.row_hashes, sources.tolist(), strict=True))
        if foreign:
            found.append((f"{foreign} canaries are not copies of their sources", fix))
        return found
