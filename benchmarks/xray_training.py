"""`python -m benchmarks.xray_training NAME SEED [SEED ...]`: train networks of the benchmark mpc-xray.

PneumoniaMNIST (28 pixels) is upsampled. The reference learns the labels; every other network learns the answers of the
reference of its own seed (`benchmarks.xray_lessons`). A run resumes where it was interrupted and leaves
`NAME-SEED.safetensors` and `NAME-SEED.json` in the work folder. Test records are neither read nor scored here.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.xray_candidates import CANDIDATES, MIXED, REACH, REFERENCE, SCHEDULES, SEEDS, SIZE, VARIED
from benchmarks.xray_lessons import DISTILLATION, lesson
from benchmarks.xray_records import CLASSES, Varied, records
from edgeward.core import Seed
from edgeward.train.fit import fit
from edgeward.train.part import Context, CrossEntropy, Part
from edgeward.train.population import Population

WORK = Path("runs/xray")


def trained(name: str, seed: int, folder: Path = WORK) -> nn.Module:
    """Return a candidate with the weights of a finished run."""
    module = CANDIDATES[name]()
    module.load_state_dict(load_file(folder / f"{name}-{seed}.safetensors"))
    return module.eval()


def train(name: str, seed: int, folder: Path = WORK) -> dict[str, Any]:
    """Train one candidate from one seed; store its weights and how they came about. A finished run is read."""
    run, settings = f"{name}-{seed}", {"pixels": SIZE, **asdict(SCHEDULES[name])}
    if name != REFERENCE:
        settings |= {
            "varied": VARIED,
            "mixed": MIXED,
            "reach": REACH,
            "alpha": DISTILLATION.alpha,
            "temperature": DISTILLATION.temperature,
        }
    if (folder / f"{run}.json").exists():
        known: dict[str, Any] = json.loads((folder / f"{run}.json").read_text())
        if known["settings"] == settings:
            return known
    folder.mkdir(parents=True, exist_ok=True)
    x, y, parts, memory = taught(name, seed, folder)
    start, factory, own = Seed(seed).child(name), CANDIDATES[name], torch.ones(1, len(x), dtype=torch.bool)
    context = Context(factory, x, y, own, CLASSES, (start,), SCHEDULES[name], label=run, memory=dict(memory))
    population = Population.initialise(factory, [start])
    hooks = [*parts, Progress(folder / f"{run}.log")]
    fit(population, context, hooks, checkpoint=folder / f"{run}.running.safetensors", tag=json.dumps(settings), every=1)
    module = population.member(0, factory)
    save_file({k: t.contiguous() for k, t in module.state_dict().items()}, folder / f"{run}.safetensors")
    figures = {"name": name, "seed": seed, "settings": settings, "records": len(x)}
    figures["parameters"] = sum(p.numel() for p in module.parameters())
    (folder / f"{run}.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def taught(name: str, seed: int, folder: Path) -> tuple[Tensor, Tensor, list[Part], Mapping[str, Tensor]]:
    """Return what a network learns from: images, labels, the parts of its training and their memory."""
    x, y = records("train")
    if name == REFERENCE:
        return x, y, [CrossEntropy(), Varied()], {}
    train(REFERENCE, seed, folder)
    return lesson(trained(REFERENCE, seed, folder), x, y, seed, folder)


@dataclass(frozen=True)
class Progress(Part):
    """Append a line to a file after each epoch."""

    slug: ClassVar[str] = "progress"

    path: Path

    def on_epoch(self, context: Context, population: Population) -> None:
        with self.path.open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S')} epoch {context.epoch} cpu {time.process_time():.0f} s\n")


def main() -> int:
    """Train one network from the seeds given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.xray_training", description=__doc__)
    parser.add_argument("name", choices=sorted(SCHEDULES))
    parser.add_argument("seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--workdir", type=Path, default=WORK)
    given = parser.parse_args()
    for seed in given.seeds:
        sys.stdout.write(json.dumps(train(given.name, seed, given.workdir)) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
