"""`AssetMatrix`: which asset a split deployment protects, in which phase, against whom, by what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, final, get_args

from edgeward.core.errors import ConfigError

Asset = Literal["secure weights", "normal weights", "function", "inputs", "labels", "training membership"]
Phase = Literal["at rest", "in use"]
Adversary = Literal["normal-world reader", "normal-world writer", "colluding devices", "authorised user"]
Status = Literal["protected", "audited", "not protected", "out of scope"]

ASSETS: tuple[Asset, ...] = get_args(Asset)
PHASES: tuple[Phase, ...] = get_args(Phase)
ADVERSARIES: tuple[Adversary, ...] = get_args(Adversary)
STATUSES: tuple[Status, ...] = get_args(Status)


@final
@dataclass(frozen=True)
class Protection:
    """One cell: what stands between an adversary and an asset in a phase, or that nothing does.

    `status`: "protected" by a mechanism that `by` names, "audited" (no mechanism promises it; an attack measures how
    far it holds), "not protected", or "out of scope".
    """

    asset: Asset
    phase: Phase
    adversary: Adversary
    status: Status
    by: str


@final
@dataclass(frozen=True)
class AssetMatrix:
    """Assets x phases x adversaries of one strategy; a cell that is not given is "not protected".

    `side_channels` says which of them are out of scope (power, electromagnetic, cache, timing).
    """

    protections: tuple[Protection, ...]
    side_channels: str = "out of scope: power, electromagnetic emission, caches, faults; timing is not constant"

    def __post_init__(self) -> None:
        """Refuse unknown words and two answers to one question."""
        words = (("asset", ASSETS), ("phase", PHASES), ("adversary", ADVERSARIES), ("status", STATUSES))
        wrong = [
            f"{name} '{getattr(cell, name)}'"
            for cell in self.protections
            for name, known in words
            if getattr(cell, name) not in known
        ]
        seen = [(cell.asset, cell.phase, cell.adversary) for cell in self.protections]
        wrong += [f"{' / '.join(key)} twice" for key in sorted({key for key in seen if seen.count(key) > 1})]
        if wrong:
            raise ConfigError("the asset matrix cannot be read", expected="words of `assets`", came=", ".join(wrong))

    def cell(self, asset: Asset, phase: Phase, adversary: Adversary) -> Protection:
        """Return the answer to one question; "not protected" where nothing was said."""
        for found in self.protections:
            if (found.asset, found.phase, found.adversary) == (asset, phase, adversary):
                return found
        return Protection(asset, phase, adversary, "not protected", "nothing stands in the way")

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return (asset, phase, adversary, answer) for every question, for the card."""
        cells = [self.cell(a, p, w) for a in ASSETS for p in PHASES for w in ADVERSARIES]
        return [(c.asset, c.phase, c.adversary, f"{c.status}: {c.by}") for c in cells]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"protections": [asdict(cell) for cell in self.protections], "side_channels": self.side_channels}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> AssetMatrix:
        """Read back what `to_json` wrote. Raises: `ConfigError`."""
        try:
            return cls(tuple(Protection(**cell) for cell in plain["protections"]), str(plain["side_channels"]))
        except (KeyError, TypeError) as error:
            raise ConfigError(
                "this is not an asset matrix", expected="what `to_json` writes", came=str(error)
            ) from None


def one_way_split(*, one_way: bool = True, private_normal_world: bool = True) -> AssetMatrix:
    """Return the matrix of a split whose secure part is sealed and answers with a label.

    `private_normal_world` is False where the normal part holds public weights only. What the normal world computes from
    (`inputs`, `normal weights`) is in its own memory: nothing protects it from that world's owner.
    """
    sealed = "AES-256-GCM blob bound to manifest and counter, opened inside the secure world"
    isolated = "the secure world's memory isolation, as strong as the tier that runs"
    copied = "parameters are copied, then validated; sizes are checked before use"
    stolen = "stealing audit (ratio to the black-box level)"
    public = "holds public weights only; the taps' int8 ranges come from private calibration records"
    shown = "in clear in the normal world"
    reader: list[Protection] = [
        Protection("secure weights", "at rest", "normal-world reader", "protected", sealed),
        Protection("secure weights", "in use", "normal-world reader", "protected", isolated),
        Protection(
            "secure weights", "at rest", "normal-world writer", "protected", sealed + ": altered blobs are refused"
        ),
        Protection("secure weights", "in use", "normal-world writer", "protected", f"{isolated}; {copied}"),
        Protection("secure weights", "at rest", "colluding devices", "protected", sealed),
        Protection("secure weights", "in use", "colluding devices", "audited", stolen),
        Protection("secure weights", "in use", "authorised user", "audited", stolen),
        Protection("function", "in use", "normal-world reader", "audited", stolen),
        Protection("function", "in use", "authorised user", "audited", stolen),
        Protection(
            "training membership", "in use", "normal-world reader", "audited", "membership audit of the visible part"
        ),
    ]
    normal = Protection("normal weights", "at rest", "normal-world reader", "not protected", shown)
    if not private_normal_world:
        normal = Protection("normal weights", "at rest", "normal-world reader", "out of scope", public)
    if not one_way:
        cell = Protection(
            "inputs", "in use", "normal-world reader", "not protected", "features return to the normal world"
        )
        reader.append(cell)
    return AssetMatrix((*reader, normal))
