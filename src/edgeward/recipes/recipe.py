"""`Recipe`: a published system as a named composition of transforms and defences, with its source and settings."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from edgeward.core.errors import ConfigError, unknown_name
from edgeward.core.registry import Registry
from edgeward.train.part import Schedule
from edgeward.train.population import Factory
from edgeward.train.task import Task, Trained


class Recipe(ABC):
    """A way to make a protected network; subclasses are final frozen dataclasses registered in `RECIPES`.

    The fields of the dataclass are the settings: they enter the candidate's hash and the report.
    """

    slug: ClassVar[str]
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
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if preset:
        if preset not in kind.presets:
            raise unknown_name(f"preset of {slug}", preset, kind.presets)
        table = {**kind.presets[preset], "preset": preset, **table}
    unknown = sorted(set(table) - names)
    if unknown:
        raise unknown_name(f"setting of {slug}", unknown[0], names)
    if isinstance(table.get("schedule"), Mapping):
        table["schedule"] = Schedule(**table["schedule"])
    try:
        return kind(**table)
    except TypeError as error:
        raise ConfigError(
            f"recipe {slug} cannot be built", came=str(error), fix=f"see `edgeward recipes show {slug}`"
        ) from error
