"""What differential privacy allows an attacker, and what an attack says about epsilon."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float64
from scipy.stats import beta

from edgeward.attacks.metrics import Curve, Scores, Truth
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import Seed


def dp_tpr_bound(epsilon: float, delta: float, fpr: float) -> float:
    """Return the largest TPR any membership test can reach at `fpr` against an (epsilon, delta)-DP model.

    Guarantee: proved for add/remove or replace neighbours, whichever the accountant counted, against any adversary.
    Source: Kairouz, Oh, Viswanath, ICML'15, theorem 2.1: TPR <= min(e^eps FPR + delta, 1 - e^-eps (1 - delta - FPR)).

    >>> [round(dp_tpr_bound(eps, 0.0, 0.001), 4) for eps in (1, 2, 4)]
    [0.0027, 0.0074, 0.0546]
    """
    if epsilon < 0 or not (0 <= delta <= 1 and 0 <= fpr <= 1):
        raise ConfigError(
            "the privacy parameters are out of range",
            expected="epsilon >= 0, 0 <= delta <= 1, 0 <= fpr <= 1",
            came=f"epsilon = {epsilon}, delta = {delta}, fpr = {fpr}",
            fix="pass epsilon and delta as the accountant states them, and the FPR as a fraction",
        )
    steep = math.exp(min(epsilon, 700.0)) * fpr + delta
    return max(0.0, min(1.0, steep, 1 - math.exp(-epsilon) * (1 - delta - fpr)))


def negatives_needed(fpr: float) -> int:
    """Return how many non-member trials are needed to speak about a false positive rate: 10 / fpr.

    >>> negatives_needed(0.001)
    10000
    """
    return math.ceil(10 / fpr - 1e-9)


def resolution_note(negatives: int, fpr: float) -> str | None:
    """Return a warning when `negatives` trials are too few to speak about `fpr`, else None.

    >>> resolution_note(1600, 0.001)
    'TPR at 0.1% FPR rests on 1600 non-member trials; about 10000 are needed'
    """
    needed = negatives_needed(fpr)
    if negatives >= needed:
        return None
    return f"TPR at {fpr * 100:g}% FPR rests on {negatives} non-member trials; about {needed} are needed"


def epsilon_lower_bound(
    scores: Scores, truth: Truth, *, delta: float = 0.0, level: float = 0.95, seed: Seed | None = None
) -> float:
    """Return the epsilon that the attack refutes: with confidence `level` the true epsilon is larger; 0 if none.

    A random half of the trials chooses the threshold and the side, the other half is counted there once, with one-sided
    Clopper-Pearson bounds at (1 - level) / 2: ln((TPR_low - delta) / FPR_high) or ln((TNR_low - delta) / FNR_high).
    Guarantee: holds for independent trials (one canary per trained model). Many canaries in one model are not
    independent; the number is then an estimate. Its ceiling grows with the trials only: with n of each kind, all
    guessed rightly, about ln(n / 7.4) at 95 %.
    """
    flat, members = scores.flatten(), truth.flatten()
    order = torch.randperm(flat.numel(), generator=(seed or Seed(0)).torch())
    choosing, counting = order[: flat.numel() // 2], order[flat.numel() // 2 :]
    chosen = Curve.of(flat[choosing], members[choosing])
    bounds = np.stack(_bounds(chosen.true, chosen.false, chosen.positives, chosen.negatives, delta, level))
    side, place = np.unravel_index(int(bounds.argmax()), bounds.shape)
    passed = (flat[counting] >= float(chosen.threshold[place])).numpy()
    kept = members[counting].numpy()
    if kept.all() or not kept.any():
        return 0.0
    true, false = np.array([(passed & kept).sum()]), np.array([(passed & ~kept).sum()])
    both = _bounds(true, false, int(kept.sum()), int((~kept).sum()), delta, level)
    return max(0.0, float(both[side][0]))


def _bounds(
    true: np.ndarray, false: np.ndarray, positives: int, negatives: int, delta: float, level: float
) -> tuple[Float64[np.ndarray, " g"], Float64[np.ndarray, " g"]]:
    """Return both lower bounds on epsilon at every threshold; -inf where the numerator is not positive."""
    tail = (1 - level) / 2
    by_tpr = _log_ratio(_lower(true, positives, tail) - delta, _upper(false, negatives, tail))
    rejected, missed = negatives - false, positives - true
    by_tnr = _log_ratio(_lower(rejected, negatives, tail) - delta, _upper(missed, positives, tail))
    return by_tpr, by_tnr


def _log_ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.where(top > 0, np.log(np.maximum(top, 1e-300) / bottom), -np.inf)


def _lower(successes: np.ndarray, trials: int, tail: float) -> np.ndarray:
    found = beta.ppf(tail, np.maximum(successes, 1), trials - np.maximum(successes, 1) + 1)
    return np.where(successes == 0, 0.0, found)


def _upper(successes: np.ndarray, trials: int, tail: float) -> np.ndarray:
    least = np.minimum(successes, trials - 1)
    return np.where(successes == trials, 1.0, beta.ppf(1 - tail, least + 1, trials - least))
