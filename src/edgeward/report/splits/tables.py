"""The tables of a mirror report, as text cells that HTML and Markdown share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeward.report.splits.schema import words_of
from edgeward.report.splits.verdict import standing
from edgeward.report.tables import Cell, Table, estimate_cell, words
from edgeward.report.wording import NOT_MEASURED, amount, count, finite, percent

TERMS: Mapping[str, str] = {
    "normal": "network in the normal world",
    "handover": "quantising and handing over taps",
    "switch": "switching worlds",
    "memref": "passing memory references",
    "copy": "copying into the secure world",
    "secure": "network in the secure world",
}
TRANSFERS: Mapping[str, str] = {"batch": "batch", "stream": "stream, a plan that the emitted application does not run"}


def split_table(report: Mapping[str, Any]) -> Table:
    """Return all splits, numbered as in the figures, between the two ends: everything secure, and nothing."""
    columns = (
        "No.",
        "split",
        "standing",
        "authorised accuracy, measured",
        "direct use, measured",
        "gap",
        *(f"stealing ratio, {count(queries)} queries [95 % CI]" for queries in report["budgets"]),
        "label",
        "secure RAM, modelled",
        "switches, bytes, declared",
        "overhead, modelled",
    )
    rows = [_split_row(i + 1, report, split) for i, split in enumerate(report["splits"])]
    marked = frozenset(i for i, split in enumerate(report["splits"]) if split["name"] == report["chosen"])
    return Table(columns, (*rows, *_ends(report)), marked)


def _split_row(number: int, report: Mapping[str, Any], split: Mapping[str, Any]) -> tuple[Cell, ...]:
    stealing, modelled = split["stealing"], split["modelled"]
    gap = finite(stealing["gap"])
    return (
        Cell(str(number)),
        words(split["name"], split["describe"]),
        words(standing(report, split)),
        estimate_cell(split["authorised_accuracy"]),
        estimate_cell(stealing["direct_accuracy"]) if stealing["direct_accuracy"] else words("no answer"),
        Cell("none" if gap is None else f"{100 * gap:.1f} points"),
        *(_ratio_cell(theft["ratio_to_black_box"]) for theft in stealing["budgets"]),
        words("confidential" if split["confidential"] else "not confidential", "against these attacks"),
        Cell(amount(modelled["secure_ram_bytes"], "B"), f"of {amount(modelled['secure_ram_limit'], 'B')}"),
        Cell(f"{count(modelled['switches'])}, {amount(modelled['bytes'], 'B')}"),
        Cell(percent(modelled["overhead"]), f"{TRANSFERS[modelled['transfer']]}, basis: {modelled['basis']}"),
    )


def _ends(report: Mapping[str, Any]) -> list[tuple[Cell, ...]]:
    if not report["splits"]:
        return []
    thefts, victim = report["splits"][0]["stealing"]["budgets"], estimate_cell(report["victim_accuracy"])
    none = Cell("not modelled")
    secure = (
        Cell(""),
        words("everything in the secure world", "the black-box level"),
        words("reference"),
        victim,
        words("no answer"),
        Cell("none"),
        *(Cell("1.00", f"by definition; {percent(theft['black_box']['value'])} stolen") for theft in thefts),
        words("reference"),
        none,
        none,
        none,
    )
    open_ = (
        Cell(""),
        words("no shield", "the whole network in the normal world"),
        words("reference"),
        victim,
        victim,
        Cell("0.0 points"),
        *(Cell(_over(theft), f"{percent(theft['no_shield']['value'])} stolen") for theft in thefts),
        words("not confidential"),
        Cell("0 B"),
        Cell("0, 0 B"),
        Cell("0.0 %", "by definition"),
    )
    return [secure, open_]


def _over(theft: Mapping[str, Any]) -> str:
    top, bottom = finite(theft["no_shield"]["value"]), finite(theft["black_box"]["value"])
    return NOT_MEASURED if top is None or not bottom else f"{top / bottom:.2f}"


def _ratio_cell(estimate: Mapping[str, Any]) -> Cell:
    value = finite(estimate["value"])
    if value is None:
        return Cell(NOT_MEASURED)
    low, high = (finite(end) for end in estimate["interval"])
    return Cell(f"{value:.2f}", "" if low is None or high is None else f"[{low:.2f}, {high:.2f}]")


def theft_table(split: Mapping[str, Any]) -> Table:
    """Return what was stolen at each query budget, beside both references on the same queries."""
    columns = (
        "label queries",
        "stolen accuracy [95 % CI]",
        "attack that the thief's own records chose",
        "agrees with the authorised answer",
        "black-box attack",
        "no shield",
        "ratio to black box",
        "ratio to no shield",
    )
    rows = tuple(
        (
            Cell(count(theft["budget"])),
            estimate_cell(theft["accuracy"]),
            words(theft["attack"], f"of {len(theft['tried'])} tried"),
            estimate_cell(theft["fidelity"]),
            estimate_cell(theft["black_box"]),
            estimate_cell(theft["no_shield"]),
            _ratio_cell(theft["ratio_to_black_box"]),
            _ratio_cell(theft["ratio_to_no_shield"]),
        )
        for theft in split["stealing"]["budgets"]
    )
    return Table(columns, rows)


def term_table(split: Mapping[str, Any]) -> Table:
    """Return the modelled time of one inference by term, and the instructions behind it."""
    modelled = split["modelled"]
    rows = [
        (words(TERMS.get(term, term)), Cell(amount(seconds, "s")), _instructions(modelled["instructions"].get(term)))
        for term, seconds in sorted(modelled["seconds"].items(), key=lambda pair: _place(pair[0]))
    ]
    totals = (
        ("from record to answer", "seconds_total"),
        ("time between answers in a row", "period_seconds"),
        ("the unprotected network alone", "seconds_normal"),
    )
    rows += [(words(title), Cell(amount(modelled[name], "s")), Cell("")) for title, name in totals]
    return Table(("term", "time, modelled", "instructions in the secure world, modelled"), tuple(rows))


def _place(term: str) -> int:
    names = list(TERMS)
    return names.index(term) if term in names else len(names)


def _instructions(value: object) -> Cell:
    return Cell("" if value is None else count(value))


def memory_table(split: Mapping[str, Any]) -> Table:
    """Return the modelled secure memory by use."""
    modelled = split["modelled"]
    rows = [(words(use), Cell(amount(size, "B"))) for use, size in modelled["ram"].items()]
    rows += [
        (words("together"), Cell(amount(modelled["secure_ram_bytes"], "B"))),
        (words("limit"), Cell(amount(modelled["secure_ram_limit"], "B"))),
    ]
    return Table(("secure memory", "size, modelled"), tuple(rows))


def asset_table(split: Mapping[str, Any]) -> Table:
    """Return the asset matrix: one row per asset and phase, one column per adversary; silence reads "not protected"."""
    adversaries = words_of("adversary")
    given = {(c["asset"], c["phase"], c["adversary"]): c for c in split["assets"]["protections"]}
    rows = tuple(
        (words(asset), words(phase), *(_asset_cell(given.get((asset, phase, who))) for who in adversaries))
        for asset in words_of("asset")
        for phase in words_of("phase")
    )
    return Table(("asset", "phase", *adversaries), rows)


def _asset_cell(protection: Mapping[str, Any] | None) -> Cell:
    return words("not protected") if protection is None else words(protection["status"], protection["by"])


def checklist_table(split: Mapping[str, Any]) -> Table:
    """Return the checklist R1 to R14 with what every answer rests on."""
    rows = tuple(
        (words(r["key"]), words(r["question"]), words(r["answer"]), words(r["by"])) for r in split["checklist"]
    )
    return Table(("", "question", "answer", "what it rests on"), rows)
