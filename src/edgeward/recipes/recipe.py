"""`Recipe`: a published system as a named composition of transforms and defences, with its source and settings."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from edgeward.backends.backend import choose_backend
from edgeward.core.cost import Cost
from edgeward.core.errors import ConfigError, unknown_name
from edgeward.core.randomness import Seed
from edgeward.core.registry import Registry
from edgeward.data.splits import Splits
from edgeward.devices import DeviceProfile
from edgeward.graph import capture
from edgeward.measure.cost import network_cost
from edgeward.measure.siblings import Siblings, lower
from edgeward.train.part import Schedule
from edgeward.train.population import Factory, build
from edgeward.train.task import Task, Trained


def require(slug: str, **rules: bool) -> None:
    """Raise one `ConfigError` naming every rule of a recipe's settings that does not hold."""
    broken = [rule.replace("_", " ") for rule, holds in rules.items() if not holds]
    if broken:
        raise ConfigError(
            f"recipe {slug} cannot run with these settings",
            expected="; ".join(broken),
            fix=f"see `edgeward recipes show {slug}`",
        )


class Recipe(ABC):
    """A way to make a protected network; subclasses are final frozen dataclasses registered in `RECIPES`.

    The fields of the dataclass are the settings: they enter the candidate's hash and the report. `aimed_at` names the
    kind of audited records (`edgeward.core.record_kind`) that is aimed at the recipe's mechanism: the one on which a
    defence of this sort is weakest by construction. An audit that leaves it out says so.
    """

    slug: ClassVar[str]
    aimed_at: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    expected: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """The string that names the recipe in reports: slug, and preset if it has one ("gecko:crossfit")."""
        preset = getattr(self, "preset", "")
        return f"{self.slug}:{preset}" if preset else self.slug

    @abstractmethod
    def run(self, task: Task) -> Trained:
        """Train the task's models through the whole recipe."""

    def structure(self, factory: Factory) -> Factory:
        """Return the factory of the final structure, so that cost is known before training."""
        return factory

    def foresee(self, factory: Factory, input_shape: tuple[int, ...], device: DeviceProfile, seed: Seed) -> Cost:
        """Return the cost of the untrained final structure, known before the first expensive step.

        Counts are exact for the form that ships for `device`; file bytes are a lower bound, since equal tensors of an
        untrained network are stored once.
        Errors: those of what can be told now to be impossible on `device`.
        """
        network = capture(build(self.structure(factory), seed).eval(), input_shape)
        backend = choose_backend(network, device.kind)
        drawn = seed.child("foreseen").numpy().standard_normal((16, *input_shape)).astype(np.float32)
        known = backend.ready(network, drawn)
        return network_cost(known, device, file_bytes=len(backend.write(known)))[0]

    def passes(self, schedule: Schedule) -> float:
        """Return about how often this recipe's trainings pass over the records, teachers included, told in advance.

        It serves the estimate of how long a run takes; by default one training on the recipe's own schedule, or on the
        task's where it has none.
        """
        own = getattr(self, "schedule", None) or schedule
        return float(own.epochs)

    def lower(self, trained: Trained, task: Task, splits: Splits, device: DeviceProfile) -> Siblings:
        """Lower every model of what `run` trained to the form it ships in; by default each is one network."""
        return lower(trained, task, device.kind, self.name)

    def context(self) -> dict[str, str]:
        """Return the digests of files that the settings name: what a candidate depends on besides the settings."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    def space(self) -> tuple[Recipe, ...]:
        """Return the variants a search may try around these settings; by default only these."""
        return (self,)


RECIPES: Registry[type[Recipe]] = Registry("recipe")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def resolve(spec: str | Recipe | Mapping[str, Any]) -> Recipe:
    """Turn "gecko:crossfit", {"name": "prune_retrain", "sparsity": 0.9} or a Recipe into a Recipe.

    Errors: `ConfigError` for an unknown slug, preset or setting, naming the nearest known one.
    """
    if isinstance(spec, Recipe):
        return spec
    table: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    if "name" not in table:
        raise ConfigError("a recipe table needs a name", expected='name = "gecko:crossfit"', came=str(sorted(table)))
    slug, _, preset = str(table.pop("name")).partition(":")
    kind = RECIPES[slug]
    preset = str(table.pop("preset", preset)) if kind.presets else preset
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if preset:
        if not kind.presets:
            raise ConfigError(f"recipe {slug} has no presets", expected=f"'{slug}'", came=f"'{slug}:{preset}'")
        if preset not in kind.presets:
            raise unknown_name(f"preset of {slug}", preset, kind.presets)
        table = {**kind.presets[preset], "preset": preset, **table}
    unknown = sorted(set(table) - names)
    if unknown:
        raise unknown_name(f"setting of {slug}", unknown[0], names)
    _check_kinds(slug, kind, table)
    try:
        schedules = {name: Schedule(**value) for name, value in table.items() if isinstance(value, Mapping)}
        return kind(**{**table, **schedules})
    except TypeError as error:
        raise ConfigError(
            f"recipe {slug} cannot be built", came=str(error), fix=f"see `edgeward recipes show {slug}`"
        ) from error


def _check_kinds(slug: str, kind: type[Recipe], table: Mapping[str, Any]) -> None:
    """Refuse settings of another kind than the defaults: all at once, before anything is trained."""
    wrong = []
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name not in table:
            continue
        value, default = table[field.name], field.default
        if "schedule" in field.name:
            fits, expected = value is None or isinstance(value, (Schedule, Mapping)), "a table of a schedule"
        elif isinstance(default, bool):
            fits, expected = isinstance(value, bool), "true or false"
        elif isinstance(default, str):
            fits, expected = isinstance(value, str), "a text"
        elif isinstance(default, int):
            fits, expected = isinstance(value, int) and not isinstance(value, bool), "a whole number"
        else:
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            fits, expected = number or (value is None and default is None), "a finite number"
        wrong += [] if fits else [f"{field.name} = {value!r}: expected {expected}"]
    if wrong:
        raise ConfigError(
            f"recipe {slug} cannot be built:\n  " + "\n  ".join(wrong), fix=f"see `edgeward recipes show {slug}`"
        )
