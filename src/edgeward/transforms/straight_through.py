"""Straight-through estimators: the value of a step function with the gradient of its clipped identity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from edgeward.graph.quantized import signs


def passing(value: Tensor, gradient: Tensor) -> Tensor:
    """Return exactly `value` with the gradient of `gradient`, which must be finite; works under vmap.

    `gradient - gradient.detach()` is exactly zero, so the value carries no rounding of the trick. Without gradients
    the value is returned as it is, which is what an exported network computes.
    """
    if not torch.is_grad_enabled():
        return value
    return value.detach() + (gradient - gradient.detach())


def sign(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return +1 where x >= 0 and -1 elsewhere; d sign / dx := 1[|x| < 1].

    Source: Courbariaux et al., 2016, section 1.3 (the "hard tanh" estimator).

    >>> sign(torch.tensor([-0.3, 0.0, 2.0]))
    tensor([-1.,  1.,  1.])
    """
    return passing(signs(x), torch.nn.functional.hardtanh(x))
