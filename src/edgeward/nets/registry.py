"""The registry of reference networks."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from edgeward.core.registry import Registry

NETS: Registry[Callable[..., nn.Module]] = Registry("network")
