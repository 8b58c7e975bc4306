"""Progress events: what long work tells whoever watches; the command line turns them into bars or lines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final


class Watcher(ABC):
    """Receives events of long work; implementations must not raise."""

    @abstractmethod
    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """`task` has finished `done` of `total` steps."""

    @abstractmethod
    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Something worth logging happened; `fields` are plain JSON values and never hold records."""


@final
class Silent(Watcher):
    """Ignores everything."""

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Do nothing."""

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Do nothing."""
