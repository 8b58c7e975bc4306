"""`Strategy`: one way to mirror a network, as a JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

from edgeward.core.errors import ConfigError
from edgeward.graph.network import Network
from edgeward.graph.partition import Cut, blocks, stages
from edgeward.transforms.mirror.objective import PRESETS
from edgeward.transforms.mirror.plan import Block, MonitorPlan

TRANSFERS = ("batch", "stream")
DIVISIONS: Mapping[str, Callable[[Network], tuple[Cut, ...]]] = {"stages": stages, "blocks": blocks}
SKIP = "skip"
"""The kind of a stage that is not watched: allowed in files, left out here."""


@final
@dataclass(frozen=True)
class Strategy:
    """What is watched, how the monitor is built, how taps cross, and how both halves are trained.

    `preset`: "public" (frozen public backbone, only the monitor meets private records), "faithful" (the backbone is
    trained to be `gap` less accurate than the authorised answer) or "anti" (the backbone is trained to fail). `weight`
    scales the preset's term, `temperature` the distillation; `flips`: mirror images of the records are records too;
    `tuning` is the share of the learning rate for weights that are trained already (backbone and copies). `spoils`
    says what "faithful" degrades: "all" trains backbone and monitor jointly, "head" leaves the victim's features alone.
    `division`: what the numbers of the blocks count, "stages" of the network or its "blocks" (a finer grain). `shift`:
    the public backbone sees each record moved by up to so many pixels, anew in every epoch (0: its features are made
    once), and `follow` weighs how far copies are from the victim's own values meanwhile.

    >>> Strategy("small", (Block(1, "pw", 8), Block(3, "dwsep", 16))).describe()
    'public batch replace: 1 pw 8, 3 dwsep 16'
    """

    name: str
    blocks: tuple[Block, ...]
    preset: str = "public"
    head: str = "replace"
    transfer: str = "batch"
    gap: float = 0.2
    weight: float = 1.0
    temperature: float = 2.0
    flips: bool = True
    tuning: float = 0.1
    spoils: str = "all"
    division: str = "stages"
    shift: int = 0
    follow: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be built or trained; all problems in one error."""
        rules = {
            "a name": bool(self.name) and "/" not in self.name and self.name.isprintable(),
            f"preset one of {', '.join(PRESETS)}": self.preset in PRESETS,
            f"transfer one of {', '.join(TRANSFERS)}": self.transfer in TRANSFERS,
            "gap above 0 and below 1": 0 < self.gap < 1,
            "weight at least 0 and temperature above 0": self.weight >= 0 and self.temperature > 0,
            "tuning above 0, at most 1": 0 < self.tuning <= 1,
            "spoils 'all', or 'head' with preset faithful": self.spoils == "all"
            or (self.spoils == "head" and self.preset == "faithful"),
            f"division one of {', '.join(DIVISIONS)}": self.division in DIVISIONS,
            "shift and follow at least 0, both 0 unless the preset is public": (self.shift, self.follow) == (0, 0)
            or (self.preset == "public" and self.shift >= 0 and self.follow >= 0),
            "follow 0 where shift is 0": self.shift > 0 or self.follow == 0,
        }
        problems = [f"expected {rule}" for rule, holds in rules.items() if not holds]
        try:
            _ = self.plan
        except ConfigError as error:
            problems.append(str(error))
        if problems:
            raise ConfigError(f"the strategy '{self.name}' cannot be used:\n    " + "\n    ".join(problems))

    @cached_property
    def plan(self) -> MonitorPlan:
        """The monitor's plan."""
        return MonitorPlan(self.blocks, self.head)

    def divided(self, network: Network) -> tuple[Cut, ...]:
        """Return the cuts that the numbers of the blocks mean."""
        return DIVISIONS[self.division](network)

    def describe(self) -> str:
        """Return one line for people."""
        blocks = [
            f"{b.stage} {b.kind}{f' {b.width}' if b.width else ''}{f' /{b.pool}' if b.pool > 1 else ''}"
            for b in self.blocks
        ]
        grain = "" if self.division == "stages" else f" of {self.division}"
        return f"{self.preset} {self.transfer} {self.head}{grain}: {', '.join(blocks)}"

    def renamed(self, name: str) -> Strategy:
        """Return the same strategy under another name."""
        return replace(self, name=name)

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**plain, "blocks": [asdict(block) for block in self.blocks]}

    @classmethod
    def from_json(cls, plain: Any) -> Strategy:
        """Read back what `to_json` wrote, or a person; raises one `ConfigError` with every problem."""
        if not isinstance(plain, Mapping):
            raise ConfigError("this is not a strategy", expected="a JSON object", came=type(plain).__name__)
        problems, blocks = [], []
        known = {field.name: field.type for field in fields(cls)}
        problems += [f"unknown field '{name}'" for name in sorted(set(plain) - set(known))]
        problems += [f"'{name}' is missing" for name in ("name", "blocks") if name not in plain]
        kinds: dict[str, tuple[type, ...]] = {
            "str": (str,),
            "float": (int, float),
            "int": (int,),
            "bool": (bool,),
        }
        for name, value in plain.items():
            wanted = kinds.get(str(known.get(name)))
            if wanted and (not isinstance(value, wanted) or (bool not in wanted and isinstance(value, bool))):
                problems.append(f"{name} = {value!r}: expected {known[name]}")
        entries = plain.get("blocks", [])
        for number, entry in enumerate(entries if isinstance(entries, list) else [None], 1):
            problems += _entry_problems(number, entry)
            if not problems and entry["kind"] != SKIP:
                blocks.append(Block(entry["stage"], entry["kind"], entry.get("width", 0), entry.get("pool", 1)))
        if problems:
            raise ConfigError(
                "the strategy cannot be read:\n    " + "\n    ".join(problems),
                fix="see `Strategy.to_json` for the form",
            )
        return cls(**{**plain, "blocks": tuple(blocks)})

    def write(self, path: Path) -> None:
        """Write a JSON file, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)

    @classmethod
    def read(cls, path: Path) -> Strategy:
        """Read a strategy file; raises `ConfigError`."""
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ConfigError(
                f"the strategy file {path.name} cannot be read",
                expected="a JSON object as `Strategy.write` writes it",
                came=str(error)[:200],
            ) from None
        return cls.from_json(plain)


def _entry_problems(number: int, entry: Any) -> list[str]:
    if not isinstance(entry, Mapping):
        return [f"block {number}: expected an object with stage, kind, width and pool"]
    found = [f"block {number}: unknown field '{n}'" for n in sorted(set(entry) - {"stage", "kind", "width", "pool"})]
    for name in ("stage", "width", "pool"):
        value = entry.get(name, 0 if name != "stage" else None)
        if not isinstance(value, int) or isinstance(value, bool):
            found.append(f"block {number}: {name} = {value!r}, expected a whole number")
    if not isinstance(entry.get("kind"), str):
        found.append(f"block {number}: kind = {entry.get('kind')!r}, expected a text")
    return found
