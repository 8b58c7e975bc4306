"""Figures to inline SVG: the same bytes on every run, no text from outside, the page's own ink colour."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# One colour that no figure uses otherwise; it becomes `currentColor`, so that a figure follows the page's theme.
INK = "#12345f"

_STYLE: dict[str, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "edgeward",
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "path.simplify": True,
}


def draw(build: Callable[[], Figure], name: str, title: str) -> str:
    """Return the figure that `build` makes as one inline `<svg>` element.

    Arguments: `name`, a word that keeps element ids apart on one page; `title`, plain text read out instead of the
    figure (the caller's own words: it is escaped, not checked).
    Guarantee: equal figures give equal bytes; no metadata, comments, style sheets, scripts, links or name spaces.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for setting, value in _STYLE.items():
            matplotlib.rcParams[setting] = value  # type: ignore[index]
        stream = io.StringIO()
        build().savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(stream.getvalue(), name, title)


def _inline(text: str, name: str, title: str) -> str:
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*</defs>", "", body)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = body.replace(INK, "currentColor")
    body = re.sub(r"\n\s*", "\n", body)
    opening = body[: body.index(">") + 1]
    box = re.search(r'viewBox="([^"]+)"', opening)
    escaped = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    new = f'<svg class="figure" viewBox="{box.group(1) if box else ""}" role="img" aria-label="{escaped}">'
    return new + body[len(opening) :].strip()


def label(number: int, text: str, width: int = 26) -> str:
    """Return `No. name` with every character a figure's font may lack or misread replaced by '?'.

    >>> label(2, "gecko:paper<script>")
    '2 gecko:paper?script?'
    """
    kept = re.sub(r"[^A-Za-z0-9 :._+()/=,-]", "?", text)
    return f"{number} {kept if len(kept) <= width else kept[: width - 3] + '...'}".strip()
