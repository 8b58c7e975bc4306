"""A convolutional network that can answer after each stage."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from edgeward.nets.initialization import he_normal
from edgeward.nets.registry import NETS
from edgeward.nets.small_cnn import block


@final
class EarlyExitCNN(nn.Module):
    """Stages in a row, each with a classifier of its own on the pooled features."""

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...]) -> None:
        """Create one stage and one exit per entry of `widths`."""
        super().__init__()
        inputs = (channels, *widths[:-1])
        stages = [self._stage(i, o) for i, o in zip(inputs, widths, strict=True)]
        exits = [nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w, classes)) for w in widths]
        self.stages, self.exits = nn.ModuleList(stages), nn.ModuleList(exits)

    @staticmethod
    def _stage(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(*block(inputs, outputs, True), *block(outputs, outputs, True), nn.MaxPool2d(2))

    def forward(self, x: Float[Tensor, "n c h w"]) -> tuple[Tensor, ...]:
        """Return the logits of every exit, the last stage last."""
        answers = []
        for stage, leave in zip(self.stages, self.exits, strict=True):
            x = stage(x)
            answers.append(leave(x))
        return tuple(answers)


@NETS.register("early_exit_cnn")
def early_exit_cnn(channels: int = 1, classes: int = 10, widths: tuple[int, ...] = (16, 32, 64)) -> nn.Module:
    """Return a network with one exit per stage; `forward` gives a tuple of logits.

    Shapes: [n, channels, size, size] -> tuple of [n, classes]; `size` at least 2 ** len(widths).
    Source: the multi-exit form of BranchyNet (Teerapittayanon, McDanel, Kung, ICPR 2016), own dimensions.
    """
    return he_normal(EarlyExitCNN(channels, classes, widths))
