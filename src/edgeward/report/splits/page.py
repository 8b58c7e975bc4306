"""`report.html` of a mirror run: one file that a stranger can open; nothing is loaded, nothing runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeward.report.html import page_environment, verbatim
from edgeward.report.splits import plots, tables, verdict
from edgeward.report.splits.balance import why
from edgeward.report.splits.schema import validate_split_report
from edgeward.report.splits.untested import split_not_tested
from edgeward.report.tables import pairs_table
from edgeward.report.wording import count, percent, with_bounds


def render_split_page(report: Mapping[str, Any]) -> str:
    """Return the report of a mirror run as one self-contained HTML page, without scripts, fonts or links to load.

    Guarantee: as for `render_html`; equal reports give equal bytes. Errors: `DataError` for an invalid report.
    """
    validate_split_report(report)
    return page_environment().get_template("splits.html.j2").render(**_page(report))


def _page(report: Mapping[str, Any]) -> dict[str, Any]:
    chosen = verdict.chosen_split(report)
    return {
        "title": f"{report['data']} on {report['device']}, split in two worlds",
        "report": report,
        "chosen": chosen,
        "command": verbatim(report["command"]),
        "count": count(len(report["splits"])),
        "victim": with_bounds(report["victim_accuracy"]),
        "secrecy": verdict.confidentiality(report, chosen),
        "ratio": _ratio(chosen),
        "budget": verdict.budget(report, chosen),
        "bars": verdict.limit_bars(report, chosen) if chosen else (),
        "shown": verdict.exposure(chosen),
        "figures": _figures(report),
        "drawn": {"curves": plots.MAX_CURVES, "rows": plots.MAX_ROWS},
        "splits": tables.split_table(report),
        "details": [_detail(i + 1, report, split) for i, split in enumerate(report["splits"])],
        "assets": tables.asset_table(chosen) if chosen else None,
        "checklist": tables.checklist_table(chosen) if chosen else None,
        "untested": split_not_tested(report, chosen),
        "environment": pairs_table(report["environment"]),
        "limits": pairs_table(
            {**report["limits"], "budgets": report["budgets"], "largest_drop": report["largest_drop"]}
            | {"seed": report["seed"], "public_prior": report["public_prior"]}
        ),
    }


def _ratio(chosen: Mapping[str, Any] | None) -> dict[str, str]:
    if chosen is None:
        return {"value": "", "bounds": "", "stolen": "", "queries": ""}
    theft = verdict.worst(chosen)
    low, high = theft["ratio_to_black_box"]["interval"]
    value = theft["ratio_to_black_box"]["value"]
    return {
        "value": "not measured" if value is None else f"{value:.2f}",
        "bounds": "" if low is None or high is None else f"[{low:.2f}, {high:.2f}]",
        "stolen": percent(theft["accuracy"]["value"]),
        "queries": count(theft["budget"]),
    }


def _figures(report: Mapping[str, Any]) -> dict[str, Any]:
    from markupsafe import Markup

    drawn = {
        "frontier": plots.frontier_plot(report),
        "stealing": plots.stealing_plot(report),
        "terms": plots.term_plot(report),
    }
    # The only markup that is not escaped: figures whose every text passed `svg.label`.
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704


def _detail(number: int, report: Mapping[str, Any], split: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "number": number,
        "name": split["name"],
        "standing": verdict.standing(report, split),
        "verdict": split["verdict"],
        "definition": split["modelled"]["definition"],
        "thefts": tables.theft_table(split),
        "terms": tables.term_table(split),
        "balance": why(split),
        "memory": tables.memory_table(split),
        "sources": split["modelled"]["sources"],
        "assets": tables.asset_table(split),
        "checklist": tables.checklist_table(split),
        "strategy": pairs_table(split["strategy"], ("setting", "value")),
        "attacker": pairs_table(split["stealing"]["attacker"], ("setting", "value")),
    }
