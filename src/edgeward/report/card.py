"""`CARD.md`: model card and privacy card of one candidate, which travels with its bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeward.core.errors import ConfigError
from edgeward.report import tables
from edgeward.report.markdown import code_block, escape, markdown_table, yaml
from edgeward.report.schema import validate_report
from edgeward.report.untested import not_tested
from edgeward.report.verdict import (
    bars,
    budget_verdict,
    chosen_candidate,
    kind_title,
    records_verdict,
    unclaimed_assets,
)
from edgeward.report.wording import clean, finite


def render_card(report: Mapping[str, Any], candidate_id: str | None = None) -> str:
    """Return the card of the candidate with `candidate_id`, or of the chosen one, as Markdown with YAML front matter.

    Where nothing was chosen the card says so. Guarantee: names in the report stay text: they become neither markup,
    table cells, links nor YAML keys. Errors: `ConfigError` for an unknown id, `DataError` for an invalid report.
    """
    validate_report(report)
    candidate = _find(report, candidate_id)
    if candidate is None:
        return _empty_card(report)
    sections = [
        f"---\n{yaml(_front_matter(report, candidate))}\n---",
        f"# {escape(candidate['recipe'])} on {escape(_device(report))}",
        _summary(report, candidate),
        "## Assets and adversaries",
        _assets(candidate),
        "## Leakage of training records",
        _leakage(report, candidate),
        "## Utility",
        f"Measured in mode {candidate['mode']}. The shipped executable and the audited siblings were trained on "
        "different records: do not compare their accuracies with each other.",
        markdown_table(tables.accuracy_table(candidate)),
        "## Cost",
        _cost(report, candidate),
        "## What was not tested",
        _bullets(not_tested(report, candidate)),
        "## Data",
        markdown_table(tables.pairs_table(report["data"])) if report["data"] else "Not described.",
        "## How to verify",
        _verify(report, candidate),
    ]
    return "\n\n".join(sections) + "\n"


def _find(report: Mapping[str, Any], candidate_id: str | None) -> dict[str, Any] | None:
    if candidate_id is None:
        return chosen_candidate(report)
    for candidate in report["candidates"]:
        if candidate["id"] == candidate_id:
            return dict(candidate)
    known = [f"{candidate['id']} ({candidate['recipe']})" for candidate in report["candidates"]]
    raise ConfigError(
        "there is no such candidate in the report",
        expected=f"one of {', '.join(known) or 'none: nothing was measured'}",
        came=repr(candidate_id),
        fix="copy an id from report.json, or leave it out for the chosen candidate",
    )


def _empty_card(report: Mapping[str, Any]) -> str:
    lines = [f"{c['recipe']}: {'; '.join(c['violations']) or 'feasible'}" for c in report["candidates"]]
    text = "No measured candidate meets the budget; nothing was chosen and nothing should ship from this run."
    return f"---\ntags: [edgeward]\n---\n\n# No candidate chosen\n\n{text}\n\n{_bullets(lines)}\n"


def _device(report: Mapping[str, Any]) -> str:
    return str(report["device"].get("title") or report["device"].get("name") or "unnamed device")


def _front_matter(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> dict[str, Any]:
    name = f"{candidate['recipe']} {candidate['id'][:16]}"
    dataset = report["data"].get("name", "unnamed")
    strongest = candidate["strongest_attack"]
    results = [_result("classification", dataset, "holdout", _utility(candidate))]
    if strongest:
        audit = f"membership inference on {kind_title(strongest['kind'])}, {strongest['negatives']} non-member trials"
        results.append(_result(audit, dataset, "audited siblings", _membership(strongest)))
    return {
        "library_name": "edgeward",
        "tags": ["edgeward", "privacy-card", candidate["recipe"]],
        "model-index": [{"name": name, "results": results}],
    }


def _result(task: str, dataset: str, split: str, metrics: Sequence[tuple[str, str, float | None]]) -> dict[str, Any]:
    listed = [
        {"type": kind, "name": title, "value": _short(value), "verified": False}
        for kind, title, value in metrics
        if value is not None
    ]
    data = {"type": dataset, "name": dataset, "split": split}
    return {"task": {"type": "other", "name": task}, "dataset": data, "metrics": listed}


def _short(value: float) -> float:
    return int(value) if value.is_integer() else float(f"{value:.6g}")


def _utility(candidate: Mapping[str, Any]) -> list[tuple[str, str, float | None]]:
    return [
        ("accuracy", "test accuracy of the shipped executable (fraction)", finite(candidate["test_accuracy"])),
        ("file_bytes", "file size (bytes)", finite(candidate["cost"].get("file_bytes"))),
    ]


def _membership(strongest: Mapping[str, Any]) -> list[tuple[str, str, float | None]]:
    attack = clean(strongest["name"])
    kinds = (("tpr_at_1pct", "TPR at 1 % FPR"), ("tpr_at_0_1pct", "TPR at 0.1 % FPR"), ("auc", "AUC"))
    names = {"tpr_at_1pct": "tpr_at_1pct_fpr", "tpr_at_0_1pct": "tpr_at_0_1pct_fpr", "auc": "auc"}
    return [
        (f"membership_{names[kind]}", f"{attack}: {title}", finite(strongest[kind]["value"])) for kind, title in kinds
    ]


def _summary(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    device, data = escape(_device(report)), escape(report["data"].get("name", "unnamed data"))
    records, budget = records_verdict(report, candidate), budget_verdict(report, candidate)
    alone = len(report["candidates"]) == 1
    standing = (
        "stated on its own, without the other candidates of its run"
        if alone
        else f"{tables.standing(candidate)} among {len(report['candidates'])} candidates"
    )
    return "\n".join(
        [
            f"A classifier made by the recipe {escape(candidate['recipe'])} for {device}, trained on {data}; "
            f"measured by edgeward {escape(report['edgeward'])} in mode {candidate['mode']}; {standing}.",
            "",
            f"- Training records: **{records.status}** ({escape(records.threshold or 'no threshold')}).",
            *(f"  - {escape(line)}" for line in records.lines),
            f"- Budget: **{budget.status}** ({escape(budget.threshold or 'see the report of the run')}).",
        ]
    )


def _assets(candidate: Mapping[str, Any]) -> str:
    table = tables.claim_table(candidate)
    claims = markdown_table(table) if table.rows else "No claim is made."
    unclaimed = unclaimed_assets(candidate)
    rest = f"\n\nNo claim is made about: {', '.join(unclaimed)}." if unclaimed else ""
    return claims + rest


def _leakage(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    if not candidate["attacks"]:
        return "No attack was run: nothing is known about leakage."
    note = (
        f"Measured against these attacks, in mode {candidate['mode']}; a stronger one may exist. Lowered siblings were "
        "audited on each kind of records of the first table; the second lists every attack on the worst kind, then "
        "those on the shipped executable alone, without shadow models. Rates with 95 % intervals; n counts trials."
    )
    kinds = f"{markdown_table(tables.kinds_table(candidate))}\n\n" if candidate["kinds"] else ""
    return f"{note}\n\n{kinds}{markdown_table(tables.attack_table(candidate))}"


def _cost(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    table = markdown_table(tables.cost_table(candidate))
    used = [
        f"{bar.title}: {bar.value}, {bar.limit}: {bar.status} ({bar.provenance})." for bar in bars(report, candidate)
    ]
    return f"{table}\n\n{_bullets(used)}" if used else table


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines) or "- none"


def _verify(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    return "\n\n".join(
        [
            "In the folder of the bundle, with edgeward installed:",
            code_block("edgeward verify ."),
            "This compares every file with the manifest and replays the test vectors. The run that measured the "
            f"numbers above, candidate {escape(candidate['id'])}, is repeated by:",
            code_block(report["command"]),
        ]
    )
