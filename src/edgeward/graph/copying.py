"""A copy of a module that shares nothing with it, whatever its layers keep in their attributes."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from edgeward.core.errors import ModelError


def copied(module: nn.Module) -> nn.Module:
    """Return a deep copy of `module`; computed tensors that layers keep (old weight norm) are copied by value.

    Raises: `ModelError` for a module that cannot be copied.
    """
    memo: dict[int, Any] = {}
    for layer in module.modules():
        for value in vars(layer).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise ModelError(
            "the module cannot be copied",
            expected="a module that copy.deepcopy accepts",
            came=f"{type(error).__name__}: {first_line(error)}",
            fix="keep open files, locks, generators and the like out of the module's attributes",
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else "no message"
