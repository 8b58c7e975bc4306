"""What to do about operators that have no place in the graph."""

from __future__ import annotations

from collections.abc import Mapping

_DEFAULT = "replace it by operators of `edgeward.graph.OPERATORS`"

# By the name of the ATen operator without namespace and overload.
_HINTS: Mapping[str, str] = {
    "log_softmax": "return the logits and leave log_softmax to the loss",
    "_log_softmax": "return the logits and leave log_softmax to the loss",
    "conv1d": "use nn.Conv2d with a kernel (1, k) on records [C, 1, L]",
    "conv3d": "use two-dimensional convolutions",
    "conv_transpose2d": "classify without upsampling",
    "upsample_nearest2d": "classify without upsampling",
    "prelu": "use nn.LeakyReLU",
    "elu": "use nn.ReLU or nn.SiLU",
    "softplus": "use nn.ReLU or nn.SiLU",
    "mish": "use nn.SiLU",
    "instance_norm": "use nn.GroupNorm or nn.BatchNorm2d",
    "lstm": "recurrent layers are not carried; use convolutions over time",
    "gru": "recurrent layers are not carried; use convolutions over time",
    "embedding": "feed one-hot or real-valued records to nn.Linear",
    "item": "let no Python number depend on the records",
    "sign": "use the binary layers of edgeward.transforms, which are captured as one operator",
    "round": "use the quantised layers of edgeward.transforms, which are captured as one operator",
    "where": "use relu, clip or products instead of a choice",
    "flip": "flip the stored weights instead",
    "roll": "use global attention instead of shifted windows",
    "adaptive_max_pool2d": "use nn.MaxPool2d, or nn.AdaptiveAvgPool2d",
}


def hint(operator: str) -> str:
    """Return the advice for an operator by its full name.

    >>> hint("aten.prelu.default")
    'use nn.LeakyReLU'
    """
    parts = operator.split(".")
    return _HINTS.get(parts[1], _DEFAULT) if len(parts) > 1 else _DEFAULT
