"""From a TOML document to a `Job`: every unknown key and wrong type in one error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from edgeward.core.budget import Budget
from edgeward.core.errors import ConfigError
from edgeward.core.threat import MembershipInference, Threat
from edgeward.job.job import SCHEMA, DataSection, Job, ModelSection, RecipeChoice
from edgeward.job.tables import Checker, parse_toml
from edgeward.train.part import Schedule

_LARGEST = 1 << 20
_TOP = ("schema", "seed", "search", "workdir", "model", "data", "device", "budget", "threats", "train", "recipes")


def load_job(path: Path) -> Job:
    """Read a job file; relative paths in it start at its folder, and its run goes to `runs/<file name>` there."""
    if not path.is_file() or path.stat().st_size > _LARGEST:
        raise ConfigError(
            f"there is no job file '{path}'",
            expected="a TOML file of at most 1 MiB",
            came="a folder" if path.is_dir() else "nothing readable",
            fix="write one with `edgeward protect --demo --dump-config > job.toml`",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"'{path.name}' cannot be read", expected="UTF-8 text", came=type(error).__name__, fix="save it as UTF-8"
        ) from error
    return parse_job(text, root=path.parent, name=path.name)


def parse_job(text: str, *, root: Path | None = None, name: str = "job.toml") -> Job:
    """Read a job from TOML text.

    Raises `ConfigError`, which lists all unknown keys (with the nearest known name) and all wrong types together.

    >>> job = parse_job('schema = 1\\n[model]\\nnet = "mlp"\\n[data]\\nsource = "digits"')
    >>> job.model.spec, job.device
    ('net:mlp', 'cortex-m7')
    """
    document, check = parse_toml(text, name=name), Checker()
    check.keys("", document, _TOP)
    schema = check.take("", document, "schema", (int,), SCHEMA)
    if schema != SCHEMA:
        check.wrong.append(f"schema: expected {SCHEMA}, came {schema} (another version of edgeward wrote it)")
    model = _model(check, check.table(document, "model"))
    data = _data(check, check.table(document, "data"))
    budget = _fields(check, "budget", check.table(document, "budget"), Budget)
    schedule = _schedule(check, check.table(document, "train"))
    threats = _threats(check, document)
    recipes = _recipes(check, document)
    seed = check.take("", document, "seed", (int,), 0)
    if not -(2**63) <= seed < 2**63:
        check.wrong.append("seed: expected a 64-bit whole number")
    search = check.take("", document, "search", (bool,), False)
    workdir = check.take("", document, "workdir", (str,), f"runs/{Path(name).stem}")
    device = _device(check, document)
    check.finish(name)
    return Job(
        model=model,
        data=data,
        device=device,
        budget=Budget(**budget),
        threats=threats(),
        schedule=Schedule(**schedule),
        recipes=recipes,
        search=search,
        seed=seed,
        workdir=workdir,
        root=root or Path(),
    )


def _model(check: Checker, table: Mapping[str, Any]) -> ModelSection:
    net = check.take("model", table, "net", (str,), None)
    source = check.take("model", table, "source", (str,), None)
    weights = check.take("model", table, "weights", (str,), None)
    independent = check.take("model", table, "weights_are_independent", (bool,), False)
    if ("net" in table) == ("source" in table):
        check.wrong.append('[model]: expected exactly one of net = "mlp" and source = "path.py:function"')
    if weights is not None and not independent:
        check.wrong.append(
            "[model] weights: shadow models start from them too, so an audit is blind to what they have memorised; "
            "say weights_are_independent = true if they never saw these records"
        )
    own = ("net", "source", "weights", "weights_are_independent")
    arguments = {key: value for key, value in table.items() if key not in own}
    if net is not None:
        _net_arguments(check, net, arguments)
    return ModelSection(net, source, weights, independent, arguments)


def _net_arguments(check: Checker, net: str, arguments: Mapping[str, Any]) -> None:
    """Note arguments the net does not take (an unknown net is reported when it is built)."""
    import inspect

    from edgeward.nets import NETS

    if net in NETS:
        known = inspect.signature(NETS[net]).parameters
        check.keys("model", arguments, [*known, "net", "source", "weights", "weights_are_independent"])


def _data(check: Checker, table: Mapping[str, Any]) -> DataSection:
    source = check.take("data", table, "source", (str,), "")
    if "source" not in table:
        check.wrong.append('[data] source: missing; expected for instance source = "digits" or "records.npz"')
    canaries = check.take("data", table, "canaries", (int,), None)
    check.keys("data", table, ["source", "canaries", *DATA_OPTIONS])
    options = {key: check.take("data", table, key, kinds, None) for key, kinds in DATA_OPTIONS.items()}
    size = options["size"]
    if size is not None and not (len(size) == 2 and all(type(extent) is int for extent in size)):
        check.wrong.append("[data] size: expected two whole numbers [height, width]")
    return DataSection(source, canaries, {key: value for key, value in options.items() if value is not None})


DATA_OPTIONS: Mapping[str, tuple[type, ...]] = {
    "train": (int,),
    "holdout": (int,),
    "label": (str,),
    "ignore": (list,),
    "size": (list,),
    "grey": (bool,),
    "root": (str,),
}
"""The options of `data.load_source` that a job file may give."""


def _device(check: Checker, document: Mapping[str, Any]) -> str:
    table = check.table(document, "device")
    check.keys("device", table, ("name",))
    name: str = check.take("device", table, "name", (str,), "cortex-m7")
    return name


_KINDS: Mapping[Any, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}
_NUMBER_OR_TEXT = (int, float, str)


def _fields(check: Checker, section: str, table: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Return the entries of `table` that fit the fields of the dataclass `kind`, noting all others."""
    hints = get_type_hints(kind)
    declared = {f.name: hints[f.name] for f in fields(kind)}
    check.keys(section, table, declared)
    found = {}
    for key in [key for key in table if key in declared]:
        if declared[key] == tuple[str, ...]:
            texts = check.take(section, table, key, (list,), None)
            if texts is not None and not all(isinstance(text, str) for text in texts):
                check.wrong.append(f"[{section}] {key}: expected a list of texts")
            elif texts is not None:
                found[key] = tuple(texts)
            continue
        choices = get_args(declared[key]) if get_origin(declared[key]) is Literal else CHOICES.get((section, key), ())
        value = check.take(section, table, key, (str,) if choices else _KINDS.get(declared[key], _NUMBER_OR_TEXT), None)
        if choices and value is not None and value not in choices:
            check.wrong.append(f"[{section}] {key}: expected one of {', '.join(choices)}, came '{value}'")
        elif value is not None:
            found[key] = value
    return found


CHOICES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("train", "optimizer"): ("adam", "sgd"),
    ("train", "decay"): ("constant", "cosine"),
}
"""The words a key may hold where its type alone does not say."""


def _schedule(check: Checker, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of [train], noting those no training could run with."""
    found = _fields(check, "train", table, Schedule)
    least = {"epochs": 1, "batch": 1, "momentum": 0, "weight_decay": 0}
    check.wrong += [
        f"[train] {key}: expected at least {low}, came {found[key]}"
        for key, low in least.items()
        if key in found and not found[key] >= low
    ]
    if "rate" in found and not 0 < found["rate"] < math.inf:
        check.wrong.append(f"[train] rate: expected a positive number, came {found['rate']}")
    return found


def _threats(check: Checker, document: Mapping[str, Any]) -> Any:
    """Return a function that builds the threats, to be called once the types are known to be right."""
    known = {MembershipInference.slug: MembershipInference}
    listed = check.take("", document, "threats", (list,), [{"threat": MembershipInference.slug}])
    chosen: list[tuple[type, dict[str, Any]]] = []
    for number, entry in enumerate(listed, 1):
        place = f"threats {number}"
        if not isinstance(entry, dict):
            check.wrong.append(f"[{place}]: expected a table [[threats]]")
            continue
        slug = check.take(place, entry, "threat", (str,), MembershipInference.slug)
        if slug not in known:
            check.wrong.append(f"[{place}] threat: expected one of {', '.join(known)}, came '{slug}'")
            continue
        settings = {key: value for key, value in entry.items() if key != "threat"}
        chosen.append((known[slug], _fields(check, place, settings, known[slug])))
    if not listed:
        check.wrong.append("threats: expected at least one; nothing is claimed that was not attacked")

    def built() -> tuple[Threat, ...]:
        return tuple(kind(**settings) for kind, settings in chosen)

    return built


def _recipes(check: Checker, document: Mapping[str, Any]) -> tuple[RecipeChoice, ...] | None:
    if "recipes" not in document:
        return None
    found: list[RecipeChoice] = []
    for number, entry in enumerate(check.take("", document, "recipes", (list,), []), 1):
        if isinstance(entry, str):
            found.append(RecipeChoice(entry))
        elif isinstance(entry, dict) and isinstance(entry.get("name"), str):
            found.append(RecipeChoice(entry["name"], {k: v for k, v in entry.items() if k != "name"}))
        else:
            check.wrong.append(f'recipes, entry {number}: expected "slug" or {{name = "slug", setting = value}}')
    if not found:
        check.wrong.append('recipes: expected at least one, for instance ["none", "gecko:crossfit"]')
    return tuple(found)
