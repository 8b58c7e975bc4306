"""`Failure`: a candidate that was not measured, and why, without what must not leave the house."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, field
from typing import final

from edgeward.core.errors import EdgewardError

LONGEST = 300
"""Characters of an unforeseen error's message that are kept."""
FEW = 8
"""Whole numbers in brackets that are a shape; more, or any fraction, may be the values of a record."""
_CLOSED = r"[\])](?:\s*[\])])*"
_BRACKETS = re.compile(
    r"(?:(?:tensor|array)\s*)?[(\[][\[(\s]*[-+]?(?:\d|nan|inf)[^\])]*"
    rf"(?:{_CLOSED}(?:\s*,\s*[(\[]+[^\])]*{_CLOSED})*|$)",
    re.IGNORECASE,
)
_PATH = re.compile(r"(?:(?<=[\s'\"(=])|^)(?:~|[A-Za-z]:)?[/\\](?:[^\s'\":,;()]+[/\\])+")


@final
@dataclass(frozen=True)
class Failure:
    """A candidate that was not measured, and why.

    `internal` tells an error that nobody foresaw from a refusal; its `trace` stays in this process.
    """

    recipe: str
    reason: str
    internal: bool = False
    trace: str = field(default="", repr=False, compare=False)

    @classmethod
    def of(cls, recipe: str, error: Exception) -> Failure:
        """Record what a recipe raised; of an unforeseen error its kind and the first line of its message.

        Guarantee: numbers that may be a record's and paths of this machine are cut from unforeseen messages (by their
        form: brackets with many numbers or fractions, and absolute paths); the trace is text and keeps no tensor alive.
        """
        if isinstance(error, EdgewardError) and error.exit_code != EdgewardError.exit_code:
            return cls(recipe, str(error))
        trace = "".join(traceback.format_exception(error))
        return cls(recipe, f"internal error: {type(error).__name__}: {spoken(error)}", True, trace)

    @property
    def short(self) -> str:
        """The first line of the reason."""
        return self.reason.splitlines()[0]

    def to_json(self) -> dict[str, str]:
        """Return the plain form."""
        return {"recipe": self.recipe, "reason": self.reason}


def spoken(error: Exception) -> str:
    """Return the first line of a message without values and paths.

    >>> spoken(ValueError("got [1, 16, 1, 1] of tensor([0.25, 0.5]) in /home/me/net.py"))
    'got [1, 16, 1, 1] of [...] in net.py'
    """
    try:
        text = str(error)
    except Exception:  # a message that cannot be made must not hide its error
        text = ""
    lines = [line.strip() for line in _printable(text).splitlines() if line.strip()]
    return _PATH.sub("", _BRACKETS.sub(_elided, lines[0]))[:LONGEST] if lines else "no message"


def _printable(text: str) -> str:
    return "".join(c if c == "\n" or c.isprintable() else " " for c in text)


def _elided(found: re.Match[str]) -> str:
    numbers = re.findall(r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)", found[0], re.IGNORECASE)
    whole = all(re.fullmatch(r"[-+]?\d+", number) for number in numbers)
    return found[0] if whole and len(numbers) <= FEW else "[...]"
