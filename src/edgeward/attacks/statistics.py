"""Statistics of one answer: log confidences and a label become one number, larger when more typical of a member."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from edgeward.attacks.oracle import LOG_FLOOR
from edgeward.core.errors import unknown_name


def _of_label(log_p: Float64[Tensor, "n C"], labels: Int[Tensor, " n"]) -> Float64[Tensor, " n"]:
    return log_p.gather(1, labels[:, None])[:, 0]


def _others(log_p: Float64[Tensor, "n C"], labels: Int[Tensor, " n"]) -> Float64[Tensor, "n C"]:
    """Return log p with the label's own column at -inf."""
    return log_p.scatter(1, labels[:, None], -torch.inf)


def correctness(log_p: Float64[Tensor, "n C"], labels: Int[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """1 where the predicted class is the label, else 0."""
    return (log_p.argmax(1) == labels).double()


def loss(log_p: Float64[Tensor, "n C"], labels: Int[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Log p_y: the negated cross-entropy (Yeom et al., CSF'18), in nats."""
    return _of_label(log_p, labels)


def entropy(log_p: Float64[Tensor, "n C"], labels: Int[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Sum of p log p over the classes: the negated entropy, in nats; ignores the label."""
    return (log_p.exp() * log_p).sum(1)


def modified_entropy(log_p: Float64[Tensor, "n C"], labels: Int[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """(1 - p_y) log p_y + sum over i != y of p_i log(1 - p_i), in nats (Song & Mittal, USENIX Sec'21, eq. 8)."""
    p = log_p.exp()
    log_rest = torch.log1p(-p).clamp(min=LOG_FLOOR)
    # 1 - p_y is summed from the other classes: near certainty the subtraction would round to 0.
    rest_of_label = p.scatter(1, labels[:, None], 0.0).sum(1)
    other_terms = (p * log_rest).scatter(1, labels[:, None], 0.0).sum(1)
    return rest_of_label * _of_label(log_p, labels) + other_terms


def hinge(log_p: Float64[Tensor, "n C"], labels: Int[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Log p_y minus the largest other log p: the margin of the logits (Bertran et al., NeurIPS'23)."""
    return _of_label(log_p, labels) - _others(log_p, labels).amax(1)


def logit(log_p: Float64[Tensor, "n C"], labels: Int[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Log p_y - log(1 - p_y): the logit-scaled confidence (Carlini et al., S&P'22, section IV.C)."""
    return _of_label(log_p, labels) - torch.logsumexp(_others(log_p, labels), dim=1)


Statistic = Callable[[Float64[Tensor, "n C"], Int[Tensor, " n"]], Float64[Tensor, " n"]]

STATISTICS: Mapping[str, Statistic] = {
    "correctness": correctness,
    "loss": loss,
    "entropy": entropy,
    "modified-entropy": modified_entropy,
    "hinge": hinge,
    "logit": logit,
}


def evaluate(
    name: str, log_p: Float64[Tensor, "n C"], labels: Int[Tensor, " n"], *, temperature: float = 1.0
) -> Float64[Tensor, " n"]:
    """Return the statistic called `name` of answers softened by `temperature` (log p / T, normalised again)."""
    if name not in STATISTICS:
        raise unknown_name("statistic", name, STATISTICS)
    if temperature != 1.0:
        log_p = torch.log_softmax(log_p / temperature, dim=1)
    return STATISTICS[name](log_p, labels)
