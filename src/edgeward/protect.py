"""`protect`: take a network and its records, return protected candidates with their evidence on one frontier."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import indent
from typing import Any, final

from torch import nn

from edgeward.backends.tee.device_storage import DeviceStorage
from edgeward.core.budget import Budget
from edgeward.core.candidate import Candidate
from edgeward.core.errors import ConfigError, EdgewardError
from edgeward.core.frontier import Frontier, Measured
from edgeward.core.measurement import Measurement
from edgeward.core.progress import Silent, Watcher
from edgeward.core.randomness import Seed
from edgeward.core.threat import MembershipInference, Threat
from edgeward.data.splits import Splits
from edgeward.deploy import remove_bundle
from edgeward.deploy.split import is_split, remove_split
from edgeward.devices import DeviceProfile, load_profile
from edgeward.evidence import Evidence
from edgeward.graph import capture
from edgeward.pipeline import Pipeline
from edgeward.recipes import RECIPES, Recipe, resolve
from edgeward.search import Failure, Store, explore
from edgeward.sources import as_factory, as_splits, classified, enough_canaries
from edgeward.split_export import copy_split
from edgeward.train.part import Schedule
from edgeward.train.population import Factory, build

DEFAULT_RECIPES = ("none", "early_stop", "int8", "prune_retrain", "gecko:paper", "gecko:crossfit", "dp_sgd")


@final
@dataclass(frozen=True)
class Choice:
    """One measured candidate with the bundle that was built of it."""

    candidate: Candidate
    measurement: Measurement
    folder: Path

    def export(self, directory: str | Path, storage: DeviceStorage | None = None) -> Path:
        """Copy the verified bundle to `directory` and return it.

        A split is sealed anew for the device that owns `storage`, by default the one in `device` of the run's folder,
        with a rollback counter above what that device accepted last.
        Errors: `VerificationFailed` when the stored bundle was altered, `ConfigError` for an unusable directory.
        """
        from edgeward.deploy import copy_bundle

        source, target = self.folder / "bundle", Path(directory)
        if is_split(source):
            return copy_split(source, target, self.folder.parent.parent, storage)
        remove_split(target)
        return copy_bundle(source, target)


@final
@dataclass(frozen=True)
class Protected:
    """The result of a run: the frontier over all measured candidates, and the report written of it."""

    frontier: Frontier
    report: Mapping[str, Any]
    workdir: Path
    store: Store
    failures: tuple[Failure, ...] = ()

    @property
    def crashed(self) -> tuple[Failure, ...]:
        """The recipes that ended with an error nobody foresaw; each keeps its trace."""
        return tuple(failure for failure in self.failures if failure.internal)

    def choose(self) -> Choice:
        """Return the least leaking feasible candidate.

        Errors: `NoFeasibleCandidate`; `ConfigError` with every recipe's reason when none could be measured at all,
        `EdgewardError` where one of these reasons is an internal error.
        """
        failed = self.report["failed"]
        if failed and not self.frontier.measured:
            raise (EdgewardError if self.crashed else ConfigError)(
                "no recipe could be measured:\n"
                + indent("\n".join(f"{entry['recipe']}: {entry['reason']}" for entry in failed), "    "),
                expected="at least one recipe that trains on these records",
                came=f"{len(failed)} failed",
                fix="see the reasons above; `edgeward recipes show NAME` prints a recipe's settings",
            )
        return self._choice(self.frontier.choose())

    def candidates(self) -> tuple[Choice, ...]:
        """Return every measured candidate."""
        return tuple(self._choice(measured) for measured in self.frontier.measured)

    def _choice(self, measured: Measured) -> Choice:
        return Choice(measured.candidate, measured.measurement, self.store.folder(measured.candidate))


def protect(
    model: nn.Module | Factory,
    *,
    data: Splits | None = None,
    train: Any = None,
    holdout: Any = None,
    validation: Any = None,
    shadow: Any = None,
    classes: int | None = None,
    device: str | DeviceProfile = "cortex-m7",
    budget: Budget | None = None,
    threats: Sequence[Threat] = (MembershipInference(),),
    recipes: Sequence[str | Recipe | Mapping[str, Any]] | None = None,
    search: bool = False,
    schedule: Schedule | None = None,
    workdir: str | Path = "runs/protect",
    seed: int = 0,
    watcher: Watcher | None = None,
    description: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> Protected:
    """Train, compress, attack and cost every recipe, and put the candidates on one frontier.

    Arguments: `model` is a factory of fresh modules, or a module whose architecture is re-initialised for every model
    (the audit needs siblings). Records are `data` (a `Splits`), or torch datasets `train` and `holdout` (non-members)
    with optional `validation` and `shadow`. `recipes` are names, tables or `Recipe` objects; `search` also tries the
    variants each recipe names. `workdir` keeps what is measured: a rerun with equal arguments resumes.
    Returns: `Protected`, whose `choose().export(directory)` copies the chosen bundle; `workdir` holds `report.html`,
    `report.json`, `CARD.md` and `bundle/` of the choice when there is one.
    Guarantee: leakage is measured against the attacks named in the report; nothing is proved unless a claim says so.
    Cost: each recipe trains up to 2 threat.shadows + 1 models as one batch, half of them for the planted kinds.
    Errors: `UserError` for what cannot be used; never raises for an infeasible budget, `choose` does, nor for a recipe
    that fails, whatever its error: that is in `failures` and in the report, and the others go on.
    """
    splits = as_splits(data, train, holdout, validation, shadow, classes, seed, canaries_of(threats))
    profile = device if isinstance(device, DeviceProfile) else load_profile(device)
    limits, plans = budget or Budget(), propose(DEFAULT_RECIPES if recipes is None else recipes, search=search)
    threat, factory = the_membership_threat(threats), as_factory(model)
    network = capture(build(factory, Seed(seed)), splits.input_shape)
    splits = classified(splits, network)
    enough_canaries(splits, threat)
    job = {
        "model": str(getattr(model, "__qualname__", type(model).__name__)),
        "data": splits.name,
        "device": profile.name,
        "seed": seed,
        "budget": limits.to_json(),
        "recipes": [recipe.name for recipe in plans],
        "schedule": asdict(schedule or Schedule()),
        **(description or {}),
    }
    evidence = Evidence(job, splits, profile, threat, command or reproduce())
    folder = Path(workdir)
    store = Store(folder / "candidates")
    pipeline = Pipeline(
        factory,
        network,
        splits,
        threat,
        profile,
        schedule or Schedule(),
        Seed(seed),
        watcher or Silent(),
        store,
        evidence,
    )
    proposals = pipeline.proposals(plans)
    evidence.write(folder, Frontier((), limits), finished=False)
    frontier, failures = explore(
        proposals, limits, pipeline.watcher, lambda so_far: evidence.write(folder, so_far, finished=False)
    )
    report = evidence.write(folder, frontier, failures, finished=True)
    result = Protected(frontier, report, folder, store, failures)
    if report["chosen"]:
        result.choose().export(folder / "bundle")
    else:
        # What an earlier budget chose must not lie beside a report that chooses nothing.
        remove_split(folder / "bundle")
        remove_bundle(folder / "bundle")
    pipeline.watcher.event("finished", {"measured": len(frontier.measured), "failed": len(failures)})
    return result


def propose(recipes: Sequence[str | Recipe | Mapping[str, Any]], *, search: bool) -> tuple[Recipe, ...]:
    """Resolve recipe names and, when searching, add the variants each recipe names; no candidate twice."""
    if not recipes:
        raise ConfigError("no recipe to try", expected=f"at least one of {', '.join(RECIPES)}", came="an empty list")
    asked = [resolve(spec) for spec in recipes]
    variants = [variant for recipe in asked for variant in (recipe.space() if search else ())]
    unique = {Candidate(r.name, r.settings()).digest: r for r in [*asked, *variants]}
    return tuple(unique.values())


def the_membership_threat(threats: Sequence[Threat]) -> MembershipInference:
    """Return the one membership threat that can be audited today."""
    found = [threat for threat in threats if isinstance(threat, MembershipInference)]
    if len(found) != 1 or len(found) != len(threats):
        raise ConfigError(
            "the threats cannot be audited together",
            expected="exactly one MembershipInference(...)",
            came=f"{len(threats)} threats, {len(found)} of them membership inference",
            fix="give threats=[MembershipInference(...)]; run other protocols in runs of their own",
        )
    return found[0]


def canaries_of(threats: Sequence[Threat]) -> int:
    """Return how many canaries the threats ask for."""
    return max((t.canaries for t in threats if isinstance(t, MembershipInference)), default=200)


def reproduce() -> str:
    """Return the command line of this process without paths of this machine."""
    program = Path(sys.argv[0]).name or "python"
    return shlex.join([program, *(Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:])])
