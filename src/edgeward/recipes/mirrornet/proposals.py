"""Strategies to try: every subset of stages, and small changes of a good one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from edgeward.graph.partition import Cut
from edgeward.recipes.mirrornet.strategy import Strategy
from edgeward.transforms.mirror.plan import COPIES, POOLS, Block

WIDTHS = (4, 8, 12, 16, 24, 32, 48, 64)
MIRRORED = ("pw", "dwsep", "conv3", "ghost")


def every_subset(
    at: Sequence[Cut], base: Strategy, widths: Sequence[int], kinds: Sequence[str] = MIRRORED
) -> Iterator[Strategy]:
    """Yield a strategy for each subset of stages, uniform width and kind, and for each suffix of copied stages."""
    last = len(at) - 1
    for first in range(1, last + 1):
        yield _named(replace(base, blocks=copies_from(first, at, foreign=base.preset == "public")))
    for count in range(1, last + 1):
        for subset in combinations(range(1, last + 1), count):
            for kind in kinds:
                for width in widths:
                    blocks = tuple(_fitting(Block(stage, kind, width), at) for stage in subset)
                    yield _named(replace(base, blocks=blocks))


def copies_from(first: int, at: Sequence[Cut], *, foreign: bool, kind: str = "adapted") -> tuple[Block, ...]:
    """Return copies of stage `first` and all later ones; `foreign` features pass `kind` where that is possible."""
    adapted = foreign and first > 1 and len(at[first - 1].shape) != 2
    later = (Block(stage, "stage") for stage in range(first + 1, len(at)))
    return (Block(first, kind if adapted else "stage"), *later)


def changed(strategy: Strategy, at: Sequence[Cut], rng: np.random.Generator) -> Strategy:
    """Return `strategy` with one thing changed at random: a stage in or out, a kind, a width, a pool, the head."""
    blocks = [block for block in strategy.blocks if block.kind not in COPIES]
    if not blocks:
        blocks = [_fitting(Block(len(at) - 1, "dwsep", 16), at)]
    choice = rng.choice(["tap", "kind", "width", "pool", "head"], p=[0.25, 0.25, 0.3, 0.1, 0.1])
    place = int(rng.integers(len(blocks)))
    block = blocks[place]
    if choice == "tap":
        free = sorted(set(range(len(at))) - {b.stage for b in blocks})
        if len(blocks) > 1 and (not free or rng.random() < 0.5):
            blocks.pop(place)
        elif free:
            stage = int(rng.choice(free))
            blocks = sorted([*blocks, _fitting(Block(stage, block.kind, block.width), at)], key=lambda b: b.stage)
    elif choice == "kind":
        blocks[place] = _fitting(replace(block, kind=str(rng.choice(MIRRORED))), at)
    elif choice == "width":
        blocks[place] = replace(block, width=int(rng.choice(WIDTHS)))
    elif choice == "pool":
        blocks[place] = _fitting(replace(block, pool=int(rng.choice(POOLS))), at)
    residual = strategy.preset != "public" and strategy.head == "replace"
    head = ("residual" if residual else "replace") if choice == "head" else strategy.head
    return _named(replace(strategy, blocks=tuple(blocks), head=head))


def _fitting(block: Block, at: Sequence[Cut]) -> Block:
    """Return the block as its tap allows: vectors take 1x1 only, and nothing but an image is pooled."""
    rank = len(at[block.stage].shape)
    return replace(block, kind="pw" if rank == 1 else block.kind, pool=block.pool if rank == 3 else 1)


def _named(strategy: Strategy) -> Strategy:
    blocks = "_".join(f"{b.stage}{b.kind}{b.width or ''}{f'p{b.pool}' if b.pool > 1 else ''}" for b in strategy.blocks)
    return strategy.renamed(f"{strategy.preset}-{blocks}{'-residual' if strategy.head == 'residual' else ''}")
