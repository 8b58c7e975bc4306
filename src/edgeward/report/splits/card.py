"""`CARD.md` of a split: verdict first, then what was measured, modelled and left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeward.core.errors import ConfigError
from edgeward.report.markdown import code_block, escape, markdown_table, yaml
from edgeward.report.splits import tables, verdict
from edgeward.report.splits.balance import why
from edgeward.report.splits.schema import validate_split_report
from edgeward.report.splits.untested import split_not_tested
from edgeward.report.tables import pairs_table
from edgeward.report.wording import clean, finite, with_bounds

WORDS = (
    "**measured**: run on the host, on the integers that the secure world computes. **modelled**: the performance "
    "emulator's figure for the device, with its basis. **emulated**: a secure world that runs on a host "
    "(tiers `wasm` and `process`), whose owner can read it. **declared**: counted from the deployment itself."
)


def render_split_card(report: Mapping[str, Any], name: str | None = None) -> str:
    """Return the card of the split called `name`, or of the chosen one, as Markdown with YAML front matter.

    Where nothing was chosen the card says so and still holds the table of splits. Errors: `ConfigError` for an unknown
    name, `DataError` for an invalid report.
    """
    validate_split_report(report)
    split = _find(report, name)
    secrecy, kept = verdict.confidentiality(report, split), verdict.budget(report, split)
    sections = [
        f"---\n{yaml(_front_matter(report, split))}\n---",
        f"# {escape(report['data'])} on {escape(report['device'])}, split in two worlds",
        _verdicts(report, split, secrecy, kept),
        "## Splits",
        markdown_table(tables.split_table(report)),
        WORDS,
        *(_split_sections(split) if split else []),
        "## What was not tested",
        _bullets(split_not_tested(report, split)),
        "## How to verify and repeat",
        _repeat(report),
    ]
    return "\n\n".join(sections) + "\n"


def _find(report: Mapping[str, Any], name: str | None) -> dict[str, Any] | None:
    if name is None:
        return verdict.chosen_split(report)
    for split in report["splits"]:
        if split["name"] == name:
            return dict(split)
    raise ConfigError(
        "there is no such split in the report",
        expected=f"one of {', '.join(clean(s['name']) for s in report['splits']) or 'none: nothing was measured'}",
        came=repr(name)[:80],
        fix="copy a name from report.json, or leave it out for the chosen split",
    )


def _front_matter(report: Mapping[str, Any], split: Mapping[str, Any] | None) -> dict[str, Any]:
    if split is None:
        return {"library_name": "edgeward", "tags": ["edgeward", "split-card"]}
    theft = verdict.worst(split)
    metrics = [
        ("accuracy", "authorised accuracy, int8 (fraction)", split["authorised_accuracy"]["value"]),
        (
            "stealing-ratio",
            f"stolen accuracy over the black box's, {theft['budget']} queries",
            theft["ratio_to_black_box"]["value"],
        ),
        ("secure-ram", "secure RAM, modelled (bytes)", split["modelled"]["secure_ram_bytes"]),
        ("overhead", "overhead, modelled (fraction)", split["modelled"]["overhead"]),
    ]
    listed = [
        {"type": kind, "name": title, "value": value, "verified": False}
        for kind, title, value in metrics
        if finite(value) is not None
    ]
    dataset = {"type": report["data"], "name": report["data"], "split": "holdout"}
    result = {"task": {"type": "other", "name": "classification"}, "dataset": dataset, "metrics": listed}
    tags = ["edgeward", "split-card", report["device"]]
    return {"library_name": "edgeward", "tags": tags, "model-index": [{"name": split["name"], "results": [result]}]}


def _verdicts(report: Mapping[str, Any], split: Mapping[str, Any] | None, secrecy: Any, kept: Any) -> str:
    lines = [f"**{escape(secrecy.status)}**" + (f" ({escape(split['name'])})" if split else "")]
    lines += [f"- {escape(line)}" for line in (*secrecy.lines, secrecy.threshold) if line]
    lines.append(f"- Limits: {escape(kept.status)}.")
    lines += [f"  - {escape(line)}" for line in kept.lines]
    if split is not None:
        lines += [
            f"  - {escape(bar.title)}: {escape(bar.value)}, {escape(bar.limit)}: {escape(bar.status)} "
            f"({escape(bar.provenance)})"
            for bar in verdict.limit_bars(report, split)
        ]
        lines += [f"- {escape(line)}" for line in verdict.exposure(split).lines]
    lines.append(f"- The network itself, in one world: {escape(with_bounds(report['victim_accuracy']))}, measured.")
    return "\n".join([lines[0], "", *lines[1:]])


def _split_sections(split: Mapping[str, Any]) -> list[str]:
    modelled = split["modelled"]
    return [
        "## What was stolen",
        f"Measured; the thief sees everything in the normal world and asks for labels. {escape(split['verdict'])}.",
        markdown_table(tables.theft_table(split)),
        "## What it takes",
        f"Modelled, basis: {escape(modelled['basis'])}; "
        f"transfer: {escape(tables.TRANSFERS[modelled['transfer']])}. Overhead: "
        f"{escape(modelled['definition'])}. In a stream both worlds work at once, so that the terms add up to more "
        "than the time from record to answer.",
        markdown_table(tables.term_table(split)),
        *(escape(line) for line in why(split)),
        markdown_table(tables.memory_table(split)),
        _bullets(modelled["sources"]),
        "## Assets, phases, adversaries",
        "A cell that says nothing more is not protected.",
        markdown_table(tables.asset_table(split)),
        "## Checklist",
        markdown_table(tables.checklist_table(split)),
        "## Strategy",
        markdown_table(pairs_table(split["strategy"], ("setting", "value"))),
    ]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines) or "- none"


def _repeat(report: Mapping[str, Any]) -> str:
    return "\n\n".join(
        [
            "In the folder of the bundle, with edgeward installed:",
            code_block("edgeward verify ."),
            "This compares every file in clear with the manifest, this card too, and the sealed weights' header with "
            "its digest; the weights themselves are judged by the secure world when it loads them, or by `--storage`. "
            "The run above is repeated by:",
            code_block(report["command"]),
        ]
    )
