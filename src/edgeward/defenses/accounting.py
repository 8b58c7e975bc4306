"""What DP-SGD spends: the least of several upper bounds of epsilon, each within bounded time and memory."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import final

from scipy.special import log_ndtr, ndtr, ndtri

from edgeward.core.errors import ConfigError
from edgeward.defenses.loss_distribution import loss_distribution_epsilon
from edgeward.defenses.renyi import SampledGaussian, renyi_epsilon

_HALVINGS = 200
# Above, e^epsilon and the tails cancel too far; the closed form is then as good.
_LARGEST_REFINED = 1e4


@final
@dataclass(frozen=True)
class Spent:
    """An upper bound of epsilon at `delta`, and which accountant proved it."""

    epsilon: float
    delta: float
    accountant: str


@functools.lru_cache(maxsize=64)
def spent(mechanism: SampledGaussian, delta: float) -> Spent:
    """Return the least upper bound that the accountants give for add/remove of one record.

    The Gaussian without sampling and total variation (closed forms), Rényi orders, and privacy losses on a grid of
    Opacus where that is cheap. Guarantee: every one of them is an upper bound (proved; Opacus is assumed to implement
    its paper), so their least is one; finite for noise above 0 unless epsilon leaves float64. Cost: seconds at most, a
    few hundred MB, whatever the arguments. Raises: `ConfigError` where no finite bound is known.
    """
    if mechanism.noise == 0:
        return Spent(math.inf, delta, "none: there is no noise")
    bounds = {
        "total variation of the steps": 0.0 if _variation(mechanism) <= delta else math.inf,
        "analytic Gaussian without sampling": unsampled_epsilon(mechanism, delta),
        "Rényi orders": renyi_epsilon(mechanism, delta),
    }
    known = loss_distribution_epsilon(mechanism, delta) if min(bounds.values()) > 0 else None
    if known is not None:
        bounds["PRV accountant of Opacus"] = max(0.0, known)
    name = min(bounds, key=lambda one: bounds[one])
    if not math.isfinite(bounds[name]):
        raise ConfigError(
            "no accountant can say what DP-SGD spends with so little noise",
            expected="an epsilon within float64",
            came=f"noise {mechanism.noise:g} over {mechanism.steps} steps",
            fix="more noise; or noise 0, which claims nothing",
        )
    return Spent(bounds[name], delta, name)


def unsampled_epsilon(mechanism: SampledGaussian, delta: float) -> float:
    """Return epsilon of as many steps that see every record: one Gaussian step of noise / sqrt(steps).

    Guarantee: exact for rate 1, else an upper bound (proved: sampling mixes in the output without the record).
    Source: Balle, Wang, ICML 2018, theorem 8.
    """
    shift = math.sqrt(mechanism.steps) / mechanism.noise
    high = max(0.0, shift * (shift / 2 - float(ndtri(delta))))
    if not shift < _LARGEST_REFINED:
        return high
    low = 0.0
    if _log_delta(shift, low) <= math.log(delta):
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if _log_delta(shift, middle) <= math.log(delta) else (middle, high)
    return high


def _log_delta(shift: float, epsilon: float) -> float:
    """Return log(Phi(shift/2 - epsilon/shift) - e^epsilon Phi(-shift/2 - epsilon/shift))."""
    first = float(log_ndtr(shift / 2 - epsilon / shift))
    second = epsilon + float(log_ndtr(-shift / 2 - epsilon / shift))
    return first + math.log(-math.expm1(second - first)) if second < first else -math.inf


def _variation(mechanism: SampledGaussian) -> float:
    """Return an upper bound of the total variation between outputs with and without a record."""
    half = 0.5 / mechanism.noise
    return mechanism.steps * mechanism.rate * float(ndtr(half) - ndtr(-half))
