"""Optional dependencies: loaded only when used, with the install command when missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from edgeward.core.errors import MissingExtra


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtra` naming the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(module.split(".")[0], extra) from error
