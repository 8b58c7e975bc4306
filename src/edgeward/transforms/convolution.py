"""Settings of a convolution in the one form that quantised layers use: symmetric, numeric padding."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgeward.core.errors import ModelError
from edgeward.transforms.transform import plain


def padding_of(layer: nn.Conv2d) -> tuple[int, int]:
    """Return the symmetric padding (rows, columns) of a convolution; raises `ModelError` where there is none."""
    if layer.padding_mode != "zeros":
        raise ModelError(f"padding mode '{layer.padding_mode}' has no quantised form", fix="use padding_mode='zeros'")
    if layer.padding == "valid":
        return 0, 0
    if isinstance(layer.padding, str):
        spans = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        if any(span % 2 for span in spans):
            raise ModelError("'same' padding of an even kernel is lopsided", fix="use an odd kernel or pad explicitly")
        return spans[0] // 2, spans[1] // 2
    return int(layer.padding[0]), int(layer.padding[1])


def convolution_settings(layer: nn.Conv2d) -> dict[str, Any]:
    """Return the constructor arguments of a convolution, but for its bias."""
    return {
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": padding_of(layer),
        "dilation": layer.dilation,
        "groups": layer.groups,
    }


def ill_padded(layers: dict[str, nn.Linear | nn.Conv2d]) -> list[str]:
    """Return one sentence for every convolution whose padding has no quantised form."""
    return [f"{name}: {problem}" for name, layer in layers.items() if (problem := _problem(layer))]


def _problem(layer: nn.Linear | nn.Conv2d) -> str:
    try:
        if isinstance(layer, nn.Conv2d) and plain(layer):  # others pad in their own forward
            padding_of(layer)
    except ModelError as error:
        return f"{error.what} ({error.fix})"
    return ""
