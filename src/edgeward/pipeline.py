"""One candidate from recipe to stored bundle: train siblings, lower them, measure, write."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from edgeward.core.candidate import Candidate, canonical_json
from edgeward.core.cost import Cost
from edgeward.core.frontier import Measured
from edgeward.core.measurement import Measurement
from edgeward.core.progress import Watcher
from edgeward.core.randomness import Seed
from edgeward.core.record_kind import EXPOSED
from edgeward.core.threat import MembershipInference
from edgeward.data.splits import Splits
from edgeward.deploy import Vectors, synthetic_vectors, write_bundle
from edgeward.devices import DeviceProfile
from edgeward.evidence import Evidence
from edgeward.graph import Network
from edgeward.measure.evaluate import evaluate
from edgeward.measure.exposure import most_exposed
from edgeward.measure.membership_design import MembershipDesign, design
from edgeward.measure.siblings import Siblings
from edgeward.recipes import Recipe
from edgeward.search import Proposal, Store
from edgeward.split_export import store_split
from edgeward.train.part import Schedule
from edgeward.train.population import Factory
from edgeward.train.task import Task

FORMAT = 2
"""Raise when the meaning of a stored measurement changes: old entries are then measured again."""


def architecture_digest(network: Network) -> str:
    """Return the SHA-256 of a network's structure, without its weights."""
    shape = [
        [n.layer, n.operator, list(n.inputs), n.output, sorted((k, repr(v)) for k, v in n.attributes.items())]
        for n in network.nodes
    ]
    sizes = sorted((name, list(tensor.shape)) for name, tensor in network.tensors.items())
    return hashlib.sha256(canonical_json([shape, sizes]).encode()).hexdigest()


@final
@dataclass(frozen=True)
class Pipeline:
    """Everything a candidate's result depends on besides its recipe; `network` is what `factory` builds, captured."""

    factory: Factory
    network: Network
    splits: Splits
    threat: MembershipInference
    device: DeviceProfile
    schedule: Schedule
    seed: Seed
    watcher: Watcher
    store: Store
    evidence: Evidence

    def context(self) -> dict[str, Any]:
        """Return the hashes that enter a candidate's digest."""
        return {
            "format": FORMAT,
            "data": self.splits.digest,
            "architecture": architecture_digest(self.network),
            "threat": self.threat.to_json(),
            "device": hashlib.sha256(canonical_json(self.device.to_json()).encode()).hexdigest(),
            "schedule": asdict(self.schedule),
            "seed": self.seed.value,
        }

    def proposals(self, recipes: Sequence[Recipe]) -> list[Proposal]:
        """Return one proposal per recipe."""
        context = self.context()

        def proposal(recipe: Recipe) -> Proposal:
            candidate = Candidate(recipe.name, recipe.settings(), {**context, **recipe.context()})
            return Proposal(
                candidate,
                foresee=lambda: self.foresee(recipe),
                measure=lambda: self.measure(recipe, candidate),
                recall=lambda: self.store.get(candidate),
                passes=recipe.passes(self.schedule),
            )

        return [proposal(recipe) for recipe in recipes]

    def foresee(self, recipe: Recipe) -> Cost:
        """Return what is known of a recipe's cost before the first expensive step."""
        return recipe.foresee(self.factory, self.splits.input_shape, self.device, self.seed)

    @cached_property
    def plan(self) -> MembershipDesign:
        """Who trains on what; the same for every recipe, so that recipes are compared on equal terms."""
        exposed = None
        if EXPOSED in self.threat.natural:
            seed = self.seed.child("exposure")
            exposed = most_exposed(self.factory, self.splits, self.schedule, seed, self.watcher)
        return design(self.splits, self.threat, self.seed.child("membership"), exposed)

    def task(self, recipe: Recipe, candidate: Candidate, plan: MembershipDesign) -> Task:
        """Return the task of training the siblings of one candidate, resuming from its checkpoints."""
        return Task(
            factory=self.factory,
            x=plan.x,
            y=plan.y,
            members=plan.members,
            classes=self.splits.classes,
            seed=self.seed.child("train"),
            schedule=self.schedule,
            validation=(self.splits.validation.x, self.splits.validation.y),
            input_shape=self.splits.input_shape,
            watcher=self.watcher,
            label=recipe.name,
            directory=self.store.scratch(candidate),
            tag=candidate.digest,
        )

    def measure(self, recipe: Recipe, candidate: Candidate) -> Measurement:
        """Train, lower, measure and store one candidate with its bundle."""
        plan = self.plan
        started = time.perf_counter()
        task = self.task(recipe, candidate, plan)
        trained = recipe.run(task)
        seconds = time.perf_counter() - started
        siblings = recipe.lower(trained, task, self.splits, self.device)
        if siblings.worlds is not None:  # its halves are trained while it is lowered
            seconds = time.perf_counter() - started
        measurement = evaluate(
            trained,
            siblings,
            plan,
            self.splits,
            self.threat,
            self.device,
            seconds=seconds,
            watcher=self.watcher,
            label=recipe.name,
            seed=self.seed.child("audit"),
            extra={"summary": recipe.summary, "paper": recipe.paper, "aimed_at": recipe.aimed_at},
        )
        self.store.put(candidate, measurement, lambda folder: self._bundle(folder, candidate, measurement, siblings))
        return measurement

    def _bundle(self, folder: Path, candidate: Candidate, measurement: Measurement, siblings: Siblings) -> None:
        card = self.evidence.card(Measured(candidate, measurement))
        if siblings.worlds is not None:
            store_split(folder / "bundle", siblings.worlds, self.store.root.parent, card)
            return
        x = synthetic_vectors(self.splits.input_shape, 8, self.seed.child("vectors"))
        write_bundle(
            folder / "bundle",
            artefact=siblings.artefact,
            backend=siblings.backend.slug,
            network=siblings.network,
            classes=self.splits.classes,
            recipe=candidate.to_json(),
            vectors=Vectors.answered_by(siblings.shipped, x),
            card=card,
        )
