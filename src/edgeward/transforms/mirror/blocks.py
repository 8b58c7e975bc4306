"""The blocks of a monitor: adapters into it, steps between resolutions, and what each kind computes."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeward.core.errors import ModelError


def normed(inputs: int, outputs: int, kernel: int = 1, *, groups: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the sides, and its batch normalisation."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


@final
class Adapter(nn.Module):
    """BN(Conv1x1(tap)), or BN(Linear(tap)) for a vector."""

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        """Create the projection of a tap of `shape` to `width` channels."""
        super().__init__()
        vector = nn.Sequential(nn.Linear(shape[0], width, bias=False), nn.BatchNorm1d(width))
        self.project = normed(shape[0], width) if len(shape) == 3 else vector

    def forward(self, tap: Tensor) -> Tensor:
        """Return the projected tap."""
        projected: Tensor = self.project(tap)
        return projected


@final
class Down(nn.Module):
    """The result of the block before, brought to the shape of the next: max pooling, and a 1x1 where widths differ."""

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        """Create the step from shape `before` to `after`; tokens [T, D] count as images [D, T, 1].

        Raises `ModelError` where `after` is larger, or no pooling gives its sides.
        """
        super().__init__()
        self.tokens = len(before) == 2
        source = (before[1], before[0], 1) if self.tokens else before
        self.window = _window(source[1:], after[1:]) if len(source) == len(after) == 3 else None
        self.collapse = len(source) == 3 and len(after) == 1
        if len(after) > len(source):
            raise _no_step(before, after)
        vector = nn.Linear(source[0], after[0]) if source[0] != after[0] else nn.Identity()
        image = normed(source[0], after[0]) if source[0] != after[0] else nn.Identity()
        self.widen = image if len(after) == 3 else vector

    def forward(self, x: Tensor) -> Tensor:
        """Return x in the next block's shape."""
        if self.tokens:
            x = x.transpose(1, 2).unsqueeze(-1)
        if self.window is not None:
            kernel, stride, padding = self.window
            x = F.max_pool2d(x, kernel, stride, padding)
        if self.collapse:
            x = x.mean((2, 3))
        widened: Tensor = self.widen(x)
        return widened


def _window(
    before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None:
    """Return (kernel, stride, padding) of the smallest max pooling from one pair of sides to another."""
    if before == after:
        return None
    sides = [_side(b, a) for b, a in zip(before, after, strict=True)]
    (k0, s0, p0), (k1, s1, p1) = sides
    return (k0, k1), (s0, s1), (p0, p1)


def _side(before: int, after: int) -> tuple[int, int, int]:
    if before >= after:
        for stride in range(max(1, before // after), before + 1):
            for kernel in range(stride, 2 * stride + 1):
                for padding in range(kernel // 2 + 1):
                    if (before + 2 * padding - kernel) // stride + 1 == after:
                        return kernel, stride, padding
    raise _no_step((before,), (after,))


def _no_step(before: tuple[int, ...], after: tuple[int, ...]) -> ModelError:
    return ModelError(
        "a block of the monitor cannot follow the one before it",
        expected=f"a tap no larger than {before}",
        came=f"{after}",
        fix="pool later taps at least as much as earlier ones",
    )


@final
class Mirrored(nn.Module):
    """z = Adapter(tap) + Down(previous); the block's result is its kind's body on z."""

    def __init__(self, kind: str, width: int, tap: tuple[int, ...], before: tuple[int, ...] | None) -> None:
        """Create the block for a tap of shape `tap` after a block whose result has shape `before`."""
        super().__init__()
        self.shape = (width, *tap[1:])
        self.adapter = Adapter(tap, width)
        self.down = None if before is None else Down(before, self.shape)
        self.body = _body(kind, width)

    def forward(self, tap: Tensor, previous: Tensor | None) -> Tensor:
        """Return the block's result."""
        z = self.adapter(tap)
        if self.down is not None and previous is not None:
            z = z + self.down(previous)
        result: Tensor = self.body(torch.relu(z))
        return result


def _body(kind: str, width: int) -> nn.Module:
    if kind == "dwsep":
        depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        return nn.Sequential(depthwise, *normed(width, width), nn.ReLU())
    if kind == "conv3":
        return nn.Sequential(*normed(width, width, 3), nn.ReLU())
    return Ghost(width) if kind == "ghost" else nn.Identity()


@final
class Ghost(nn.Module):
    """Half of the channels from a 1x1, the other half from a depthwise 3x3 of the first.

    Source: Han et al., GhostNet, arXiv 1911.11907, section 3.1 (ratio 2).
    """

    def __init__(self, width: int) -> None:
        """Create the block; an odd width has one channel more from the 1x1."""
        super().__init__()
        cheap = width // 2
        self.primary = nn.Sequential(*normed(width, width - cheap), nn.ReLU())
        self.cheap = nn.Sequential(*normed(cheap, cheap, 3, groups=cheap), nn.ReLU()) if cheap else None
        self.count = cheap

    def forward(self, x: Tensor) -> Tensor:
        """Return both halves."""
        first: Tensor = self.primary(x)
        return first if self.cheap is None else torch.cat([first, self.cheap(first[:, : self.count])], 1)
