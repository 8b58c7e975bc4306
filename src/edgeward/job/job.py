"""`Job`: everything one run depends on, as a value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from edgeward.core.budget import Budget
from edgeward.core.errors import ConfigError
from edgeward.core.progress import Silent, Watcher
from edgeward.core.randomness import Seed
from edgeward.core.threat import MembershipInference, Threat
from edgeward.job.tables import toml_table, toml_value
from edgeward.train.part import Schedule

if TYPE_CHECKING:
    from edgeward.data import Splits
    from edgeward.protect import Protected
    from edgeward.recipes import Recipe
    from edgeward.train.population import Factory

SCHEMA = 1


@final
@dataclass(frozen=True)
class ModelSection:
    """[model]: exactly one of `net` (a name of `edgeward.nets`) and `source` (see `load.load_model`).

    Every other key of the section is an argument of the net or function. `weights` makes every model, the attacker's
    shadow models too, start from a file; this hides leaks when those weights have seen the records, so
    `weights_are_independent = true` must say that they have not.
    """

    net: str | None = None
    source: str | None = None
    weights: str | None = None
    weights_are_independent: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        """The text `load_model` takes."""
        return f"net:{self.net}" if self.net else str(self.source)


@final
@dataclass(frozen=True)
class DataSection:
    """[data]: where the records come from; other keys are options of that kind of source."""

    source: str
    canaries: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class RecipeChoice:
    """One entry of `recipes`: a name ("gecko:crossfit"), with settings that differ from the recipe's own."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Job:
    """What to protect (`model`, `data`), for what (`device`, `budget`), from whom (`threats`), and how (`recipes`).

    Relative paths start at `root`, the folder of the job file. `recipes` None means the
    default ones of `protect`; `search` also tries the variants each recipe names.
    """

    model: ModelSection
    data: DataSection
    device: str = "cortex-m7"
    budget: Budget = field(default_factory=Budget)
    threats: tuple[Threat, ...] = (MembershipInference(),)
    schedule: Schedule = field(default_factory=Schedule)
    recipes: tuple[RecipeChoice, ...] | None = None
    search: bool = False
    seed: int = 0
    workdir: str = "runs/protect"
    root: Path = field(default_factory=Path)

    def overriding(
        self, *, workdir: str | Path | None = None, device: str | None = None, seed: int | None = None
    ) -> Job:
        """Return a copy with what the command line asks for instead; a given `workdir` starts at the current folder."""
        return replace(
            self,
            workdir=self.workdir if workdir is None else str(Path(workdir).absolute()),
            device=self.device if device is None else device,
            seed=self.seed if seed is None else seed,
        )

    def auditing(self, recipes: tuple[RecipeChoice, ...]) -> Job:
        """Return a copy with other recipes and no budget, for an audit."""
        return replace(self, recipes=recipes, budget=Budget(), workdir="runs/audit")

    @property
    def output(self) -> Path:
        """The folder the run writes to."""
        return self.root / self.workdir

    def factory(self) -> Factory:
        """Return the model's factory."""
        from edgeward.load import load_model

        weights = None if self.model.weights is None else Path(self.model.weights)
        return load_model(self.model.spec, arguments=self.model.arguments, weights=weights, root=self.root)

    def splits(self) -> Splits:
        """Load the records and their roles."""
        from edgeward.data import load_source

        options = dict(self.data.options)
        if "root" in options:
            options["root"] = self.root / str(options["root"])
        if "size" in options:
            options["size"] = tuple(options["size"])
        if self.data.canaries is not None:
            options["canaries"] = self.data.canaries
        elif canaries := [t.canaries for t in self.threats if isinstance(t, MembershipInference)]:
            options["canaries"] = max(canaries)
        return load_source(located(self.data.source, self.root), seed=Seed(self.seed).child("data"), **options)

    def recipe_objects(self) -> list[Recipe] | None:
        """Return the recipes with their settings applied, or None for the default ones.

        Raises one `ConfigError` for all unknown names and settings.
        """
        from edgeward.recipes import resolve

        if self.recipes is None:
            return None

        def tried(choice: RecipeChoice) -> Recipe | ConfigError:
            try:
                return resolve({"name": choice.name, **choice.settings})
            except ConfigError as error:
                return error

        found = [tried(choice) for choice in self.recipes]
        problems = [error for error in found if isinstance(error, ConfigError)]
        if len(problems) == 1:
            raise problems[0]
        if problems:
            raise ConfigError(
                f"{len(problems)} recipes cannot be used:\n    " + "\n    ".join(error.what for error in problems),
                expected="names and settings that `edgeward recipes list` and `recipes show` print",
                came=", ".join(choice.name for choice in self.recipes),
                fix="; ".join(error.fix for error in problems),
            )
        return [recipe for recipe in found if not isinstance(recipe, ConfigError)]

    def run(self, watcher: Watcher | None = None, *, audit_only: bool = False) -> Protected:
        """Run the job: `protect`, or `audit` when only the leakage is asked for, which no budget may cut short.

        The resolved job is written to `job.toml` in the output folder before the first step.
        Raises what `protect` raises.
        """
        from edgeward.audit import audit
        from edgeward.protect import protect

        recipes, factory, splits = self.recipe_objects(), self.factory(), self.splits()
        plain = self.to_json()
        arguments: dict[str, Any] = {
            "data": splits,
            "device": located(self.device, self.root),
            "budget": Budget() if audit_only else self.budget,
            "threats": self.threats,
            "workdir": self.output,
            "seed": self.seed,
            "schedule": self.schedule,
            "watcher": watcher or Silent(),
            "description": {"model": plain["model"], "data": plain["data"]},
        }
        self.write(self.output / "job.toml")
        if audit_only:
            return audit(factory, recipes=("none",) if recipes is None else recipes, **arguments)
        return protect(factory, recipes=recipes, search=self.search, **arguments)

    def to_json(self) -> dict[str, Any]:
        """Return the plain form, with the keys of the job file."""
        model: dict[str, Any] = {"net": self.model.net, "source": self.model.source, "weights": self.model.weights}
        if self.model.weights:
            model = {**model, "weights_are_independent": self.model.weights_are_independent}
        data = {"source": self.data.source, "canaries": self.data.canaries, **self.data.options}
        plain: dict[str, Any] = {
            "schema": SCHEMA,
            "seed": self.seed,
            "search": self.search,
            "workdir": self.workdir,
            "model": _given({**model, **self.model.arguments}),
            "data": _given(data),
            "device": {"name": self.device},
            "budget": self.budget.to_json(),
            "train": asdict(self.schedule),
            "threats": [{"threat": t.slug, **vars(t)} for t in self.threats],
        }
        if self.recipes is not None:
            plain["recipes"] = [_recipe(choice) for choice in self.recipes]
        return plain

    def to_toml(self) -> str:
        """Return the job file that gives this job again."""
        plain = self.to_json()
        lines = [f"{key} = {toml_value(plain[key])}" for key in ("schema", "seed", "search", "workdir")]
        if "recipes" in plain:
            lines.append("recipes = [\n" + "".join(f"  {toml_value(r)},\n" for r in plain["recipes"]) + "]")
        blocks = ["\n".join(lines) + "\n"]
        blocks += [toml_table(f"[{name}]", plain[name]) for name in ("model", "data", "device", "budget", "train")]
        blocks += [toml_table("[[threats]]", threat) for threat in plain["threats"]]
        return "\n".join(block for block in blocks if block)

    def write(self, path: Path) -> None:
        """Write the job file atomically; its relative paths then still start at `root`, so they are made absolute."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(self.resolved().to_toml(), encoding="utf-8")
        os.replace(partial, path)

    def resolved(self) -> Job:
        """Return the job with absolute paths, good from any folder."""
        model = replace(
            self.model,
            source=None if self.model.source is None else located(self.model.source, self.root),
            weights=None if self.model.weights is None else str((self.root / self.model.weights).absolute()),
        )
        options = dict(self.data.options)
        if "root" in options:
            options["root"] = str((self.root / str(options["root"])).absolute())
        data = replace(self.data, source=located(self.data.source, self.root), options=options)
        output, device = str(self.output.absolute()), located(self.device, self.root)
        return replace(self, model=model, data=data, device=device, workdir=output, root=Path())


def located(text: str, root: Path) -> str:
    """Return `text` with its path made absolute from `root`, when it looks like a path or names an existing file.

    >>> located("digits", Path("/jobs")), located("net.py:build", Path("/jobs")), located("mine.csv", Path("/jobs"))
    ('digits', '/jobs/net.py:build', '/jobs/mine.csv')
    """
    place, colon, function = text.rpartition(":")
    if colon and place.endswith(".py"):
        return f"{(root / place).absolute()}:{function}"
    path = root / text
    looks = "/" in text or Path(text).suffix in (".npz", ".csv", ".toml", ".pt2", ".safetensors")
    return str(path.absolute()) if looks or path.is_dir() else text


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _recipe(choice: RecipeChoice) -> Any:
    return {"name": choice.name, **choice.settings} if choice.settings else choice.name


def demo_job() -> Job:
    """Return the built-in job: handwritten digits, a small MLP, seven recipes, a Cortex-M7."""
    slugs = ("none", "early_stop", "prune_retrain", "int8", "gecko:paper", "gecko:crossfit", "dp_sgd")
    return Job(
        model=ModelSection(net="mlp", arguments={"features": 64, "hidden": [192, 192, 96], "classes": 10}),
        data=DataSection("digits"),
        budget=Budget(file_bytes="512KiB", tpr_at_1pct="10%", accuracy="90%"),
        recipes=tuple(RecipeChoice(slug) for slug in slugs),
        workdir="runs/demo",
    )
