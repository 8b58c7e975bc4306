"""A rehearsal before DP-SGD: whether the per-sample gradients of Opacus are those of each record alone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from edgeward.core.errors import ModelError
from edgeward.defenses.dp_norm import own_outputs
from edgeward.train.rehearsal import attempt, check_answer

_WHAT = "the network does not train with per-sample gradients"
_SLACK = 1e-3
"""Largest difference of a gradient, as a share of the largest entry."""


def rehearse_gradients(module: nn.Module, x: Float[Tensor, "b ..."], y: Int[Tensor, " b"], classes: int) -> None:
    """Compare Opacus' gradient of each record with that of a batch of this record alone; `module` is used up.

    Clipping bounds a record's influence only if these gradients are right: a layer that Opacus misreads would break the
    guarantee without a word.
    Guarantee: measured on these records and their cross-entropy, without dropout; a network that draws random numbers
    all the same is only run.
    Cost: two backward passes per record.
    Raises: `ModelError` naming the layer or the parameters.
    """
    from opacus import GradSampleModule

    def losses(answers: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(answers.float(), labels, reduction="none")

    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    _still(module)
    alone: list[Any] = []
    check_answer(attempt(module, _WHAT, lambda: module(x[:1].clone())), 1, classes)
    for i in range(len(x)):
        one = attempt(module, _WHAT, lambda i=i: losses(module(x[i : i + 1].clone()), y[i : i + 1]))  # type: ignore[misc]
        alone.append(torch.autograd.grad(one.sum(), list(trained.values()), allow_unused=True))
    again = losses(module(x[:1].clone()), y[:1])
    steady = torch.equal(again, losses(module(x[:1].clone()), y[:1]))
    hooked = GradSampleModule(module)
    own_outputs(hooked)
    attempt(module, _WHAT, lambda: torch.autograd.backward(losses(hooked(x.clone()), y).mean()))
    wrong = [n for k, (n, p) in enumerate(trained.items()) if not _same(p, [g[k] for g in alone])]
    if wrong and steady:
        raise ModelError(
            f"{len(wrong)} parameters have no right per-sample gradient",
            expected="for each record the gradient of a batch of this record alone",
            came=", ".join(wrong[:6]),
            fix="exchange these layers (old weight_norm by parametrizations.weight_norm), or leave dp_sgd out",
        )


def _still(module: nn.Module) -> None:
    """Turn dropout off but leave layers with parameters in training mode, in which Opacus watches them."""
    module.eval()
    for layer in module.modules():
        layer.training = bool(layer._parameters)


def _same(parameter: nn.Parameter, alone: list[Tensor | None]) -> bool:
    found = getattr(parameter, "grad_sample", None)
    if found is None or isinstance(found, list):
        return all(gradient is None for gradient in alone)
    if any(gradient is None for gradient in alone):
        return not bool(found.any())
    expected = torch.stack([gradient for gradient in alone if gradient is not None])
    if found.shape != expected.shape:
        return False
    scale = float(expected.nan_to_num(posinf=0.0, neginf=0.0).abs().max())
    return torch.allclose(found, expected, 0.0, _SLACK * scale + 1e-7, equal_nan=True)
