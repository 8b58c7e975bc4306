"""`report.html`: one file that a stranger can open, forward and print; nothing is loaded, nothing runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeward.report import plots, tables, verdict
from edgeward.report.plot_frontier import frontier_plot
from edgeward.report.schema import validate_report
from edgeward.report.untested import not_tested
from edgeward.report.wording import bounds, clean, count, percent

if TYPE_CHECKING:
    from jinja2 import Environment


def render_html(report: Mapping[str, Any]) -> str:
    """Return the report as one self-contained HTML page, without scripts, fonts or links to load.

    Guarantee: every text of the report is escaped, and the page's own policy (`default-src 'none'`) lets a browser
    load or run nothing should an escape be missed. Equal reports give equal bytes. Cost: about one second.
    Errors: `DataError` where the report departs from its schema.
    """
    validate_report(report)
    return page_environment().get_template("report.html.j2").render(**_page(report))


def page_environment() -> Environment:
    """Return the templates of this room: everything that goes into a page is escaped and cleaned."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("edgeward.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _visible(value: object) -> object:
    """Clean plain text on its way into the page and keep numbers with their %; markup made here passes."""
    return re.sub(r"(?<=\d) %", "\u00a0%", clean(value)) if type(value) is str else value


def _page(report: Mapping[str, Any]) -> dict[str, Any]:
    chosen = verdict.chosen_candidate(report)
    device = report["device"].get("title") or report["device"].get("name") or "unnamed device"
    data = report["data"].get("name", "unnamed data")
    return {
        "title": f"{data} on {device}",
        "report": report,
        "mode": _mode(str(report["mode"])),
        "chosen": chosen,
        "rule": verdict.choice_rule(report, chosen) if chosen else "",
        "command": verbatim(report["command"]),
        "headline": _headline(chosen),
        "records": verdict.records_verdict(report, chosen),
        "budget": verdict.budget_verdict(report, chosen),
        "bars": verdict.bars(report, chosen) if chosen else (),
        "claims": _claims(chosen),
        "unclaimed": verdict.unclaimed_assets(chosen) if chosen else verdict.ASSETS,
        "figures": _figures(report, chosen),
        "drawn": {"curves": plots.MAX_LINES, "bars": plots.MAX_BARS},
        "candidates": tables.candidate_table(report),
        "details": [_detail(i + 1, candidate) for i, candidate in enumerate(report["candidates"])],
        "layers": tables.layer_table(chosen) if chosen else None,
        "costs": tables.cost_table(chosen) if chosen else None,
        "claim_table": tables.claim_table(chosen) if chosen else None,
        "failed": tables.failed_table(report),
        "untested": not_tested(report, chosen),
        "data": tables.pairs_table(report["data"]),
        "device": tables.pairs_table(report["device"]),
        "environment": tables.pairs_table(report["environment"]),
        "job": tables.pairs_table(report["job"]),
        "threats": tables.pairs_table({"threat": report["threats"]}),
        "hypervolume": percent(report["hypervolume"]),
        "count": count(len(report["candidates"])),
    }


def _headline(chosen: Mapping[str, Any] | None) -> dict[str, str]:
    strongest = chosen["strongest_attack"] if chosen else None
    rate = strongest["tpr_at_1pct"] if strongest else None
    gap = verdict.gap_attack(chosen) if chosen else None
    return {
        "value": percent(rate["value"] if rate else None),
        "bounds": bounds(rate),
        "attack": strongest["name"] if strongest else "",
        "kind": verdict.kind_title(strongest["kind"]) if strongest else "",
        "negatives": count(strongest["negatives"] if strongest else None),
        "gap": percent(verdict.gap_rate(gap)) if gap else "not run",
    }


def verbatim(text: object) -> Any:
    """Escape text that is copied from the page: its spaces must stay spaces."""
    from markupsafe import escape

    return escape(clean(text))


def _mode(mode: str) -> str:
    explained = {
        "host": "measured on the host, not on the device",
        "simulated": "simulated: no protection was in force",
        "emulated": "emulated: the device's runtime on another processor",
        "deployed": "deployed: measured on the device",
        "mixed": "mixed: each candidate names its own mode",
        "none": "nothing was measured",
    }
    return explained[mode]


def _claims(chosen: Mapping[str, Any] | None) -> dict[str, list[dict[str, Any]]]:
    claims = chosen["claims"] if chosen else []
    return {basis: [c for c in claims if c["basis"] == basis] for basis in ("proved", "measured", "assumed")}


def _figures(report: Mapping[str, Any], chosen: Mapping[str, Any] | None) -> dict[str, Any]:
    from markupsafe import Markup

    drawn = {
        "frontier": frontier_plot(report),
        "leakage": plots.leakage_plot(report),
        "roc": plots.roc_plot(report),
        "layers": plots.layer_plot(chosen) if chosen else "",
    }
    # The only markup that is not escaped: figures whose every text passed `svg.label`.
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704


def _detail(number: int, candidate: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "number": number,
        "recipe": candidate["recipe"],
        "id": candidate["id"],
        "standing": tables.standing(candidate),
        "mode": candidate["mode"],
        "violations": candidate["violations"],
        "notes": candidate["notes"],
        "config": tables.pairs_table(candidate["config"], ("setting", "value")),
        "accuracy": tables.accuracy_table(candidate),
        "kinds": tables.kinds_table(candidate),
        "attacks": tables.attack_table(candidate),
        "costs": tables.cost_table(candidate),
        "claims": tables.claim_table(candidate),
        "extra": tables.pairs_table(candidate["extra"], ("recorded by the recipe", "value")),
    }
