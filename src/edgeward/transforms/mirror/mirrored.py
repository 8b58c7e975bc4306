"""`MirrorModule`: backbone and monitor as one trainable module."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from edgeward.transforms.mirror.monitor import Monitor


@final
class MirrorModule(nn.Module):
    """A tapped backbone and its monitor; the answer is the authorised one, or both.

    `both`: return [authorised logits, direct logits] side by side [n, 2 classes], which training and measuring need;
    else the authorised logits [n, classes] alone. `frozen`: no gradient reaches the backbone, which then also keeps its
    running statistics.
    """

    def __init__(self, backbone: nn.Module, monitor: Monitor, *, both: bool = True, frozen: bool = False) -> None:
        """Hold both; `backbone` returns the taps and its own logits, as a module of `tapped` does."""
        super().__init__()
        self.backbone, self.monitor = backbone, monitor
        self.both, self.frozen = both, frozen

    def train(self, mode: bool = True) -> MirrorModule:
        """Set the mode; a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits for records [n, ...]."""
        *taps, direct = self.backbone(x)
        if self.frozen:
            taps, direct = [tap.detach() for tap in taps], direct.detach()
        authorised: Tensor = self.monitor(*taps)
        return torch.cat([authorised, direct], 1) if self.both else authorised
