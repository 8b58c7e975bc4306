"""Two reports side by side: which candidates changed, and whether their intervals still overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

from edgeward.core.candidate import canonical_json
from edgeward.report.plain import plain
from edgeward.report.schema import validate_report
from edgeward.report.wording import amount, clean, finite, flat, interval


@final
@dataclass(frozen=True)
class Change:
    """One number in both reports, `unit` fraction or B; `overlap`: do the 95 % intervals meet (None without them)."""

    a: float | None
    b: float | None
    unit: str
    overlap: bool | None = None

    @property
    def delta(self) -> float | None:
        """The second number minus the first."""
        return None if self.a is None or self.b is None else self.b - self.a

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return {**asdict(self), "delta": self.delta}

    def __str__(self) -> str:
        """Format as `a -> b (delta, intervals)`."""
        if self.delta is None:
            return f"{amount(self.a, self.unit)} -> {amount(self.b, self.unit)}"
        if self.unit == "fraction":
            moved = f"{100 * self.delta:+.1f} points"
        else:
            moved = "same" if self.delta == 0 else f"{'+' if self.delta > 0 else ''}{amount(self.delta, self.unit)}"
        words = {None: "", True: ", intervals overlap", False: ", intervals apart"}[self.overlap]
        return f"{amount(self.a, self.unit)} -> {amount(self.b, self.unit)} ({moved}{words})"


@final
@dataclass(frozen=True)
class Row:
    """One candidate, matched by recipe and settings: in both reports, or in one only."""

    recipe: str
    config: Mapping[str, Any]
    where: Literal["both", "only a", "only b"]
    accuracy: Change
    leakage: Change
    file_bytes: Change
    chosen: tuple[bool, bool]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        changes = {name: getattr(self, name).to_json() for name in ("accuracy", "leakage", "file_bytes")}
        return {
            "recipe": self.recipe,
            "config": dict(self.config),
            "where": self.where,
            **changes,
            "chosen": {"a": self.chosen[0], "b": self.chosen[1]},
        }


@final
@dataclass(frozen=True)
class Comparison:
    """Rows per candidate, and the differences between the runs that make a comparison questionable."""

    rows: tuple[Row, ...]
    differences: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"rows": [row.to_json() for row in self.rows], "differences": list(self.differences)}

    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Return column titles and rows of text for a terminal."""
        titles = ("recipe", "in", "test accuracy", "TPR at 1 % FPR", "file size", "chosen")
        rows = tuple(
            (_name(row), row.where, str(row.accuracy), str(row.leakage), str(row.file_bytes), _chosen(row.chosen))
            for row in self.rows
        )
        return titles, rows

    def to_text(self) -> str:
        """Return the comparison as plain lines."""
        lines = [f"differs: {text}" for text in self.differences]
        titles, rows = self.table()
        for row in rows:
            lines.append(f"{row[0]} [{row[1]}]")
            lines += [f"  {title}: {text}" for title, text in zip(titles[2:], row[2:], strict=True) if text]
        return "\n".join(lines or ["nothing was measured in either report"])


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    """Compare two reports, candidates matched by recipe and settings.

    Overlapping 95 % intervals do not show that two numbers are equal, and intervals that are apart are evidence of a
    difference at a level stricter than 5 %. Errors: `DataError` where one of them departs from the schema.
    """
    validate_report(a)
    validate_report(b)
    left, right = _keyed(a), _keyed(b)
    order = list(left) + [key for key in right if key not in left]
    return Comparison(tuple(_row(left.get(key), right.get(key)) for key in order), _differences(a, b))


def _keyed(report: Mapping[str, Any]) -> dict[tuple[str, int], Mapping[str, Any]]:
    keyed: dict[tuple[str, int], Mapping[str, Any]] = {}
    for candidate in report["candidates"]:
        name = canonical_json(plain({"recipe": candidate["recipe"], "config": candidate["config"]}))
        repeat = sum(known == name for known, _ in keyed)
        keyed[(name, repeat)] = candidate
    return keyed


def _row(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> Row:
    present = a if a is not None else b
    if present is None:
        raise ValueError("a row needs a candidate in at least one report")
    return Row(
        recipe=present["recipe"],
        config=present["config"],
        where="both" if a is not None and b is not None else "only a" if a is not None else "only b",
        accuracy=_estimated(_accuracy(a), _accuracy(b)),
        leakage=_estimated(_leakage(a), _leakage(b)),
        file_bytes=Change(_bytes(a), _bytes(b), "B"),
        chosen=(bool(a and a["chosen"]), bool(b and b["chosen"])),
    )


def _accuracy(candidate: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return candidate["test_accuracy_estimate"] if candidate else None


def _leakage(candidate: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    strongest = candidate["strongest_attack"] if candidate else None
    return strongest["tpr_at_1pct"] if strongest else None


def _bytes(candidate: Mapping[str, Any] | None) -> float | None:
    return finite(candidate["cost"].get("file_bytes")) if candidate else None


def _estimated(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> Change:
    (a_low, a_high), (b_low, b_high) = interval(a), interval(b)
    overlap = None
    if a_low is not None and a_high is not None and b_low is not None and b_high is not None:
        overlap = a_low <= b_high and b_low <= a_high
    return Change(finite(a["value"]) if a else None, finite(b["value"]) if b else None, "fraction", overlap)


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("edgeward", "mode", "finished", "data", "device", "budget", "threats", "environment")
    found = [f"{name}: {_first_difference(a[name], b[name])}" for name in names if a[name] != b[name]]
    seeds = a["job"].get("seed"), b["job"].get("seed")
    if seeds[0] != seeds[1]:
        found.append(f"seed: {clean(seeds[0])} -> {clean(seeds[1])}")
    return tuple(found)


def _first_difference(a: object, b: object) -> str:
    left, right = dict(flat(a)), dict(flat(b))
    changed = [name for name in {**left, **right} if left.get(name) != right.get(name)]
    if not changed:
        return "differs"
    shown = [f"{n} {left.get(n, 'absent')} -> {right.get(n, 'absent')}".strip() for n in changed[:3]]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ", ".join(shown) + more


def _name(row: Row) -> str:
    settings = ", ".join(f"{name}={text}" for name, text in flat(row.config)) if row.config else ""
    return f"{clean(row.recipe)} ({settings})" if settings else clean(row.recipe)


def _chosen(chosen: Sequence[bool]) -> str:
    return {(False, False): "", (True, False): "only in a", (False, True): "only in b", (True, True): "in both"}[
        (chosen[0], chosen[1])
    ]
