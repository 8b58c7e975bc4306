"""What a rewritten network learns from in the benchmark mpc-xray: the reference's answers on variations of the records.

The reference is what the vendor already has; it answers every variation once. Mixtures of two variations show the
rewritten network how the reference passes from one class to the other (Beyer et al., arXiv 2106.05237).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.xray_candidates import MIXED, REACH, REFERENCE, VARIED, densenet121
from benchmarks.xray_records import varied
from edgeward.core import Seed
from edgeward.defenses.distillation import CrossFitDistillation
from edgeward.train.part import Part

DISTILLATION = CrossFitDistillation(densenet121, teachers=1, excluded=0, alpha=0.1, temperature=4.0)
"""One teacher that saw every record; the labels count for a tenth. Its answers are given, so it trains no teacher."""


def lesson(
    teacher: nn.Module, x: Tensor, y: Tensor, seed: int, folder: Path
) -> tuple[Tensor, Tensor, list[Part], Mapping[str, Tensor]]:
    """Return images, labels, the parts of the training, and the teacher's answers as their memory."""
    images, labels = pool(x, y, Seed(seed).child("lesson"))
    cache = folder / f"{REFERENCE}-{seed}.answers-{VARIED}-{MIXED}-{REACH}.safetensors"
    if not cache.exists():
        save_file({"logits": answers(teacher, images)}, cache)
    soft = (load_file(cache)["logits"] / DISTILLATION.temperature).softmax(-1)
    return images, labels, [DISTILLATION], {"soft": soft[None]}


def pool(x: Tensor, y: Tensor, seed: Seed) -> tuple[Tensor, Tensor]:
    """Return `VARIED` variations of each record, then `MIXED` mixtures of it with another; labels: of the larger share.

    The larger share is uniform between a half and all.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed.value)
        copies = [varied(x, REACH) for _ in range(VARIED)]
        for _ in range(MIXED):
            share = 0.5 + 0.5 * torch.rand(len(x), 1, 1, 1)
            copies.append(share * varied(x, REACH) + (1 - share) * varied(x, REACH)[torch.randperm(len(x))])
    return torch.cat(copies), y.repeat(VARIED + MIXED)


@torch.no_grad()
def answers(module: nn.Module, x: Tensor) -> Tensor:
    """Return the logits [n, classes] in evaluation mode."""
    return torch.cat([module.eval()(part) for part in x.split(64)])
