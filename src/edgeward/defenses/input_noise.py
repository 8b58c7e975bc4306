"""Gaussian noise on the training inputs: vicinal training, which smooths teachers and binary students alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch

from edgeward.train.part import Batch, Context, Part


@final
@dataclass(frozen=True)
class InputNoise(Part):
    """Add fresh Gaussian noise of `ratio` times the records' overall standard deviation to every training input.

    Guarantee: none; what it does to leakage is measured. Source: Chapelle et al., NeurIPS'00 (vicinal risk).
    """

    slug: ClassVar[str] = "input_noise"

    ratio: float = 0.5

    def augment(self, context: Context, batch: Batch) -> Batch:
        """Return the batch with noisy inputs."""
        if not self.ratio:
            return batch
        spread = self.ratio * float(context.x.std())
        return replace(batch, x=batch.x + spread * torch.randn_like(batch.x))
