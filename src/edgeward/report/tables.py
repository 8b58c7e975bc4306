"""The tables of a report, as text cells that HTML and Markdown share; every cell holds a unit or says where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from edgeward.core.record_kind import KINDS
from edgeward.core.units import human
from edgeward.report.verdict import (
    aside_attacks,
    audited_attacks,
    gap_attack,
    gap_point,
    gap_rate,
    kind_title,
    siblings_trained,
)
from edgeward.report.wording import (
    NOT_MEASURED,
    amount,
    bounds,
    clean,
    count,
    finite,
    flat,
    percent,
    ratio,
    shorten,
    with_bounds,
)

COST_TITLES: Mapping[str, str] = {
    "parameters": "parameters",
    "nonzeros": "non-zero parameters",
    "weight_bytes": "weights",
    "file_bytes": "file",
    "binary_weight_bytes": "binary weights with their scales",
    "binary_weights": "binary weights",
    "peak_ram_bytes": "peak RAM",
    "secure_ram_bytes": "secure-world RAM",
    "macs": "multiply-accumulates per inference",
    "bit_operations": "bit operations per inference",
    "ace": "ACE per inference (32 x 32 bit = 1024)",
    "cpu64_classic": "64-bit CPU operations, classic count",
    "cpu64_lane": "64-bit CPU operations, lane count",
    "energy_joules": "energy per inference",
    "device_latency_seconds": "device latency per inference",
    "host_latency_seconds": "host latency per inference",
    "training_runs": "training runs",
    "training_seconds": "training time",
    "bytes_sent": "bytes sent per inference",
    "rounds": "rounds per inference",
    "rotations": "rotations per inference",
    "levels": "levels",
    "switches": "world switches per inference",
}


@final
@dataclass(frozen=True)
class Cell:
    """One cell: the value, and a smaller note with its interval or provenance."""

    text: str
    note: str = ""
    number: bool = True


@final
@dataclass(frozen=True)
class Table:
    """Column titles and rows of cells; `marked` rows are the chosen ones."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: frozenset[int] = frozenset()


def words(text: object, note: str = "") -> Cell:
    """Return a cell of words, set flush left."""
    return Cell(clean(text), clean(note), number=False)


def estimate_cell(estimate: Mapping[str, Any] | None, *, fraction: bool = True) -> Cell:
    """Return an estimate over its interval and number of trials."""
    if not estimate or finite(estimate["value"]) is None:
        return Cell(NOT_MEASURED)
    value = percent(estimate["value"]) if fraction else ratio(estimate["value"])
    return Cell(value, f"{bounds(estimate, fraction=fraction)} n={count(estimate['n'])}".strip())


def cost_cell(candidate: Mapping[str, Any], name: str) -> Cell:
    """Return one cost over its provenance."""
    note = candidate["cost"]["provenance"].get(name)
    value = finite(candidate["cost"].get(name))
    if note is None or value is None:
        return Cell(NOT_MEASURED)
    return Cell(amount(value, note["unit"]), note["kind"])


def binary_bits_cell(candidate: Mapping[str, Any]) -> Cell:
    """Return the bits per binary weight, scales and padding included."""
    cost = candidate["cost"]
    weights, size = finite(cost.get("binary_weights")), finite(cost.get("binary_weight_bytes"))
    if not weights or size is None:
        return Cell("no binary weights")
    kind = cost["provenance"].get("binary_weight_bytes", {}).get("kind", "declared")
    return Cell(f"{8 * size / weights:.3f} bit", kind)


def standing(candidate: Mapping[str, Any]) -> str:
    """Return where a candidate stands in words."""
    if candidate["chosen"]:
        return "chosen"
    if candidate["on_frontier"]:
        return "on the frontier"
    return "feasible, dominated" if candidate["feasible"] else "not feasible"


def candidate_table(report: Mapping[str, Any]) -> Table:
    """Return all candidates, numbered as in the figures."""
    columns = (
        "No.",
        "recipe",
        "standing",
        "test accuracy, shipped executable [95 % CI]",
        "accuracy of audited siblings [95 % CI]",
        "worst kind of records",
        "strongest attack",
        "TPR at 1 % FPR [95 % CI]",
        "TPR at 0.1 % FPR [95 % CI]",
        "AUC [95 % CI]",
        "gap baseline, randomised to 1 % FPR",
        "file size",
        "bits per binary weight",
        "device latency",
        "host latency",
        "energy",
        "mode",
    )
    rows = tuple(_candidate_row(i + 1, c) for i, c in enumerate(report["candidates"]))
    return Table(columns, rows, frozenset(i for i, c in enumerate(report["candidates"]) if c["chosen"]))


def _candidate_row(number: int, candidate: Mapping[str, Any]) -> tuple[Cell, ...]:
    strongest, gap = candidate["strongest_attack"], gap_attack(candidate)
    leakage = strongest or {}
    trials = f"{count(strongest['negatives'])} negatives" if strongest else ""
    return (
        Cell(str(number)),
        words(candidate["recipe"], _settings(candidate["config"])),
        words(standing(candidate), "; ".join(candidate["violations"])),
        estimate_cell(candidate["test_accuracy_estimate"]),
        estimate_cell(candidate["audit_accuracy"]),
        words(kind_title(strongest["kind"]) if strongest else "none was audited"),
        words(strongest["name"] if strongest else "no attack was run", trials),
        estimate_cell(leakage.get("tpr_at_1pct")),
        estimate_cell(leakage.get("tpr_at_0_1pct")),
        estimate_cell(leakage.get("auc"), fraction=False),
        _gap_cell(gap),
        cost_cell(candidate, "file_bytes"),
        binary_bits_cell(candidate),
        cost_cell(candidate, "device_latency_seconds"),
        cost_cell(candidate, "host_latency_seconds"),
        cost_cell(candidate, "energy_joules"),
        words(candidate["mode"]),
    )


def _gap_cell(gap: Mapping[str, Any] | None) -> Cell:
    if gap is None:
        return Cell(NOT_MEASURED)
    point = gap_point(gap)
    reached = "" if point is None else f"yes to {percent(point[1])} of members, {percent(point[0])} of others"
    return Cell(percent(gap_rate(gap)), reached)


def _settings(config: Mapping[str, Any]) -> str:
    """Return the settings in one short line; the whole of them stands in the candidate's own section."""
    given = [f"{name} = {text}" for name, text in flat(config) if text != "none" and name != "preset"] if config else []
    return shorten(", ".join(given), 60)


def kinds_table(candidate: Mapping[str, Any]) -> Table:
    """Return one row per kind of audited records: what the strongest attack on it reaches."""
    columns = (
        "kind of records",
        "what it tells",
        "strongest attack",
        "TPR at 1 % FPR, corrected for choosing the attack [95 % CI]",
        "in hindsight",
        "attacks",
    )
    listed = candidate["kinds"]
    worst = candidate["strongest_attack"] and candidate["strongest_attack"]["kind"]
    rows = tuple(
        (
            words(kind_title(kind["kind"])),
            words(KINDS[kind["kind"]].tells if kind["kind"] in KINDS else ""),
            words(kind["name"]),
            estimate_cell(kind["corrected"]),
            Cell(percent(kind["hindsight"])),
            Cell(count(kind["attacks"])),
        )
        for kind in listed
    )
    return Table(columns, rows, frozenset(i for i, kind in enumerate(listed) if kind["kind"] == worst))


def attack_table(candidate: Mapping[str, Any]) -> Table:
    """Return every attack on the worst kind of records, strongest first, and on the shipped model alone."""
    columns = (
        "attack",
        "audited records",
        "AUC [95 % CI]",
        "TPR at 1 % FPR [95 % CI]",
        "TPR at 0.1 % FPR [95 % CI]",
        "realistic TPR (its FPR)",
        "balanced accuracy, threshold in hindsight",
        "balanced accuracy, threshold from other models",
        "members",
        "non-members",
    )
    return Table(
        columns, tuple(_attack_row(attack) for attack in [*audited_attacks(candidate), *aside_attacks(candidate)])
    )


def _attack_row(attack: Mapping[str, Any]) -> tuple[Cell, ...]:
    realistic = finite(attack["realistic_tpr_at_1pct"])
    reached = "" if realistic is None else f"at {percent(attack['realistic_fpr'], 2)} FPR"
    return (
        words(attack["name"], "adaptive" if attack["adaptive"] else "not adaptive"),
        words(kind_title(attack["kind"])),
        estimate_cell(attack["auc"], fraction=False),
        estimate_cell(attack["tpr_at_1pct"]),
        estimate_cell(attack["tpr_at_0_1pct"]),
        Cell(percent(realistic), reached),
        Cell(percent(attack["balanced_accuracy"])),
        Cell(percent(attack["realistic_balanced_accuracy"])),
        Cell(count(attack["positives"]), "trials"),
        Cell(count(attack["negatives"]), "trials"),
    )


def accuracy_table(candidate: Mapping[str, Any]) -> Table:
    """Return the four accuracies of one candidate."""
    siblings = siblings_trained(candidate["strongest_attack"])
    names = (
        ("holdout (test), shipped executable", candidate["test_accuracy_estimate"], "records"),
        ("validation (used to choose), shipped executable", candidate["validation_accuracy"], "records"),
        ("training records, shipped executable", candidate["train_accuracy"], "records"),
        (f"holdout, mean of the audited siblings, {siblings}", candidate["audit_accuracy"], "models"),
    )
    rows = tuple(
        (words(name), Cell(with_bounds(e)), Cell(count(e["n"]) if e else "-", unit), words(e["method"] if e else "-"))
        for name, e, unit in names
    )
    return Table(("accuracy on", "value [95 % CI]", "n", "interval"), rows)


def cost_table(candidate: Mapping[str, Any]) -> Table:
    """Return every cost of one candidate with unit, provenance and source."""
    known = candidate["cost"]["provenance"]
    order = [name for name in COST_TITLES if name in known] + sorted(set(known) - set(COST_TITLES))
    rows = tuple(
        (
            words(COST_TITLES.get(name, name)),
            Cell(amount(candidate["cost"].get(name), known[name]["unit"])),
            words(known[name]["kind"]),
            words(known[name]["source"]),
        )
        for name in order
    )
    return Table(("quantity", "value", "provenance", "source"), rows)


def layer_table(candidate: Mapping[str, Any]) -> Table:
    """Return the per-layer cost of one input; a total closes it."""
    layers = candidate["layers"]
    rows = [_layer_row(layer) for layer in layers]
    if layers:
        macs, size, ace = (sum(finite(layer[n]) or 0.0 for layer in layers) for n in ("macs", "weight_bytes", "ace"))
        totals = (Cell(human(macs, "MAC")), Cell(""), Cell(""), Cell(human(size, "B")), Cell(human(ace, "ACE")))
        rows.append((words("total"), words(f"{len(layers)} layers"), words(""), *totals))
    columns = ("layer", "operator", "output shape", "MACs", "weight bits", "activation bits", "weights", "ACE")
    return Table(columns, tuple(rows))


def _layer_row(layer: Mapping[str, Any]) -> tuple[Cell, ...]:
    return (
        words(layer["name"]),
        words(layer["operator"]),
        words(" x ".join(str(extent) for extent in layer["output_shape"])),
        Cell(amount(layer["macs"], "MAC")),
        Cell(amount(layer["weight_bits"], "bit")),
        Cell(amount(layer["activation_bits"], "bit")),
        Cell(amount(layer["weight_bytes"], "B")),
        Cell(amount(layer["ace"], "ACE")),
    )


def claim_table(candidate: Mapping[str, Any]) -> Table:
    """Return the claims of one candidate, proved ones first."""
    order = {"proved": 0, "measured": 1, "assumed": 2}
    claims = sorted(candidate["claims"], key=lambda claim: order[claim["basis"]])
    names = ("basis", "asset", "adversary", "statement", "evidence")
    return Table(names, tuple(tuple(words(claim[name]) for name in names) for claim in claims))


def failed_table(report: Mapping[str, Any]) -> Table:
    """Return the recipes that failed, with their reason."""
    return Table(("recipe", "reason"), tuple((words(f["recipe"]), words(f["reason"])) for f in report["failed"]))


def pairs_table(value: Mapping[str, Any], titles: Sequence[str] = ("name", "value")) -> Table:
    """Return any plain JSON as two columns of names and texts."""
    return Table(tuple(titles), tuple((words(name), words(text)) for name, text in flat(value)) if value else ())
