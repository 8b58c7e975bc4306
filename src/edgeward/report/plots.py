"""The figures of leakage, ROC and per-layer cost, drawn narrow for telephones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeward.core.units import human
from edgeward.report.plotted import LINES, WIDTH, fraction, leakage_of, magnitude, span_of
from edgeward.report.svg import INK, draw, label
from edgeward.report.verdict import gap_attack, gap_point, gap_rate
from edgeward.report.wording import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LINES = len(LINES)
MAX_BARS = 24


def leakage_plot(report: Mapping[str, Any]) -> str:
    """Return every candidate's TPR at 1 % FPR with its interval, beside the gap baseline; empty without attacks."""
    rows = [(i + 1, c) for i, c in enumerate(report["candidates"]) if leakage_of(c) is not None]
    if not rows:
        return ""
    title = f"True-positive rate at 1 % false positives of the strongest attack on {len(rows)} candidates"
    return draw(lambda: _leakage_figure(rows[:MAX_BARS]), "leakage", title)


def _leakage_figure(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 1.25 + 0.27 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for row, (_, candidate) in enumerate(rows):
        value = leakage_of(candidate) or 0.0
        below, above = span_of(candidate["strongest_attack"]["tpr_at_1pct"], value)
        colour = LINES[1] if candidate["chosen"] else LINES[0]
        span = [[100 * below], [100 * above]]
        axes.errorbar(100 * value, row, xerr=span, fmt="o", ms=4.5, color=colour, lw=1.4, capsize=2, zorder=3)
        gap = gap_attack(candidate)
        baseline = fraction(gap_rate(gap)) if gap else None
        if baseline is not None:
            axes.plot(100 * baseline, row, marker="|", ms=8, mew=1.4, color=INK, ls="none", zorder=2)
    axes.axvline(1.0, color=INK, lw=0.8, ls=(0, (3, 2)))
    axes.plot([], [], "o", color=LINES[1], ms=4.5, label="strongest attack, chosen")
    axes.plot([], [], "o", color=LINES[0], ms=4.5, label="strongest attack")
    axes.plot([], [], marker="|", ms=8, mew=1.4, ls="none", color=INK, label="gap baseline, randomised to 1 % FPR")
    axes.plot([], [], color=INK, lw=0.8, ls=(0, (3, 2)), label="chance (1 %)")
    axes.set_yticks(range(len(rows)), [label(number, c["recipe"], 20) for number, c in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("TPR at 1 % FPR [%], 95 % CI, measured")
    figure.legend(loc="outside upper center", ncols=2, fontsize=7)
    return figure


def roc_order(report: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """Return the candidates whose ROC is drawn: the chosen one, then the frontier, then the others as numbered."""
    curves = [(i + 1, c) for i, c in enumerate(report["candidates"]) if c["strongest_attack"]]
    curves = [(n, c) for n, c in curves if len(c["strongest_attack"]["roc"]) > 1]
    curves.sort(key=lambda entry: (not entry[1]["chosen"], not entry[1]["on_frontier"], entry[0]))
    return curves[:MAX_LINES]


def roc_plot(report: Mapping[str, Any]) -> str:
    """Return the log-log ROC of the strongest attacks, with chance and resolution limit; empty without curves."""
    curves = roc_order(report)
    if not curves:
        return ""
    title = f"ROC on logarithmic axes of the strongest attack on {len(curves)} candidates"
    return draw(lambda: _roc_figure(curves), "roc", title)


def _roc_figure(curves: Sequence[tuple[int, Mapping[str, Any]]]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    figure = Figure(figsize=(WIDTH, 4.7), layout="constrained")
    axes = figure.add_subplot()
    negatives = [max(1, c["strongest_attack"]["negatives"]) for _, c in curves]
    resolution = 1.0 / min(negatives)
    floor = min(1e-3, 10.0 ** math.floor(math.log10(1.0 / max(negatives))))
    for (number, candidate), colour in zip(curves, LINES, strict=False):
        roc = [(fraction(a), fraction(b)) for a, b in candidate["strongest_attack"]["roc"]]
        xs = [min(1.0, max(floor, a)) for a, b in roc if a is not None and b is not None]
        ys = [min(1.0, max(floor, b)) for a, b in roc if a is not None and b is not None]
        name = label(number, candidate["recipe"], 22) + (" (chosen)" if candidate["chosen"] else "")
        width = 2.0 if candidate["chosen"] else 1.1
        axes.plot(xs, ys, color=colour, lw=width, drawstyle="steps-post", label=name, zorder=3)
    _draw_gap(axes, curves, floor)
    axes.plot([floor, 1], [floor, 1], color=INK, lw=0.8, ls=(0, (3, 2)), label="chance: TPR = FPR")
    axes.axvspan(floor, resolution, color=INK, alpha=0.09, lw=0, label=f"below 1/{min(negatives):,} negatives")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(floor, 1)
    axes.set_ylim(floor, 1.15)
    decades = [10.0**power for power in range(round(math.log10(floor)), 1)]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(decades))
        axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("false-positive rate, logarithmic")
    axes.set_ylabel("true-positive rate, logarithmic")
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    return figure


def _draw_gap(axes: Axes, curves: Sequence[tuple[int, Mapping[str, Any]]], floor: float) -> None:
    """Mark the one operating point of the gap attack on the chosen candidate."""
    gap = next((gap_attack(c) for _, c in curves if c["chosen"]), None)
    point = gap_point(gap) if gap else None
    false, true = (fraction(point[0]), fraction(point[1])) if point else (None, None)
    if false is not None and true is not None:
        place = [max(floor, false)], [max(floor, true)]
        axes.plot(*place, marker="X", ms=7, ls="none", color=LINES[0], mec=INK, mew=0.6, label="gap, chosen", zorder=4)


def layer_plot(candidate: Mapping[str, Any]) -> str:
    """Return weight bytes and MACs per layer as bars, beyond 24 layers the smallest summed; empty without layers."""
    rows = [(label_of(row), magnitude(row["weight_bytes"]), magnitude(row["macs"])) for row in candidate["layers"]]
    if not rows:
        return ""
    title = f"Weight bytes and multiply-accumulates of {len(rows)} layers of the chosen candidate"
    return draw(lambda: _layer_figure(_largest(rows)), "layers", title)


def label_of(layer: Mapping[str, Any]) -> str:
    """Return a layer's name as a figure can write it."""
    name = clean(layer["name"])
    return label(0, name if len(name) <= 22 else f"...{name[-19:]}", 22)[2:] or "?"


def _largest(rows: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    if len(rows) <= MAX_BARS:
        return list(rows)
    size, macs = sum(r[1] for r in rows) or 1.0, sum(r[2] for r in rows) or 1.0
    ranked = sorted(range(len(rows)), key=lambda i: -(rows[i][1] / size + rows[i][2] / macs))
    kept = set(ranked[: MAX_BARS - 1])
    others = [row for i, row in enumerate(rows) if i not in kept]
    rest = (f"{len(others)} others", sum(r[1] for r in others), sum(r[2] for r in others))
    return [row for i, row in enumerate(rows) if i in kept] + [rest]


def _layer_figure(rows: Sequence[tuple[str, float, float]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 0.9 + 0.22 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    columns = (
        (left, [row[1] for row in rows], "B", "weights", LINES[0]),
        (right, [row[2] for row in rows], "MAC", "MACs per inference", LINES[2]),
    )
    for axes, values, unit, name, colour in columns:
        axes.barh(range(len(rows)), values, height=0.62, color=colour)
        for i, value in enumerate(values):
            axes.annotate(human(value, unit), (value, i), (3, 0), textcoords="offset points", va="center", fontsize=6.5)
        axes.set_xlim(0, 1.5 * max(values) or 1.0)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.set_title(name)
    left.set_yticks(range(len(rows)), [row[0] for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    return figure
