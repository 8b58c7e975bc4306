"""How the networks of the benchmark mpc-xray are scored, compared and chosen.

The rule: the cheapest candidate under SCI_OT whose AUROC on validation records, averaged over seeds, is at most
`TOLERANCE` below the reference's under every one of `SHIFTS` (as they are, validation records no longer tell good
networks apart). The reference with Winograd's tiles computes the reference's function and is a candidate. The claim
holds if the choice is not the reference, and its mean AUROC on test records at most `TOLERANCE` below the reference's.

An earlier rule asked for that on the average over `SHIFTS` only. It was written before any test record was scored and
chose `mobilenet_v2-hourglass-wide`, which trailed by 2.5 points on test records. "Every one" was put for "the average"
after that had been seen, and before a test record was scored by the candidate trained since, `densenet121-hourglass`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from benchmarks.xray_candidates import REFERENCE
from benchmarks.xray_lessons import answers
from benchmarks.xray_records import moved
from edgeward.core import Seed
from edgeward.core.interval import Estimate

TOLERANCE = 0.01
DRAWS = 2000
Areas = Float64[np.ndarray, "S p n"]


def rule() -> str:
    """Return the rule of the choice and of the claim, as written above."""
    return " ".join((__doc__ or "").split("\n\n")[1].split())


def noisy(x: Tensor) -> Tensor:
    """Return images with the same Gaussian noise of deviation 0.03 at every call."""
    return x + 0.03 * torch.randn(x.shape, generator=Seed(0).child("noise").torch())


def aside(x: Tensor) -> Tensor:
    """Return images moved by an eighth of their size up and to the left."""
    by = torch.full((len(x),), x.shape[-1] // 8)
    return moved(x, by, by)


SHIFTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "half the contrast": lambda x: 0.5 * x + 0.25,
    "noise": noisy,
    "moved by an eighth": aside,
}
"""What is done to validation records before they are scored; as much as leaves the reference above 0.95.

Noise of 0.1, tried first, left its seed 0 at 0.39.
"""


def scores(module: nn.Module, x: Tensor) -> Tensor:
    """Return the logit of pneumonia over normal, one per image."""
    logits = answers(module, x)
    return (logits[:, 1] - logits[:, 0]).double()


def wins(value: Tensor, y: Tensor) -> Float64[np.ndarray, "p n"]:
    """Return 1 where a positive scores above a negative and 0.5 at a tie; the mean is the area under the ROC curve."""
    above = value[y == 1][:, None] - value[y == 0][None]
    found: np.ndarray = (0.5 * (above.sign() + 1)).double().numpy()
    return found


def estimate(table: Areas, seed: Seed) -> Estimate:
    """Return the mean of `wins` over seeds and pairs of records with its 95 % bootstrap interval.

    Seeds, positives and negatives are drawn with replacement. For a difference give the difference of two tables of
    the same records and seeds: the drawing is then paired.
    """
    models, positives, negatives = table.shape
    draw = seed.numpy().multinomial
    by_model = draw(models, np.full(models, 1 / models), DRAWS) / models
    above = draw(positives, np.full(positives, 1 / positives), DRAWS) / positives
    below = draw(negatives, np.full(negatives, 1 / negatives), DRAWS) / negatives
    found = sum(by_model[:, i] * ((above @ area) * below).sum(1) for i, area in enumerate(table))
    low, high = np.quantile(found, [0.025, 0.975])
    value = float(table.mean())
    return Estimate(value, min(float(low), value), max(float(high), value), positives + negatives, "bootstrap")


def areas(modules: Sequence[nn.Module], x: Tensor, y: Tensor) -> Areas:
    """Return `wins` of each seed's network."""
    return np.stack([wins(scores(module, x), y) for module in modules])


def figures(table: Areas, seed: Seed) -> dict[str, Any]:
    """Return the mean AUROC with its interval, and that of each seed."""
    return {**estimate(table, seed).to_json(), "by_seed": [float(area.mean()) for area in table]}


def compared(found: Mapping[str, Areas], seed: Seed) -> dict[str, dict[str, Any]]:
    """Return each network's AUROC less the reference's, paired by seed and record."""
    others = {name: table for name, table in found.items() if name != REFERENCE}
    return {name: figures(table - found[REFERENCE], seed) for name, table in others.items()}
