"""What stateful layers need to run inside `vmap`: replaced buffers, cumulative statistics, spectral normalisation."""

from __future__ import annotations

from types import MethodType
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm


@final
class Carrying(nn.Module):
    """Runs a module so that buffers which its training forward replaces (`self.mean = ...`) keep their new values.

    `torch.func.functional_call` puts the module's own tensors back after each call: what was changed in place stays in
    the tensors that were handed in, what was replaced would be lost.
    """

    def __init__(self, module: nn.Module) -> None:
        """Hold the module as `inner`, and let its cumulative normalisations run under `vmap`."""
        super().__init__()
        self.inner = module
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.momentum is None:
                layer.forward = MethodType(_cumulative, layer)  # type: ignore[method-assign]
            if isinstance(layer, _SpectralNorm):
                layer._power_method = MethodType(_power_iteration, layer)  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Any:
        """Return what the module answers."""
        if not self.training:
            return self.inner(x)
        given = dict(self.inner.named_buffers(remove_duplicate=False))
        answer = self.inner(x)
        for name, tensor in given.items():
            now = self.inner.get_buffer(name)
            if now is not tensor:
                tensor.copy_(now.detach())
        return answer


def _cumulative(self: nn.modules.batchnorm._BatchNorm, x: Tensor) -> Tensor:
    """BatchNorm with `momentum=None`: running statistics are the mean over all batches seen so far.

    PyTorch's own forward reads the count of batches as a Python number, which has none inside `vmap`.
    """
    mean, variance, seen = self.running_mean, self.running_var, self.num_batches_tracked
    if not self.training or mean is None or variance is None or seen is None:
        answer: Tensor = type(self).forward(self, x)
        return answer
    self._check_input_dim(x)  # type: ignore[no-untyped-call]
    # with momentum 1 the statistics of this batch replace those of the clones
    found_mean, found_variance = mean.clone(), variance.clone()
    answer = F.batch_norm(x, found_mean, found_variance, self.weight, self.bias, True, 1.0, self.eps)
    with torch.no_grad():
        seen.add_(1)
        share = 1.0 / seen.to(mean.dtype)
        mean.add_(share * (found_mean - mean))
        variance.add_(share * (found_variance - variance))
    return answer


@torch.no_grad()
def _power_iteration(self: _SpectralNorm, weight: Tensor, iterations: int) -> None:
    """The power method of spectral normalisation; PyTorch's own writes through `out=`, which `vmap` lacks."""
    for _ in range(iterations):
        self._u.copy_(F.normalize(torch.mv(weight, self._v), dim=0, eps=self.eps))
        self._v.copy_(F.normalize(torch.mv(weight.H, self._u), dim=0, eps=self.eps))
