"""`python -m benchmarks.xray_training [NAME ...] [--epochs N]`: train the networks of the benchmark mpc-xray.

PneumoniaMNIST (28 pixels) is upsampled; the run resumes where it was interrupted. The result is `NAME.safetensors` in
the work folder, with the scores of validation and test records in `NAME.json`. Nothing is chosen on test records.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.xray_candidates import CANDIDATES, EPOCHS, SIZE
from edgeward.attacks.metrics import auc
from edgeward.core import Seed
from edgeward.data import load
from edgeward.train.fit import fit
from edgeward.train.part import Batch, Context, CrossEntropy, Part, Schedule
from edgeward.train.population import Population

WORK = Path("runs/xray")
CLASSES = 2


@dataclass(frozen=True)
class Mirrored(Part):
    """Mirror half of the images left to right; change contrast by 20 % and brightness by 0.1 at most."""

    slug: ClassVar[str] = "mirrored"

    def augment(self, context: Context, batch: Batch) -> Batch:
        shape = (*batch.x.shape[:2], 1, 1, 1)
        x = torch.where(torch.rand(shape) < 0.5, batch.x.flip(-1), batch.x)
        x = x * (0.8 + 0.4 * torch.rand(shape)) + 0.2 * (torch.rand(shape) - 0.5)
        return Batch(x, batch.y, batch.index, batch.weight)


def records(size: int = SIZE) -> dict[str, tuple[Tensor, Tensor]]:
    """Return (images [n, 1, size, size], labels) of the parts; test is the source's own test part, repeats dropped."""
    splits = load("pneumonia_mnist", seed=Seed(0), canaries=0)
    test = (torch.cat([splits.holdout.x, splits.shadow.x]), torch.cat([splits.holdout.y, splits.shadow.y]))
    parts = {"train": splits.train, "validation": splits.validation}
    found = {name: (part.x, part.y) for name, part in parts.items()} | {"test": test}
    return {name: (larger(x, size), y) for name, (x, y) in found.items()}


def larger(x: Tensor, size: int) -> Tensor:
    """Return images upsampled to `size` pixels, bilinear."""
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


@torch.no_grad()
def scores(module: nn.Module, x: Tensor) -> Tensor:
    """Return the logit of pneumonia over normal, one per image."""
    logits = torch.cat([module.eval()(part) for part in x.split(64)])
    return (logits[:, 1] - logits[:, 0]).double()


def auroc(value: Tensor, y: Tensor) -> dict[str, object]:
    """Return the area under the ROC curve with its 95 % interval."""
    return auc(value, y.bool()).to_json()


def train(name: str, factory: Callable[[], nn.Module], schedule: Schedule, folder: Path) -> dict[str, object]:
    """Train one candidate; store its weights, its scores and what it reached. A finished run is read."""
    if (folder / f"{name}.json").exists():
        known: dict[str, object] = json.loads((folder / f"{name}.json").read_text())
        if (known["epochs"], known["pixels"]) == (schedule.epochs, SIZE):
            return known
    folder.mkdir(parents=True, exist_ok=True)
    parts, seed = records(), Seed(0).child(name)
    x, y = parts["train"]
    population = Population.initialise(factory, [seed])
    context = Context(factory, x, y, torch.ones(1, len(x), dtype=torch.bool), CLASSES, (seed,), schedule, label=name)
    hooks = [CrossEntropy(), Mirrored(), Progress(folder / f"{name}.log")]
    tag = f"{name}/{SIZE}/{schedule.epochs}"
    fit(population, context, hooks, checkpoint=folder / f"{name}.running.safetensors", tag=tag, every=1)
    module = population.member(0, factory)
    save_file({k: t.contiguous() for k, t in module.state_dict().items()}, folder / f"{name}.safetensors")
    found = {part: scores(module, parts[part][0]) for part in ("validation", "test")}
    save_file(found, folder / f"{name}.scores.safetensors")
    figures = {
        "name": name,
        "pixels": SIZE,
        "epochs": schedule.epochs,
        "batch": schedule.batch,
        "rate": schedule.rate,
        "parameters": sum(p.numel() for p in module.parameters()),
        **{f"auroc_{part}": auroc(value, parts[part][1]) for part, value in found.items()},
    }
    (folder / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


@dataclass(frozen=True)
class Progress(Part):
    """Append a line to a file after each epoch."""

    path: Path
    slug: ClassVar[str] = "progress"

    def on_epoch(self, context: Context, population: Population) -> None:
        with self.path.open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S')} epoch {context.epoch} cpu {time.process_time():.0f} s\n")


def main() -> int:
    """Train the candidates named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.xray_training", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CANDIDATES)}; default: {', '.join(EPOCHS)}")
    parser.add_argument("--epochs", type=int, help="default: as published in the results")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--workdir", type=Path, default=WORK)
    given = parser.parse_args()
    for name in given.names or EPOCHS:
        epochs = given.epochs or EPOCHS.get(name, 20)
        schedule = Schedule(epochs=epochs, batch=given.batch, rate=given.rate, decay="cosine")
        sys.stdout.write(json.dumps(train(name, CANDIDATES[name], schedule, given.workdir)) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
