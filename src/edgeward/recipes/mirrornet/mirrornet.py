"""`MirrorNet`: the system by name, with its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from edgeward.backends.tee.emulator import Emulator
from edgeward.core.progress import Watcher
from edgeward.graph.network import Network
from edgeward.graph.partition import stages
from edgeward.recipes.mirrornet.generator import Found, Search, generate
from edgeward.recipes.mirrornet.mirroring import Mirrored, mirror
from edgeward.recipes.mirrornet.proposals import copies_from
from edgeward.recipes.mirrornet.scoring import Limits
from edgeward.recipes.mirrornet.strategy import Strategy
from edgeward.recipes.recipe import require
from edgeward.train.task import Task
from edgeward.transforms.mirror.objective import PRESETS
from edgeward.transforms.mirror.plan import Block


@final
@dataclass(frozen=True)
class MirrorNet:
    """Leave a backbone in the normal world, let a small monitor in the secure one give the answer.

    Preset "public" (default): the backbone is public and frozen, so that the normal world holds no private weight;
    its monitor copies the victim's later stages. Without a public backbone the whole network moves to the secure world.
    Presets "faithful" (the paper's wording: the backbone is `gap` less accurate) and "anti" (it fails) train the
    backbone; the gap they show says little about stealing, which the audit measures.

    `strategy` names a JSON file that is used instead of the preset's own monitor.
    Source: Liu, Luo, Duan, Zhou, Xu, MirrorNet, ICCAD 2023 (abstract); blocks, losses and overhead are a design of ours
    after it. `public` after Zhang et al., TEESlice, S&P 2024 (partition before training).
    """

    slug: ClassVar[str] = "mirrornet"
    summary: ClassVar[str] = "backbone outside, companion monitor in the secure world: public | faithful | anti"
    paper: ClassVar[str] = "Liu, Luo, Duan, Zhou, Xu, ICCAD 2023, arXiv 2311.09489"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"preset": name} for name in PRESETS}
    expected: ClassVar[tuple[str, ...]] = (
        "accuracy(authorised) - accuracy(direct use) >= 18.6 points (faithful)",
        "stolen accuracy <= 1.05 times the black-box level (public)",
    )

    preset: str = "public"
    transfer: str = "stream"
    gap: float = 0.2
    flips: bool = True
    strategy: str = ""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        require(
            self.slug,
            preset_public_faithful_or_anti=self.preset in PRESETS,
            transfer_stream_or_batch=self.transfer in ("stream", "batch"),
            gap_from_0_to_1=0 < self.gap < 1,
        )

    def default(self, victim: Network, *, public: bool) -> Strategy:
        """Return the strategy of the settings for `victim`: no search, no training.

        "public": copies of every stage but the first, which is the public backbone's; of all stages without one. Else a
        1x1 block of half the channels (8 to 64) on every stage.
        """
        if self.strategy:
            return Strategy.read(Path(self.strategy))
        at = stages(victim)
        if self.preset == "public":
            first = 2 if public and len(at) > 2 else 1
            blocks = copies_from(first, at, foreign=True)
        else:
            channels = [cut.shape[-1] if len(cut.shape) == 2 else cut.shape[0] for cut in at]
            blocks = tuple(Block(k, "pw", min(64, max(8, channels[k] // 2))) for k in range(1, len(at)))
        name = f"{self.slug}-{self.preset}"
        return Strategy(name, blocks, self.preset, transfer=self.transfer, gap=self.gap, flips=self.flips)

    def run(self, victim: Network, task: Task, *, public: Network | None = None) -> Mirrored:
        """Mirror `victim` with the default strategy, as `mirror` does."""
        return mirror(victim, self.default(victim, public=public is not None), task, public=public)

    def search(
        self,
        victim: Network,
        task: Task,
        emulator: Emulator,
        limits: Limits,
        *,
        workdir: Path,
        public: Network | None = None,
        search: Search | None = None,
        watcher: Watcher | None = None,
    ) -> tuple[Found, ...]:
        """Let the strategy generator choose, as `generate` does."""
        base = self.default(victim, public=public is not None)
        settings = {"workdir": workdir, "public": public, "search": search, "watcher": watcher}
        return generate(victim, base, task, emulator, limits, **settings)  # type: ignore[arg-type]
