"""What a strategy is expected to take on a device, before anything is trained, and the limits it must keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast, final

from edgeward.backends.tee.deployment import Transfer
from edgeward.backends.tee.emulator import Emulator, Estimate
from edgeward.backends.tee.split_shape import sketch
from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.graph.network import Network
from edgeward.graph.partition import Cut
from edgeward.recipes.mirrornet.strategy import Strategy
from edgeward.train.population import build
from edgeward.transforms.mirror.monitor import Monitor, classes_of, monitor_network
from edgeward.transforms.mirror.tapped import tapped


@final
@dataclass(frozen=True)
class Limits:
    """What a strategy may take: secure memory in bytes, overhead as a fraction, entries into the secure world."""

    secure_ram: float
    overhead: float = 0.01
    switches: int = 8

    def kept_by(self, score: Score) -> bool:
        """Return whether a score stays within every limit."""
        return (
            score.secure_ram <= self.secure_ram
            and score.overhead <= self.overhead
            and score.switches <= self.switches
            and score.fits
        )


@final
@dataclass(frozen=True)
class Score:
    """The modelled figures of one strategy; `capacity` is the int8 bytes of the monitor's weights."""

    overhead: float
    seconds: float
    secure_ram: int
    fits: bool
    switches: int
    bytes: int
    capacity: int

    @classmethod
    def of(cls, estimate: Estimate) -> Score:
        """Take what the generator compares from an estimate."""
        return cls(
            estimate.overhead,
            estimate.seconds_total,
            estimate.secure_ram_bytes,
            estimate.fits,
            estimate.switches,
            estimate.bytes,
            estimate.ram["weights"],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Score:
        """Read back what `to_json` wrote."""
        return cls(**plain)

    def dominates(self, other: Score) -> bool:
        """Return whether nothing is worse and something better: less overhead and memory, more capacity."""
        mine, theirs = (
            (self.overhead, self.secure_ram, -self.capacity),
            (other.overhead, other.secure_ram, -other.capacity),
        )
        return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


def estimate(victim: Network, at: Sequence[Cut], strategy: Strategy, emulator: Emulator) -> Estimate:
    """Return the emulator's estimate of `strategy` on `victim`; raises `ModelError` for a plan that does not fit.

    Cost: about a second: the monitor is built and captured, not trained. The backbone counts with its own answer where
    the preset gives it one.
    """
    monitor = cast(Monitor, build(lambda: Monitor(strategy.plan, victim, at, classes_of(victim)), Seed(0)))
    normal = tapped(victim, at, strategy.plan, answer=strategy.preset != "public")
    secure = monitor_network(monitor.eval(), at)
    return emulator.estimate(sketch(strategy.name, normal, secure, cast(Transfer, strategy.transfer), victim))


def score(victim: Network, at: Sequence[Cut], strategy: Strategy, emulator: Emulator) -> Score | None:
    """Return the score of `strategy`, None where its plan does not fit the network."""
    if strategy.plan.fits(at):
        return None
    try:
        return Score.of(estimate(victim, at, strategy, emulator))
    except ModelError:
        return None


def pareto(scores: Mapping[str, Score]) -> list[str]:
    """Return the names that no other one dominates, in order."""
    return [name for name, own in scores.items() if not any(other.dominates(own) for other in scores.values())]
