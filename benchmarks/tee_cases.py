"""What the table of splits is made of: victims, their data, and how hard each split is trained and attacked."""

import json
import os
from dataclasses import dataclass, replace

import torch

from edgeward.attacks.extraction.probing import QUERIES
from edgeward.data import Records, public_photos


@dataclass(frozen=True)
class Grain:
    """A public backbone that ends before block `first`: how its values enter the copies, and how these are trained."""

    first: int
    kind: str = "adapted"
    epochs: int = 6
    records: int | None = None
    tuning: float = 0.1
    steps: int = 300


@dataclass(frozen=True)
class Case:
    """One victim: its data, how much of it is used, and the label budgets of the attacker.

    `choosing` records of the holdout choose among splits and are in no figure that is reported (0: the validation part,
    where the victim never saw that). `grain` are the blocks from which on copies follow the victim.
    """

    victim: str
    data: str
    train: int | None
    holdout: int | None
    budgets: tuple[int, ...]
    flips: bool = True
    choosing: int = 0
    grain: tuple[Grain, ...] = ()
    shift: int = 3


@dataclass(frozen=True)
class Settings:
    """What is trained and attacked, and how hard. The defaults are for one or two processor cores."""

    resnet: Case = Case(
        "resnet20_cifar10",
        "cifar10",
        6000,
        3000,
        (50, 200, 800),
        choosing=1000,
        grain=(Grain(2, "mixed", 1, 2000, 0.01, 1), Grain(4, "adapted", 3, 24000)),
    )
    mobilenet: Case = Case(
        "mobilenet_v1_vww", "vww", None, None, (10, 30, 90), grain=(Grain(2, "mixed"), Grain(4)), shift=6
    )
    device_profile: str = "rpi3-optee"
    seed: int = 0
    epochs: int = 6
    steps: int = 300
    batch: int = 100
    rate: float = 3e-3
    calibration: int = 200
    attackers: int = 1
    attack_finalists: int = 1
    attack_queries: tuple[str, ...] = ("records",)
    probed: tuple[str, ...] = ()
    attack_epochs: int = 8
    attack_steps: int = 60
    attack_rates: tuple[float, ...] = (1e-3,)
    attack_variants: tuple[str, ...] = (
        "as it is",
        "fine-tuned",
        "fine-tuned with a new head",
        "new head",
        "monitor on taps",
    )
    strategies: tuple[str, ...] = ()
    torch_device: str = "cpu"
    reduced: bool = True

    @classmethod
    def here(cls) -> "Settings":
        """Return the full settings on a GPU, the reduced ones elsewhere, changed by TEE_SPLITS."""
        found = cls()
        if torch.cuda.is_available():
            found = cls(
                resnet=replace(
                    cls().resnet, train=None, budgets=(50, 300, 1000), grain=tuple(map(Grain, (2, 3, 4, 5)))
                ),
                epochs=60,
                steps=2000,
                attackers=3,
                attack_epochs=60,
                attack_steps=600,
                attack_rates=(3e-3, 1e-3, 3e-4),
                attack_finalists=2,
                attack_queries=tuple(QUERIES),
                torch_device="cuda",
                reduced=False,
            )
        wanted = json.loads(os.environ.get("TEE_SPLITS", "{}"))
        for name in ("resnet", "mobilenet"):
            if name in wanted:
                case = {k: tuple(v) if isinstance(v, list) else v for k, v in wanted[name].items()}
                wanted[name] = replace(getattr(found, name), **case)
        return replace(found, **{k: tuple(v) if isinstance(v, list) else v for k, v in wanted.items()})


def pieces(size: int) -> Records:
    """Return the quarters of every public photo, 2 `size` wide: images that a thief has, and no record of any role."""
    photos = torch.from_numpy(public_photos(2 * size)).float() / 255
    x = torch.cat([photos[..., a : a + size, b : b + size] for a in (0, size) for b in (0, size)])
    return Records(x.contiguous(), torch.zeros(len(x), dtype=torch.int64), "public photos")


def no_cases() -> dict:
    """Return settings without a victim: what all rows of all victims share."""
    empty = Case("", "", None, None, ())
    return {"resnet": empty, "mobilenet": empty}
