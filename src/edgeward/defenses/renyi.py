"""Rényi differential privacy of the Poisson-sampled Gaussian mechanism, at orders close to 1 and high ones alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64
from scipy.special import gammaln, log_ndtr, logsumexp

# Orders close to 1 decide at low noise, high ones at high noise.
_CLOSE = 1 + np.geomspace(1e-9, 0.99, 200)
_BETWEEN = np.arange(2.1, 12, 0.1)
_WHOLE = np.unique(np.concatenate([np.arange(2, 65), np.geomspace(65, 1 << 14, 60).round()]))
_FINER = 33
# Up to this 1 / noise the moments are integrated; above it both bumps of the integrand lie so far apart that the
# closed form loses less than e^-32.
_FAR = 16.0
_SMALL = 1e-3


@final
@dataclass(frozen=True)
class SampledGaussian:
    """`steps` times: each record is drawn with probability `rate`, and noise of `noise` times its bound is added."""

    noise: float
    rate: float
    steps: int


def renyi_epsilon(mechanism: SampledGaussian, delta: float) -> float:
    """Return the least epsilon at `delta` that any of some 400 orders proves; at least 0, infinite beyond float64.

    Guarantee: an upper bound for add/remove of one record, adaptive composition included (proved; moments in float64).
    Cost: a fraction of a second and a few MB, whatever the arguments. Source: Mironov, Talwar, Zhang, 2019, section 3;
    conversion by Balle et al., AISTATS 2020, theorem 21.
    """
    orders = np.concatenate([_CLOSE, _BETWEEN, _WHOLE])
    epsilons = _epsilons(mechanism, delta, orders)
    if np.isfinite(epsilons).any():
        best = int(np.nanargmin(np.where(np.isfinite(epsilons), epsilons, np.inf)))
        epsilons = np.append(epsilons, _epsilons(mechanism, delta, _around(orders, best)))
    known = epsilons[np.isfinite(epsilons)]
    return max(0.0, float(known.min())) if known.size else math.inf


def _around(orders: Float64[np.ndarray, " k"], best: int) -> Float64[np.ndarray, " m"]:
    """Return more orders between the neighbours of the best one."""
    low, high = orders[max(0, best - 1)], orders[min(len(orders) - 1, best + 1)]
    if high > _BETWEEN[-1]:
        return np.unique(np.linspace(max(low, 2), high, _FINER).round())
    return np.asarray(1 + np.geomspace(low - 1, high - 1, _FINER))


def _epsilons(mechanism: SampledGaussian, delta: float, orders: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    with np.errstate(all="ignore"):  # moments beyond float64 become infinite or NaN, and are left out
        lost = float(mechanism.steps) * _log_moments(np.float64(1) / mechanism.noise, mechanism.rate, orders)
        lost = lost / (orders - 1)
        return np.asarray(lost - (math.log(delta) + np.log(orders)) / (orders - 1) + np.log1p(-1 / orders))


def _log_moments(reach: float, rate: float, orders: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    """Return per step the logarithms of E[(1 - q + q X)^order], X the ratio of the two Gaussians; NaN: not known."""
    if rate >= 1:
        return np.asarray(orders * (orders - 1) / 2 * reach**2)
    whole, close = orders == np.rint(orders), orders < 2
    moments = np.full(len(orders), math.nan)
    moments[whole] = [_expanded(reach, rate, int(order)) for order in orders[whole]]
    if reach > _FAR:
        moments[close] = _far_apart(reach, rate, orders[close])
    else:
        moments[~whole] = [_integrated(reach, rate, order) for order in orders[~whole]]
    return moments


def _expanded(reach: float, rate: float, order: int) -> float:
    """Return the logarithm of a whole moment; what it has above 1 is a sum of positive terms, so that none cancels."""
    k = np.arange(2.0, order + 1)
    growth = (k * k - k) / 2 * reach**2
    ways = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    above = logsumexp(ways + k * math.log(rate) + (order - k) * math.log1p(-rate) + growth + np.log(-np.expm1(-growth)))
    return float(np.logaddexp(0, above))


def _integrated(reach: float, rate: float, order: float) -> float:
    """Return the logarithm of 1 + E[(1 + w)^order - 1 - order w], w = q (X - 1) of mean 0: nothing below 0 in it.

    By the trapezoid rule, which errs by less than e^-45 relatively: the integrand is analytic up to pi / reach off the
    real line, and the step is at most 0.4 / reach.
    """
    step = min(0.1, 0.4 / max(reach, 1.0))
    u = np.arange(-12.0, order * reach + 12, step)
    log_ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + reach * u - reach**2 / 2)
    with np.errstate(all="ignore"):  # each branch is computed everywhere, and used where it holds
        above = logsumexp(_log_excess(log_ratio, order) - u * u / 2) + math.log(step / math.sqrt(2 * math.pi))
    return float(np.logaddexp(0, above))


def _log_excess(log_ratio: Float64[np.ndarray, " m"], order: float) -> Float64[np.ndarray, " m"]:
    """Return log((1 + w)^order - 1 - order w) for log(1 + w), without cancellation."""
    w, less = np.expm1(np.minimum(log_ratio, 1.0)), order - 1
    series = 1 + (order - 2) / 3 * w + (order - 2) * (order - 3) / 12 * w * w
    small = math.log(order * less / 2) + 2 * np.log(np.abs(w)) + np.log(np.abs(series))
    medium = np.log((1 + w) * np.expm1(less * np.minimum(log_ratio, 1.0)) - less * w)
    # (1 + w) expm1(less log(1 + w)) - less w, divided by 1 + w, which may be beyond float64.
    large = log_ratio + _log_expm1(less * log_ratio, less * -np.expm1(-log_ratio))
    return np.asarray(np.where(np.abs(w) < _SMALL, small, np.where(log_ratio < 1, medium, large)))


def _log_expm1(x: Float64[np.ndarray, " m"], less: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    """Return log(e^x - 1 - less) for 0 <= less < e^x - 1."""
    close = np.log(np.expm1(np.minimum(x, 1.0)) - less)
    return np.asarray(np.where(x < 1, close, x + np.log1p(-(1 + less) * np.exp(-x))))


def _far_apart(reach: float, rate: float, orders: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    """Return upper bounds of the logarithms of moments of orders in (1, 2) for low noise.

    (x + y)^a <= x^a + a x^(a-1) y + y^a for 1 <= a <= 2, with the larger of both as x, on each side of x = y.
    """
    rest = 1 - rate
    meet = reach / 2 + (math.log1p(-rate) - math.log(rate)) / reach
    power = orders * np.log(rate) + orders * (orders - 1) / 2 * reach**2
    left = np.log(orders * rate) + (orders - 1) * math.log1p(-rate) + log_ndtr(meet - reach)
    right = np.log(orders * rest) + (orders - 1) * np.log(rate) + (orders - 1) * (orders - 2) / 2 * reach**2
    right = right + log_ndtr((orders - 1) * reach - meet)
    return np.asarray(np.logaddexp.reduce([orders * math.log1p(-rate), power, left, right]))
