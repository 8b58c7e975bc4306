"""Score matrices whose true rates are known: effects of record, of model and of both together, all Gaussian."""

import numpy as np
from scipy.stats import norm

# Standard deviations of record, model and remaining effects of every score, and of what membership adds by record.
INDEPENDENT = (0.0, 0.0, 1.0, 0.0)
MIXED = (0.6, 0.2, 0.75, 0.5)


def spread(effects):
    """Standard deviations of non-member and of member scores."""
    record, model, rest, gain = effects
    outside = np.sqrt(record**2 + model**2 + rest**2)
    return outside, np.sqrt(outside**2 + gain**2)


def shift(true_tpr, effects):
    """What membership must add on average for this TPR at 1 % FPR."""
    outside, inside = spread(effects)
    return norm.ppf(true_tpr) * inside + norm.ppf(0.99) * outside


def true_auc(true_tpr, effects):
    """The AUC that goes with a TPR at 1 % FPR."""
    return norm.cdf(shift(true_tpr, effects) / np.hypot(*spread(effects)))


def membership(generator, models, groups):
    """Each group in half of the models."""
    return generator.random((models, groups)).argsort(0).argsort(0) < models // 2


def draw(generator, models, records, true_tpr, effects, twins=1):
    """Return scores and truth [S, n] and groups [n]: `twins` records share their group's effects and membership."""
    record, model, rest, gain = effects
    groups = np.arange(records) // twins
    count = int(groups.max()) + 1
    truth = membership(generator, models, count)[:, groups]
    leak = shift(true_tpr, effects) + gain * generator.normal(size=count)[groups]
    scores = record * generator.normal(size=count)[groups] + model * generator.normal(size=(models, 1))
    return scores + rest * generator.normal(size=(models, records)) + truth * leak, truth, groups
