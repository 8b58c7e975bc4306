"""The frontier figure: accuracy over file size, coloured and labelled by leakage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeward.report.plotted import WIDTH, fraction, leakage_of, magnitude, span_of
from edgeward.report.svg import INK, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def frontier_plot(report: Mapping[str, Any]) -> str:
    """Return accuracy over file size as SVG, coloured by leakage; empty where no candidate has both.

    Shapes: chosen = ringed star, on the frontier = diamond, feasible but dominated = circle, not feasible = square.
    """
    points = []
    for i, candidate in enumerate(report["candidates"]):
        accuracy, size = fraction(candidate["test_accuracy"]), magnitude(candidate["cost"].get("file_bytes"))
        if accuracy is not None and size >= 1:
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

    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.add_subplot()
    leakages = [100 * (leakage_of(c) or 0.0) for _, c, _, _ in points]
    colours = ScalarMappable(Normalize(0.0, max(5.0, *leakages)), _colour_map())
    for (_, candidate, x, y), leakage in zip(points, leakages, strict=True):
        below, above = span_of(candidate["test_accuracy_estimate"], y / 100)
        axes.errorbar(x, y, [[100 * below], [100 * above]], color=INK, alpha=0.4, lw=0.7, capsize=1.5, zorder=1)
        shape, area = _shape(candidate)
        known = leakage_of(candidate) is not None
        face = colours.to_rgba(np.array([leakage]))[0] if known else "none"
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

    return ListedColormap(colormaps["YlOrRd"]([0.12 + 0.088 * step for step in range(10)]))


def _shape(candidate: Mapping[str, Any]) -> tuple[str, int]:
    if candidate["chosen"]:
        return "*", 95
    if candidate["on_frontier"]:
        return "D", 32
    return ("o", 30) if candidate["feasible"] else ("s", 26)


def _place_labels(axes: Axes, points: Sequence[tuple[int, Mapping[str, Any], float, float]]) -> None:
    """Write "No.: leakage" beside each point, at the first of some offsets where it hits nothing."""
    centres = [tuple(map(float, axes.transData.transform((x, y)))) for _, _, x, y in points]
    taken = [(cx - 6, cy - 6, cx + 6, cy + 6) for cx, cy in centres]
    frame = [float(edge) for edge in axes.get_window_extent().extents]
    scale = axes.figure.dpi / 72
    for (number, candidate, x, y), (cx, cy) in zip(points, centres, strict=True):
        leakage = leakage_of(candidate)
        text = f"{number}: {100 * leakage:.1f} %" if leakage is not None else f"{number}: not measured"
        width, height = 3.9 * len(text) * scale, 7.5 * scale
        dx, dy = _free_offset((cx, cy), (width, height), taken, frame, scale)
        taken.append((cx + dx, cy + dy - height / 2, cx + dx + width, cy + dy + height / 2))
        place = (dx / scale, dy / scale)
        axes.annotate(text, (x, y), place, textcoords="offset points", va="center", fontsize=7, zorder=4)


def _free_offset(
    centre: Sequence[float],
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
