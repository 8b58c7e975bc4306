"""`MonitorPlan`: which values of the backbone a monitor watches, and what it computes from each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

from edgeward.core.errors import ConfigError
from edgeward.graph.partition import Cut

Kind = Literal["pw", "dwsep", "conv3", "ghost", "stage", "adapted", "mixed"]
Head = Literal["replace", "residual"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HEADS: tuple[Head, ...] = get_args(Head)
POOLS = (1, 2, 4)
COPIES = ("stage", "adapted", "mixed")


@final
@dataclass(frozen=True)
class Block:
    """One block of a monitor; it mirrors stage `stage` of the backbone.

    `kind`: "pw" (1x1), "dwsep" (1x1, depthwise 3x3, 1x1), "conv3" (1x1, full 3x3) and "ghost" (1x1, half of the
    channels from a depthwise 3x3) watch the stage's result (stage 0: the network's input); "stage" is a copy of the
    victim's own stage and reads what that stage reads: the block before it where that is the copy of the stage before,
    else the backbone; "adapted" is such a copy behind a 3x3 convolution that turns the backbone's features into the
    victim's (a linear layer for vectors), "mixed" behind a 1x1 convolution, which costs a ninth. `width` counts the
    channels of the block (0 for copies); `pool` divides the sides of the tap before it leaves the normal world.
    """

    stage: int
    kind: str
    width: int = 0
    pool: int = 1


@final
@dataclass(frozen=True)
class Tap:
    """One value that is handed over: the cut it is, pooled; `native` taps keep their layout (they feed a stage)."""

    cut: int
    pool: int
    native: bool


@final
@dataclass(frozen=True)
class MonitorPlan:
    """The blocks of a monitor in order, and its head.

    `head` "replace": the monitor answers alone. "residual": its answer corrects the backbone's own logits, which are
    handed over too.

    >>> MonitorPlan((Block(1, "pw", 8), Block(3, "dwsep", 16))).taps
    (Tap(cut=1, pool=1, native=False), Tap(cut=3, pool=1, native=False))
    """

    blocks: tuple[Block, ...]
    head: str = "replace"

    def __post_init__(self) -> None:
        """Refuse plans that no network could have; all problems in one error."""
        problems = [p for number in range(len(self.blocks)) for p in self._block_problems(number)]
        problems += [] if self.blocks else ["no block: the monitor would see nothing"]
        problems += [] if self.head in HEADS else [f"head '{self.head}': expected one of {', '.join(HEADS)}"]
        if problems:
            raise ConfigError("this monitor cannot be built:\n    " + "\n    ".join(problems))

    def _block_problems(self, number: int) -> list[str]:
        block, where = self.blocks[number], f"block {number + 1}"
        found = [] if block.kind in KINDS else [f"{where}: kind '{block.kind}', expected one of {', '.join(KINDS)}"]
        found += [] if block.pool in POOLS else [f"{where}: pool {block.pool}, expected one of {POOLS}"]
        if number and block.stage <= self.blocks[number - 1].stage:
            found.append(f"{where}: stage {block.stage} after stage {self.blocks[number - 1].stage}")
        if block.kind in COPIES:
            found += [] if block.stage >= 1 else [f"{where}: stage 0 is the input and cannot be copied"]
            found += [] if not block.width and block.pool == 1 else [f"{where}: a copy has no width and no pool"]
            if number and not self.chained(number):
                found.append(f"{where}: a copy comes first or right after the copy of stage {block.stage - 1}")
        elif block.width < 1 or block.stage < 0:
            found.append(f"{where}: stage {block.stage}, width {block.width}; expected stage >= 0 and width >= 1")
        return found

    def chained(self, number: int) -> bool:
        """Return whether block `number` copies a stage and reads the copy of the stage before it."""
        if not number or self.blocks[number].kind != "stage":
            return False
        before = self.blocks[number - 1]
        return before.kind in COPIES and before.stage == self.blocks[number].stage - 1

    def tap(self, number: int) -> Tap | None:
        """Return what block `number` reads from the backbone, None where it reads the block before it alone."""
        block = self.blocks[number]
        if self.chained(number):
            return None
        native = block.kind in COPIES
        return Tap(block.stage - 1 if native else block.stage, block.pool, native)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Everything that is handed over, in order; the backbone's logits of a residual head come after these."""
        return tuple(tap for number in range(len(self.blocks)) if (tap := self.tap(number)) is not None)

    @property
    def copies_all_after(self) -> int | None:
        """The cut after which the monitor is the victim itself (every block a copy), None where it is not."""
        return self.blocks[0].stage - 1 if all(block.kind in COPIES for block in self.blocks) else None

    def fits(self, at: Sequence[Cut]) -> list[str]:
        """Return why this plan does not fit a network divided at `at`; nothing where it does."""
        last = len(at) - 1
        found = [f"stage {b.stage} of {last}" for b in self.blocks if b.stage > last]
        if found:
            return found
        sides = [tap_shape(at[tap.cut].shape, tap) for tap in self.taps]
        for tap, shape in zip(self.taps, sides, strict=True):
            full = at[tap.cut].shape
            if 0 in shape:
                found.append(f"cut {tap.cut} of shape {full} cannot be pooled by {tap.pool}")
            if tap.pool > 1 and len(full) != 3:
                found.append(f"cut {tap.cut} of shape {full} has no sides to pool")
        vectors = [b for b in self.blocks if b.kind not in ("pw", *COPIES) and len(at[b.stage].shape) == 1]
        return found + [f"kind '{b.kind}' at cut {b.stage}, a vector: only 'pw' and copies fit" for b in vectors]


def tap_shape(shape: tuple[int, ...], tap: Tap) -> tuple[int, ...]:
    """Return the shape a tap has when it arrives: pooled images [C, H, W], tokens [T, D] as [D, T, 1], vectors [F].

    >>> tap_shape((16, 9, 9), Tap(1, 2, False)), tap_shape((17, 64), Tap(1, 1, False))
    ((16, 4, 4), (64, 17, 1))
    """
    if tap.native:
        return shape
    if len(shape) == 2:
        return (shape[1], shape[0], 1)
    return (shape[0], shape[1] // tap.pool, shape[2] // tap.pool) if len(shape) == 3 else shape
