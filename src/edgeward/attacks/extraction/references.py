"""`References`: the black-box and the no-shield attack on one victim, computed once for a whole table of strategies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from edgeward.attacks.extraction.attacker import Attacker, Attempt, Theft
from edgeward.attacks.extraction.exposure import Exposure
from edgeward.attacks.extraction.queries import LabelWindow, Victim
from edgeward.attacks.extraction.stealing import Thief, seeds_of
from edgeward.core.errors import ConfigError, ModelError
from edgeward.core.progress import Silent, Watcher
from edgeward.core.randomness import Seed
from edgeward.data.records import Records


@final
@dataclass(frozen=True, eq=False)
class References:
    """The two ends of every table, per budget, for `seeds` attackers on one query pool and holdout."""

    black_box: Mapping[int, Theft]
    no_shield: Mapping[int, Theft]
    seeds: tuple[Seed, ...]
    holdout: str

    def require(self, budgets: Sequence[int], seeds: Sequence[Seed], holdout: Records) -> None:
        """Raise `ConfigError` unless these references were made with the same budgets, seeds and holdout."""
        problems = [f"no reference at {b} queries" for b in budgets if b not in self.black_box]
        problems += ["other seeds"] if tuple(seeds) != self.seeds else []
        problems += ["another holdout"] if holdout.digest != self.holdout else []
        if problems:
            raise ConfigError(
                "these references do not fit the audit:\n  " + "\n  ".join(problems),
                expected="references of the same budgets, seeds and holdout",
                fix="compute them with `measure_references` and the same arguments",
            )

    def save(self, path: Path) -> None:
        """Write predictions and choices to one safetensors file, atomically; no record and no weight is in it."""
        sides = {"black_box": self.black_box, "no_shield": self.no_shield}
        tensors = {f"{s}.{b}": t.predictions.to(torch.int16) for s, found in sides.items() for b, t in found.items()}
        tried = {f"{s}.{b}": t.to_json() for s, found in sides.items() for b, t in found.items()}
        seeds = [seed.value for seed in self.seeds]
        metadata = {"holdout": self.holdout, "seeds": json.dumps(seeds), "thefts": json.dumps(tried)}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, partial, metadata=metadata)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> References:
        """Read back what `save` wrote; raises `ModelError` for a damaged file."""
        sides: dict[str, dict[int, Theft]] = {"black_box": {}, "no_shield": {}}
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                for key, plain in json.loads(metadata["thefts"]).items():
                    tried = tuple(Attempt(**attempt) for attempt in plain["tried"])
                    best, predictions = Attempt(**plain["best"]), file.get_tensor(key).long()
                    sides[key.split(".")[0]][plain["budget"]] = Theft(plain["budget"], best, tried, predictions)
                seeds = tuple(Seed(value) for value in json.loads(metadata["seeds"]))
                return cls(sides["black_box"], sides["no_shield"], seeds, metadata["holdout"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"the stored references {path.name} are damaged",
                expected="a file written by `References.save`",
                came=f"{type(error).__name__}",
                fix=f"delete {path.name}; they are computed again",
            ) from error


def measure_references(
    black_box: Exposure,
    no_shield: Exposure,
    victim: Victim,
    query_pool: Records,
    holdout: Records,
    budgets: Sequence[int],
    seeds: Sequence[Seed] | int = 3,
    *,
    attacker: Attacker | None = None,
    watcher: Watcher | None = None,
) -> References:
    """Attack both ends at every budget.

    `black_box` shows nothing but the victim's architecture and the public prior (whole model in the secure world).
    `no_shield` shows everything.
    """
    chosen, window = seeds_of(seeds), LabelWindow(victim, query_pool)
    rest = (window, holdout, budgets, chosen, attacker or Attacker(), watcher or Silent())
    ends = [thefts(exposure, *rest)[1] for exposure in (black_box, no_shield)]
    return References(ends[0], ends[1], chosen, holdout.digest)


def thefts(
    exposure: Exposure,
    window: LabelWindow,
    holdout: Records,
    budgets: Sequence[int],
    seeds: tuple[Seed, ...],
    attacker: Attacker,
    watcher: Watcher,
) -> tuple[Thief, dict[int, Theft]]:
    """Return the attacker of one exposure and what it steals at each budget."""
    classes = int(holdout.y.max()) + 1
    thief = Thief(exposure, window, holdout.x, classes, seeds, attacker, watcher)
    return thief, {budget: thief.steal(budget) for budget in budgets}
