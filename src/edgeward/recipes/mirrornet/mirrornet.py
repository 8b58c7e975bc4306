"""`MirrorNet`: the system by name, with its presets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from edgeward.backends.tee.emulator import Emulator
from edgeward.core.cost import Cost
from edgeward.core.errors import ConfigError
from edgeward.core.progress import Watcher
from edgeward.core.randomness import Seed
from edgeward.data.splits import Splits
from edgeward.devices import DeviceProfile
from edgeward.graph.network import Network
from edgeward.graph.partition import stages
from edgeward.measure.siblings import Siblings
from edgeward.recipes.mirrornet.candidate import Stealing, public_network, split_siblings
from edgeward.recipes.mirrornet.generator import Found, Search, generate
from edgeward.recipes.mirrornet.proposals import copies_from
from edgeward.recipes.mirrornet.scoring import Limits
from edgeward.recipes.mirrornet.strategy import Strategy
from edgeward.recipes.recipe import RECIPES, Recipe, require
from edgeward.train.part import CrossEntropy, Schedule
from edgeward.train.population import Factory
from edgeward.train.task import Task, Trained
from edgeward.transforms.mirror.objective import PRESETS
from edgeward.transforms.mirror.plan import Block


@RECIPES.register("mirrornet")
@final
@dataclass(frozen=True)
class MirrorNet(Recipe):
    """Leave a backbone in the normal world, let a small monitor in the secure one give the answer.

    Preset "public" (default): the backbone is public and frozen, so that the normal world holds no private weight;
    its monitor copies the victim's later stages. Without a public backbone the whole network moves to the secure world.
    Presets "faithful" (the paper's wording: the backbone is `gap` less accurate) and "anti" (it fails) train the
    backbone; the gap they show says little about stealing, which the audit measures.

    `strategy` names a JSON file that is used instead of the preset's own monitor, `public` a `.safetensors` file with
    weights of the network to be protected that never saw its records. As a recipe of `protect` it trains every sibling
    and splits it with that sibling's own records; the device needs a secure world. `queries` are label budgets joined
    by commas: with any, the shipped split is stolen from by so many `attackers`, each training for `attack_steps`;
    without, nobody knows whether the function is confidential, and the report says so. `query_limit` is how many
    inferences a device answers (0: any number). `schedule` is that of both trainings.
    Source: Liu, Luo, Duan, Zhou, Xu, MirrorNet, ICCAD 2023 (abstract); blocks, losses and overhead are a design of ours
    after it. `public` after Zhang et al., TEESlice, S&P 2024 (partition before training).
    """

    slug: ClassVar[str] = "mirrornet"
    aimed_at: ClassVar[str] = "mislabelled"
    summary: ClassVar[str] = "backbone outside, companion monitor in the secure world: public | faithful | anti"
    paper: ClassVar[str] = "Liu, Luo, Duan, Zhou, Xu, ICCAD 2023, arXiv 2311.09489"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"preset": name} for name in PRESETS}
    expected: ClassVar[tuple[str, ...]] = (
        "accuracy(authorised) - accuracy(direct use) >= 18.6 points (faithful)",
        "stolen accuracy <= 1.05 times the black-box level (public)",
    )

    preset: str = "public"
    transfer: str = "batch"
    gap: float = 0.2
    flips: bool = True
    strategy: str = ""
    public: str = ""
    queries: str = ""
    attackers: int = 3
    attack_steps: int = 200
    query_limit: int = 0
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        require(
            self.slug,
            preset_public_faithful_or_anti=self.preset in PRESETS,
            transfer_stream_or_batch=self.transfer in ("stream", "batch"),
            gap_from_0_to_1=0 < self.gap < 1,
            queries_whole_numbers_of_at_least_2_joined_by_commas=all(
                part.isdecimal() and int(part) >= 2 for part in self._queries()
            ),
            attackers_and_attack_steps_at_least_1=min(self.attackers, self.attack_steps) >= 1,
            query_limit_at_least_0=self.query_limit >= 0,
        )

    def _queries(self) -> list[str]:
        return [part.strip() for part in self.queries.split(",")] if self.queries else []

    @property
    def stealing(self) -> Stealing | None:
        """The audit that the settings ask for."""
        budgets = tuple(sorted({int(part) for part in self._queries()}))
        return Stealing(budgets, self.attackers, self.attack_steps) if budgets else None

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

    def run(self, task: Task) -> Trained:
        """Train the networks that `lower` splits."""
        context = task.context(task.factory, "victim", self.schedule)
        population, claims = task.stage("victim", task.initialise(task.factory), context, [CrossEntropy()])
        return Trained(population, task.factory, claims)

    def foresee(self, factory: Factory, input_shape: tuple[int, ...], device: DeviceProfile, seed: Seed) -> Cost:
        """Return nothing: what a split costs is known after calibration. Raises where `device` has no secure world."""
        Emulator(device)
        return Cost()

    def lower(self, trained: Trained, task: Task, splits: Splits, device: DeviceProfile) -> Siblings:
        """Split every sibling in two worlds, as `split_siblings` does."""
        task = task if self.schedule is None else replace(task, schedule=self.schedule)
        public = public_network(self._state(), task) if self.public else None
        return split_siblings(
            trained,
            task,
            lambda victim: self.default(victim, public=public is not None),
            public,
            splits,
            Emulator(device),
            stealing=self.stealing,
            query_limit=self.query_limit or None,
        )

    def context(self) -> dict[str, str]:
        """Return the digests of the strategy and of the public weights, where files hold them."""
        files = {"strategy": self.strategy, "public": self.public}
        return {name: hashlib.sha256(_content(path)).hexdigest() for name, path in files.items() if path}

    def _state(self) -> dict[str, Tensor]:
        try:
            return load(_content(self.public))
        except SafetensorError as error:
            raise ConfigError(
                "the public weights cannot be read", expected="a .safetensors file", came=str(error)[:200]
            ) from None

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


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError("a file of the recipe cannot be read", came=f"{path}: {error.strerror}") from None
