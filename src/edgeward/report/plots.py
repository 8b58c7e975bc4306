"""The figures of a report: frontier, leakage, ROC and per-layer cost, drawn narrow so that a telephone can show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeward.core.units import human
from edgeward.report.svg import INK, draw, label
from edgeward.report.verdict import gap_attack
from edgeward.report.wording import finite, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = ("#3f87d0", "#d9662b", "#1f9e77", "#c264a4", "#b08a12", "#7a6fd0")
MAX_LINES = len(LINES)
MAX_BARS = 24
_WIDTH = 4.9
_LARGEST = 1e30


def _number(value: object) -> float | None:
    """Return a number that a figure's axes can hold."""
    number = finite(value)
    return None if number is None or abs(number) > _LARGEST else number


def _leakage(candidate: Mapping[str, Any]) -> float | None:
    strongest = candidate["strongest_attack"]
    return _number(strongest["tpr_at_1pct"]["value"]) if strongest else None


def _span(estimate: Mapping[str, Any], value: float) -> tuple[float, float]:
    low, high = interval(estimate)
    below = max(0.0, value - low) if low is not None else 0.0
    return min(below, 1.0), min(max(0.0, high - value) if high is not None else 0.0, 1.0)


def frontier_plot(report: Mapping[str, Any]) -> str:
    """Return accuracy over file size as SVG, coloured by leakage; empty where no candidate has both.

    Shapes: chosen = ringed star, on the frontier = diamond, feasible but dominated = circle, not feasible = square.
    """
    points = []
    for i, candidate in enumerate(report["candidates"]):
        accuracy, size = _number(candidate["test_accuracy"]), _number(candidate["cost"].get("file_bytes"))
        if accuracy is not None and size is not None and size > 0:
            points.append((i + 1, candidate, size / 1024, 100 * accuracy))
    if not points:
        return ""
    title = f"Test accuracy over file size of {len(points)} candidates, coloured by leakage"
    return draw(lambda: _frontier_figure(points), "frontier", title)


def _frontier_figure(points: Sequence[tuple[int, Mapping[str, Any], float, float]]) -> Figure:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    figure = Figure(figsize=(_WIDTH, 3.9), layout="constrained")
    axes = figure.add_subplot()
    leakages = [100 * (_leakage(c) or 0.0) for _, c, _, _ in points]
    colours = ScalarMappable(Normalize(0.0, max(5.0, *leakages)), _colour_map())
    for (_, candidate, x, y), leakage in zip(points, leakages, strict=True):
        below, above = _span(candidate["test_accuracy_estimate"], y / 100)
        axes.errorbar(x, y, [[100 * below], [100 * above]], color=INK, alpha=0.4, lw=0.7, capsize=1.5, zorder=1)
        shape, area = _shape(candidate)
        known = _leakage(candidate) is not None
        face = colours.to_rgba([leakage])[0] if known else "none"
        if candidate["chosen"]:
            axes.scatter(x, y, 210, marker="o", facecolors="none", edgecolors=INK, linewidths=1.1, zorder=2)
        axes.scatter(x, y, area, marker=shape, color=[face], edgecolors=INK, linewidths=0.7, zorder=3)
    axes.set_xscale("log")
    sizes = [x for _, _, x, _ in points]
    axes.set_xlim(min(sizes) / 1.6, max(sizes) * 1.9)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if max(sizes) / min(sizes) < 200 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("file size [KiB], measured")
    axes.set_ylabel("test accuracy [%], 95 % CI")
    bar = figure.colorbar(colours, ax=axes, pad=0.02, aspect=30, shrink=0.95)
    bar.set_label("TPR at 1 % FPR of the strongest attack [%]")
    bar.outline.set_visible(False)
    figure.draw_without_rendering()
    _place_labels(axes, points)
    return figure


def _colour_map() -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["plasma_r"]([0.02 + 0.098 * step for step in range(10)]))


def _shape(candidate: Mapping[str, Any]) -> tuple[str, int]:
    if candidate["chosen"]:
        return "*", 95
    if candidate["on_frontier"]:
        return "D", 32
    return ("o", 30) if candidate["feasible"] else ("s", 26)


def _place_labels(axes: Axes, points: Sequence[tuple[int, Mapping[str, Any], float, float]]) -> None:
    """Write "No.: leakage" beside each point, at the first of some offsets where it hits nothing."""
    centres = [axes.transData.transform((x, y)) for _, _, x, y in points]
    taken = [(cx - 6, cy - 6, cx + 6, cy + 6) for cx, cy in centres]
    frame = axes.get_window_extent().extents
    scale = axes.figure.dpi / 72
    for (number, candidate, x, y), (cx, cy) in zip(points, centres, strict=True):
        leakage = _leakage(candidate)
        text = f"{number}: {100 * leakage:.1f} %" if leakage is not None else f"{number}: not measured"
        width, height = 3.9 * len(text) * scale, 7.5 * scale
        dx, dy = _free_offset((cx, cy), (width, height), taken, frame, scale)
        taken.append((cx + dx, cy + dy - height / 2, cx + dx + width, cy + dy + height / 2))
        place = (dx / scale, dy / scale)
        axes.annotate(text, (x, y), place, textcoords="offset points", va="center", fontsize=7, zorder=4)


def _free_offset(
    centre: tuple[float, float],
    size: tuple[float, float],
    taken: Sequence[tuple[float, float, float, float]],
    frame: Sequence[float],
    scale: float,
) -> tuple[float, float]:
    (cx, cy), (width, height) = centre, size
    gap = 10 * scale
    rows = (0, 9, -9, 18, -18, 27, -27, 36, -36)
    offsets = [(x, row * scale) for row in rows for x in (gap, -gap - width)]
    best, fewest = offsets[0], math.inf
    for dx, dy in offsets:
        box = (cx + dx, cy + dy - height / 2, cx + dx + width, cy + dy + height / 2)
        hits = sum(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken)
        hits += 3 * (box[0] < frame[0] or box[2] > frame[2] or box[1] < frame[1] or box[3] > frame[3])
        if hits < fewest:
            best, fewest = (dx, dy), hits
    return best


def leakage_plot(report: Mapping[str, Any]) -> str:
    """Return the TPR at 1 % FPR of every candidate with its interval, beside the gap baseline; empty without attacks."""
    rows = [(i + 1, c) for i, c in enumerate(report["candidates"]) if _leakage(c) is not None]
    if not rows:
        return ""
    title = f"True-positive rate at 1 % false positives of the strongest attack on {len(rows)} candidates"
    return draw(lambda: _leakage_figure(rows[:MAX_BARS]), "leakage", title)


def _leakage_figure(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, 1.25 + 0.27 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for row, (_, candidate) in enumerate(rows):
        value = _leakage(candidate) or 0.0
        below, above = _span(candidate["strongest_attack"]["tpr_at_1pct"], value)
        colour = LINES[1] if candidate["chosen"] else LINES[0]
        span = [[100 * below], [100 * above]]
        axes.errorbar(100 * value, row, xerr=span, fmt="o", ms=4.5, color=colour, lw=1.4, capsize=2, zorder=3)
        gap = gap_attack(candidate)
        baseline = _number(gap["tpr_at_1pct"]["value"]) if gap else None
        if baseline is not None:
            axes.plot(100 * baseline, row, marker="|", ms=8, mew=1.4, color=INK, ls="none", zorder=2)
    axes.axvline(1.0, color=INK, lw=0.8, ls=(0, (3, 2)))
    axes.plot([], [], "o", color=LINES[1], ms=4.5, label="strongest attack, chosen")
    axes.plot([], [], "o", color=LINES[0], ms=4.5, label="strongest attack")
    axes.plot([], [], marker="|", ms=8, mew=1.4, ls="none", color=INK, label="gap baseline")
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
    """Return the log-log ROC of the strongest attack per candidate, with chance and resolution; empty without curves."""
    curves = roc_order(report)
    if not curves:
        return ""
    title = f"ROC on logarithmic axes of the strongest attack on {len(curves)} candidates"
    return draw(lambda: _roc_figure(curves), "roc", title)


def _roc_figure(curves: Sequence[tuple[int, Mapping[str, Any]]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, 4.7), layout="constrained")
    axes = figure.add_subplot()
    negatives = [max(1, c["strongest_attack"]["negatives"]) for _, c in curves]
    resolution = 1.0 / min(negatives)
    floor = min(1e-3, 10.0 ** math.floor(math.log10(1.0 / max(negatives))))
    for (number, candidate), colour in zip(curves, LINES, strict=False):
        roc = [(_number(a), _number(b)) for a, b in candidate["strongest_attack"]["roc"]]
        xs = [min(1.0, max(floor, a)) for a, b in roc if a is not None and b is not None]
        ys = [min(1.0, max(floor, b)) for a, b in roc if a is not None and b is not None]
        name = label(number, candidate["recipe"], 22) + (" (chosen)" if candidate["chosen"] else "")
        width = 2.0 if candidate["chosen"] else 1.1
        axes.plot(xs, ys, color=colour, lw=width, drawstyle="steps-post", label=name, zorder=3)
    axes.plot([floor, 1], [floor, 1], color=INK, lw=0.8, ls=(0, (3, 2)), label="chance: TPR = FPR")
    axes.axvspan(floor, resolution, color=INK, alpha=0.09, lw=0, label=f"below 1/{min(negatives):,} negatives")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(floor, 1)
    axes.set_ylim(floor, 1.15)
    axes.set_xlabel("false-positive rate (log)")
    axes.set_ylabel("true-positive rate (log)")
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    return figure


def layer_plot(candidate: Mapping[str, Any]) -> str:
    """Return weight bytes and MACs per layer as bars; the smallest layers are summed beyond 24; empty without layers."""
    rows = [(label_of(row), _number(row["weight_bytes"]) or 0.0, _number(row["macs"]) or 0.0) for row in candidate["layers"]]
    if not rows:
        return ""
    title = f"Weight bytes and multiply-accumulates of {len(rows)} layers of the chosen candidate"
    return draw(lambda: _layer_figure(_largest(rows)), "layers", title)


def label_of(layer: Mapping[str, Any]) -> str:
    """Return a layer's name as a figure can write it."""
    return label(0, layer["name"], 22)[2:] or "?"


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

    figure = Figure(figsize=(_WIDTH, 0.9 + 0.22 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, column, unit, name in ((left, 1, "B", "weights"), (right, 2, "MAC", "MACs per inference")):
        values = [row[column] for row in rows]
        axes.barh(range(len(rows)), values, height=0.62, color=LINES[0] if column == 1 else LINES[2])
        for i, value in enumerate(values):
            axes.annotate(human(value, unit), (value, i), (3, 0), textcoords="offset points", va="center", fontsize=6.5)
        axes.set_xlim(0, 1.5 * max(values) or 1.0)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.set_title(name)
    left.set_yticks(range(len(rows)), [row[0] for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    return figure
