"""`References`: the black-box and the no-shield attack on one victim, computed once for a whole table of strategies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from jaxtyping import Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgeward.attacks.extraction.attacker import Attacker, Attempt, Theft
from edgeward.attacks.extraction.exposure import Exposure, learned_keys
from edgeward.attacks.extraction.probing import Probes
from edgeward.attacks.extraction.queries import LabelWindow, Victim
from edgeward.attacks.extraction.stealing import Thief, seeds_of
from edgeward.core.errors import ConfigError, ModelError
from edgeward.core.progress import Silent, Watcher
from edgeward.core.randomness import Seed
from edgeward.data.records import Records
from edgeward.graph.network import Network


@final
@dataclass(frozen=True, eq=False)
class References:
    """The two ends of every table, per budget, for `seeds` attackers on one query pool and holdout.

    `labels` is the digest of the victim's answers on the holdout, `choosing` that of the records by which splits are
    chosen ("" for none): predictions are on the holdout, then on those. `sights` are those of the black box's thieves
    (`Thief.sight`), `asked` how many records they asked: a split that shows no more and answers alike is stolen alike.
    """

    black_box: Mapping[int, Theft]
    no_shield: Mapping[int, Theft]
    seeds: tuple[Seed, ...]
    holdout: str
    choosing: str = ""
    labels: str = ""
    sights: tuple[str, ...] = ()
    asked: int = 0

    def require(
        self, budgets: Sequence[int], seeds: Sequence[Seed], holdout: Records, choosing: Records | None = None
    ) -> None:
        """Raise `ConfigError` unless these references were made with the same budgets, seeds and holdout."""
        problems = [f"no reference at {b} queries" for b in budgets if b not in self.black_box]
        problems += ["other seeds"] if tuple(seeds) != self.seeds else []
        problems += ["another holdout"] if holdout.digest != self.holdout else []
        problems += ["other records to choose by"] if _digest(choosing) != self.choosing else []
        if problems:
            raise ConfigError(
                "these references do not fit the audit:\n  " + "\n  ".join(problems),
                expected="references of the same budgets, seeds, holdout and records to choose by",
                fix="compute them with `measure_references` and the same arguments",
            )

    def save(self, path: Path) -> None:
        """Write predictions and choices to one safetensors file, atomically; no record and no weight is in it."""
        sides = {"black_box": self.black_box, "no_shield": self.no_shield}
        tensors = {f"{s}.{b}": t.every.to(torch.int16) for s, found in sides.items() for b, t in found.items()}
        tried = {f"{s}.{b}": t.to_json() for s, found in sides.items() for b, t in found.items()}
        seeds = [seed.value for seed in self.seeds]
        own = {
            "holdout": self.holdout,
            "choosing": self.choosing,
            "labels": self.labels,
            "sight": " ".join(self.sights),
        }
        metadata = {**own, "asked": str(self.asked), "seeds": json.dumps(seeds), "thefts": json.dumps(tried)}
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
                    tried, rivals = (tuple(Attempt(**a) for a in plain[name]) for name in ("tried", "rivals"))
                    best, every = Attempt(**plain["best"]), file.get_tensor(key).long()
                    theft = Theft(plain["budget"], best, tried, every[0], rivals, every)
                    sides[key.split(".")[0]][plain["budget"]] = theft
                seeds = tuple(Seed(value) for value in json.loads(metadata["seeds"]))
                own = {name: metadata[name] for name in ("holdout", "choosing", "labels")}
                sights, asked = tuple(metadata["sight"].split()), int(metadata["asked"])
                return cls(sides["black_box"], sides["no_shield"], seeds, **own, sights=sights, asked=asked)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"the stored references {path.name} are damaged",
                expected="a file written by `References.save`",
                came=f"{type(error).__name__}",
                fix=f"delete {path.name}; they are computed again",
            ) from error


def black_boxes(victim: Network, public: Network | None) -> tuple[Exposure, ...]:
    """Return what lies open of a victim whose weights are all hidden: its form, and the public network.

    Both are built like the victim and start from the public weights. Where the public network has a form of its own
    (another activation, say), a thief may as well train that form, for which the weights were made.
    """
    prior = {} if public is None else {key: public.tensors[key] for key in learned_keys(public)}
    forms = [victim] if public is None or public.nodes == victim.nodes else [victim, public]
    return tuple(Exposure("whole", form, {}, prior) for form in forms)


def measure_references(
    black_box: Exposure | Sequence[Exposure],
    no_shield: Exposure,
    victim: Victim,
    query_pool: Records,
    holdout: Records,
    budgets: Sequence[int],
    seeds: Sequence[Seed] | int = 3,
    *,
    attacker: Attacker | None = None,
    watcher: Watcher | None = None,
    choosing: Records | None = None,
    foreign: Records | None = None,
) -> References:
    """Attack both ends at every budget.

    `black_box` shows nothing but the victim's architecture and the public prior (whole model in the secure world); of
    several exposures (`black_boxes`) the best attack counts, and the attacker's own choice is the one it rates best.
    `no_shield` shows everything and is taken as it is. `victim` answers as the split to be audited does (its int8
    answers through both worlds), so that the ends differ from it by what is visible and by nothing else. `choosing` are
    the records by which splits are chosen, `foreign` records of another origin that a thief may ask.
    """
    chosen, tries = seeds_of(seeds), attacker or Attacker()
    window = window_of(victim, query_pool, budgets, chosen, tries, foreign)
    rest, after = (window, holdout, budgets, chosen), (watcher or Silent(), choosing)
    # what lies open as a whole is taken as it is; training could only bring it nearer to its own answers
    taking = replace(tries, variants=("as it is",), queries=("records",))
    boxes = [black_box] if isinstance(black_box, Exposure) else black_box
    found = [thefts(one, *rest, tries, *after) for one in boxes]
    boxed = {budget: Theft.strongest([stolen[budget] for _, stolen in found]) for budget in budgets}
    asked, bare = window.asked, thefts(no_shield, *rest, taking, *after)[1]
    labels = LabelWindow(victim, holdout).labels(torch.arange(len(holdout)))
    return References(
        boxed,
        bare,
        chosen,
        holdout=holdout.digest,
        choosing=_digest(choosing),
        labels=digest_of(labels),
        sights=tuple(thief.sight for thief, _ in found),
        asked=asked,
    )


def window_of(
    victim: Victim,
    pool: Records,
    budgets: Sequence[int],
    seeds: Sequence[Seed],
    attacker: Attacker,
    foreign: Records | None,
) -> LabelWindow:
    """Return a window on everything that the thieves may ask."""
    probes = Probes.of(pool, attacker.queries, max(budgets) * (len(seeds) + 1), foreign)
    return LabelWindow(victim, probes.pool, probes.spans)


def thefts(
    exposure: Exposure,
    window: LabelWindow,
    holdout: Records,
    budgets: Sequence[int],
    seeds: tuple[Seed, ...],
    attacker: Attacker,
    watcher: Watcher,
    choosing: Records | None = None,
    known: References | None = None,
) -> tuple[Thief, Mapping[int, Theft]]:
    """Return the attacker of one exposure and what it steals at each budget.

    What shows the thief no more than the black box does, and answers alike, is not attacked a second time.
    """
    classes = int(holdout.y.max()) + 1
    subject = holdout.x if choosing is None else torch.cat([holdout.x, choosing.x])
    thief = Thief(exposure, window, subject, classes, seeds, attacker, watcher, holdout.y)
    if known is not None and thief.sight in known.sights:
        return thief, {budget: known.black_box[budget] for budget in budgets}
    return thief, {budget: thief.steal(budget) for budget in budgets}


def digest_of(labels: Int64[Tensor, " h"]) -> str:
    """Return the SHA-256 of a victim's answers."""
    return hashlib.sha256(labels.to(torch.int32).numpy().tobytes()).hexdigest()


def _digest(records: Records | None) -> str:
    return "" if records is None else records.digest
