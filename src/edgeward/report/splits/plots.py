"""The figures of a mirror report: the frontier, the stealing curves, the modelled time by term."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeward.core.units import human
from edgeward.report.plotted import LINES, WIDTH, fraction, magnitude, span_of
from edgeward.report.splits.tables import TERMS
from edgeward.report.splits.verdict import accuracy_floor, worst
from edgeward.report.svg import INK, draw, label
from edgeward.report.wording import finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CURVES = len(LINES) - 2
MAX_ROWS = 24
_DASHED: Any = (0, (3, 2))
_DOTTED: Any = (0, (1, 2))
_LARGEST_RATIO = 100.0
_FAR = 1.5

Numbered = tuple[int, Mapping[str, Any]]


def frontier_plot(report: Mapping[str, Any]) -> str:
    """Return authorised accuracy over stealing ratio as SVG: area is secure RAM, colour overhead; or nothing."""
    points = [p for p in (_point(i + 1, split) for i, split in enumerate(report["splits"])) if p is not None]
    if not points:
        return ""
    title = f"Authorised accuracy over stealing ratio of {len(points)} splits"
    return draw(lambda: _frontier_figure(report, points), "frontier", title)


def _point(number: int, split: Mapping[str, Any]) -> tuple[int, Mapping[str, Any], float, float] | None:
    ratio, accuracy = (
        finite(worst(split)["ratio_to_black_box"]["value"]),
        fraction(split["authorised_accuracy"]["value"]),
    )
    if ratio is None or accuracy is None or not 0 <= ratio <= _LARGEST_RATIO:
        return None
    return number, split, ratio, 100 * accuracy


def _frontier_figure(
    report: Mapping[str, Any], points: Sequence[tuple[int, Mapping[str, Any], float, float]]
) -> Figure:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 4.1), layout="constrained")
    axes = figure.add_subplot()
    overheads = [min(max(100 * (finite(s["modelled"]["overhead"]) or 0.0), -1e6), 1e6) for _, s, _, _ in points]
    colours = ScalarMappable(Normalize(min(0.0, *overheads), max(1.0, *overheads)), _colour_map())
    largest = max(magnitude(s["modelled"]["secure_ram_bytes"]) for _, s, _, _ in points) or 1.0
    for (number, split, x, y), overhead in zip(points, overheads, strict=True):
        theft, chosen = worst(split), split["name"] == report["chosen"]
        below, above = span_of(split["authorised_accuracy"], y / 100)
        left, right = span_of(theft["ratio_to_black_box"], x)
        up, side = [[100 * below], [100 * above]], [[left], [right]]
        axes.errorbar(x, y, up, side, color=INK, alpha=0.45, lw=0.7, capsize=1.5, zorder=1)
        area = 30 + 170 * magnitude(split["modelled"]["secure_ram_bytes"]) / largest
        face = colours.to_rgba(np.array([overhead]))[0]
        if chosen:
            axes.scatter(x, y, area + 150, facecolors="none", edgecolors=INK, linewidths=1.2, zorder=2)
        axes.scatter(x, y, area, color=[face], edgecolors=INK, linewidths=0.7, zorder=3)
        size = human(magnitude(split["modelled"]["secure_ram_bytes"]), "B")
        place = (math.sqrt(area) / 2 + (6 if chosen else 3), 6)
        axes.annotate(f"{number}: {size}", (x, y), place, textcoords="offset points", fontsize=7, zorder=4)
    _draw_bounds(axes, report, points)
    figure.legend(loc="outside upper center", ncols=2, fontsize=7)
    bar = figure.colorbar(colours, ax=axes, pad=0.02, aspect=30, shrink=0.95)
    bar.set_label("overhead [%], modelled")
    bar.outline.set_visible(False)
    axes.set_xlabel("stealing ratio to the black box, worst budget, 95 % CI")
    axes.set_ylabel("authorised accuracy [%], 95 % CI")
    axes.margins(x=0.22, y=0.16)
    return figure


def _draw_bounds(axes: Axes, report: Mapping[str, Any], points: Sequence[tuple[int, Any, float, float]]) -> None:
    bar = max(split["stealing"]["bar"] for _, split, _, _ in points)
    axes.axvline(bar, color=LINES[1], lw=1.1, ls=_DASHED, label=f"bar: {bar:g} times the black box")
    victim, least = fraction(report["victim_accuracy"]["value"]), accuracy_floor(report)
    if victim is not None:
        axes.axhline(100 * victim, color=INK, lw=0.9, label="the network itself")
    if least is not None:
        axes.axhline(100 * least, color=INK, lw=0.9, ls=_DASHED, label="least accuracy to be chosen")
    ends = [_no_shield(theft) for theft in points[0][1]["stealing"]["budgets"]]
    open_ = max((end for end in ends if end is not None), default=None)
    if open_ is not None and open_ <= _FAR * max(bar, *(x for _, _, x, _ in points)):
        axes.axvline(open_, color=INK, lw=0.9, ls=_DOTTED, label=f"no shield ({open_:.2f})")
    elif open_ is not None:
        axes.plot([], [], color=INK, lw=0.9, ls=_DOTTED, label=f"no shield ({open_:.2f}, outside)")


def _no_shield(theft: Mapping[str, Any]) -> float | None:
    top, bottom = fraction(theft["no_shield"]["value"]), fraction(theft["black_box"]["value"])
    return top / bottom if top is not None and bottom else None


def _colour_map() -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["YlGnBu"]([0.1 + 0.08 * step for step in range(10)]))


def stealing_plot(report: Mapping[str, Any]) -> str:
    """Return stolen accuracy over query budgets as SVG, between the black box and no shield; empty without splits."""
    shown = _shown(report, MAX_CURVES)
    if not shown:
        return ""
    title = f"Stolen accuracy over label queries for {len(shown)} splits, the black box and no shield"
    return draw(lambda: _stealing_figure(report, shown), "stealing", title)


def _shown(report: Mapping[str, Any], most: int) -> list[Numbered]:
    """Return the chosen split, then the others as numbered."""
    rows = [(i + 1, split) for i, split in enumerate(report["splits"])]
    return sorted(rows, key=lambda row: row[1]["name"] != report["chosen"])[:most]


def _stealing_figure(report: Mapping[str, Any], shown: Sequence[Numbered]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure = Figure(figsize=(WIDTH, 4.1), layout="constrained")
    axes = figure.add_subplot()
    reference = shown[0][1]["stealing"]["budgets"]
    _curve(axes, reference, "no_shield", {"color": INK, "ls": _DOTTED, "marker": "v"}, "no shield", 0.0)
    _curve(axes, reference, "black_box", {"color": INK, "ls": _DASHED, "marker": "s"}, "black box", 0.0)
    for place, ((number, split), colour) in enumerate(zip(shown, LINES, strict=False)):
        chosen = split["name"] == report["chosen"]
        name = label(number, split["name"], 20) + (" (chosen)" if chosen else "")
        style = {"color": colour, "ls": "-", "marker": "o", "lw": 2.0 if chosen else 1.2}
        _curve(axes, split["stealing"]["budgets"], "accuracy", style, name, 0.02 * (place + 1))
    victim = fraction(report["victim_accuracy"]["value"])
    if victim is not None:
        axes.axhline(100 * victim, color=INK, lw=0.9, label="the network itself")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([float(budget) for budget in report["budgets"]]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.1)
    axes.set_xlabel("label queries, logarithmic")
    axes.set_ylabel("accuracy of the stolen network [%], 95 % CI")
    figure.legend(loc="outside upper center", ncols=2, fontsize=7)
    return figure


def _curve(
    axes: Axes, thefts: Sequence[Mapping[str, Any]], key: str, style: Mapping[str, Any], name: str, aside: float
) -> None:
    found = [(t["budget"] * (1 + aside), t[key], fraction(t[key]["value"])) for t in thefts]
    known = [(x, estimate, value) for x, estimate, value in found if value is not None]
    spans = [span_of(estimate, value) for _, estimate, value in known]
    errors = [[100 * below for below, _ in spans], [100 * above for _, above in spans]]
    values = [100 * value for _, _, value in known]
    drawn = {"ms": 3.5, "lw": 1.2, "capsize": 2.0, "elinewidth": 0.8, "label": name, **style}
    axes.errorbar([x for x, _, _ in known], values, errors, **drawn)


def term_plot(report: Mapping[str, Any]) -> str:
    """Return the modelled time of every split by term as stacked bars, beside the unprotected network."""
    shown = [(i + 1, split) for i, split in enumerate(report["splits"])][:MAX_ROWS]
    if not shown:
        return ""
    title = f"Modelled time of one inference by term for {len(shown)} splits"
    return draw(lambda: _term_figure(shown), "terms", title)


def _term_figure(shown: Sequence[Numbered]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 1.7 + 0.33 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    scale, unit = _time_unit([magnitude(s["modelled"]["seconds_normal"]) for _, s in shown])
    for term, colour in zip(TERMS, LINES, strict=False):
        widths = [scale * magnitude(s["modelled"]["seconds"].get(term)) for _, s in shown]
        starts = [scale * _before(s["modelled"]["seconds"], term) for _, s in shown]
        axes.barh(range(len(shown)), widths, 0.6, starts, color=colour, label=TERMS[term])
    for name, mark, title in (("seconds_normal", "|", "unprotected"), ("seconds_total", "D", "record to answer")):
        times = [scale * magnitude(s["modelled"][name]) for _, s in shown]
        size = 13 if mark == "|" else 4.5
        axes.plot(times, range(len(shown)), mark, color=INK, ms=size, mew=1.4, ls="none", label=title)
    axes.set_yticks(range(len(shown)), [label(number, split["name"], 16) for number, split in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"time of one inference [{unit}], modelled")
    figure.legend(loc="outside upper center", ncols=2, fontsize=7)
    return figure


def _before(seconds: Mapping[str, Any], term: str) -> float:
    names = list(TERMS)
    return sum(magnitude(seconds.get(name)) for name in names[: names.index(term)])


def _time_unit(times: Sequence[float]) -> tuple[float, str]:
    largest = max(times, default=0.0)
    return (1.0, "s") if largest >= 1 else (1e3, "ms") if largest >= 1e-3 else (1e6, "us")
