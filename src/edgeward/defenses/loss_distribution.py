"""The accountant of Opacus that follows the distribution of the privacy loss, where its grid is small enough."""

from __future__ import annotations

import math
import warnings

from edgeward.defenses.renyi import SampledGaussian, renyi_epsilon

_ERROR, _LARGEST_ERROR = 0.01, 0.5
# 2^20 points take about a second and 200 MB.
_MOST_POINTS = 1 << 20
# Below, roundings of float64 alone would make up what is asked for.
_LEAST_DELTA = 1e-12
# The accountant takes e^loss in float64.
_MOST_LOSS = 300.0


def loss_distribution_epsilon(mechanism: SampledGaussian, delta: float) -> float | None:
    """Return an upper bound of epsilon by convolving privacy losses, or None where that costs too much or is unsure.

    Guarantee: epsilon plus the accountant's stated error of 0.01, or more (up to 0.5 and a fiftieth) where only a
    coarser grid keeps below 2^20 points (proved for real numbers; assumed of Opacus and of float64). Unsure: a delta
    that the roundings of so many points could make up. Source: Gopi, Lee, Wutschitz, NeurIPS 2021; Opacus 1.6.
    """
    if mechanism.rate >= 1 or delta < _LEAST_DELTA:
        return None
    unsure, steps = delta / 1000, mechanism.steps
    reach = max(
        renyi_epsilon(mechanism, unsure / 4),
        renyi_epsilon(SampledGaussian(mechanism.noise, mechanism.rate, 1), unsure / (8 * steps)),
    )
    reach = max(reach, _ERROR) + 3
    spread = math.sqrt(steps * math.log(12 / unsure) / 2)
    error = max(_ERROR, 2 * reach * spread / _MOST_POINTS)
    if not reach < _MOST_LOSS or error > max(_ERROR, min(_LARGEST_ERROR, renyi_epsilon(mechanism, delta) / 50)):
        return None
    points = 2 * reach * spread / error
    return None if points * 2.0**-52 > delta / 100 else _composed(mechanism, delta, reach, error, error / spread)


def _composed(mechanism: SampledGaussian, delta: float, reach: float, error: float, mesh: float) -> float | None:
    from opacus.accountants.analysis import prv

    domain = prv.Domain.create_aligned(-reach, reach, mesh)
    loss = prv.PoissonSubsampledGaussianPRV(mechanism.rate, mechanism.noise)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            one = prv.discretize(prv.TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max), domain)
            together = prv.compose_heterogeneous([one], [mechanism.steps])
            epsilon = float(together.compute_epsilon(delta, delta / 1000, error)[2])
        except (RuntimeError, ValueError, OverflowError):
            # Its own checks of what rounding left of the distribution.
            return None
    return epsilon if math.isfinite(epsilon) else None
