"""Really trained, really over-fitted siblings for the tests: S stacked two-layer networks on mislabelled points."""

import torch

from edgeward.attacks.signals import Signals
from edgeward.core.randomness import Seed

CLASSES, FEATURES, HIDDEN = 5, 20, 48


def balanced_keep(models, points, seed):
    """Each point is in exactly half of the models."""
    ranks = torch.rand(models, points, generator=seed.torch()).argsort(0).argsort(0)
    return ranks < models // 2


def train(x, y, keep, seed, steps=150):
    """Full-batch Adam on the members of every model at once; returns x -> logits [S, n, C]."""
    generator = seed.torch()
    s = len(keep)
    shapes = [(s, FEATURES, HIDDEN), (s, 1, HIDDEN), (s, HIDDEN, CLASSES), (s, 1, CLASSES)]
    params = [(torch.randn(shape, generator=generator) * shape[1] ** -0.5).requires_grad_() for shape in shapes]

    def forward(records):
        hidden = torch.relu(records.expand(s, *records.shape) @ params[0] + params[1])
        return hidden @ params[2] + params[3]

    optimizer = torch.optim.Adam(params, lr=0.02)
    for _ in range(steps):
        logits = forward(x)
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.repeat(s), reduction="none").view(s, -1)
        optimizer.zero_grad()
        ((losses * keep).sum() / keep[0].sum()).backward()
        optimizer.step()
    return torch.no_grad()(forward)


def records(count, seed):
    """Gaussian features; the label is a noisy linear rule, so that something can be learned and noise memorised."""
    generator = seed.torch()
    x = torch.randn(count, FEATURES, generator=generator)
    rule = torch.randn(FEATURES, CLASSES, generator=Seed(99).torch())
    y = (x @ rule).argmax(1)
    noisy = torch.rand(count, generator=generator) < 0.4
    return x, torch.where(noisy, torch.randint(0, CLASSES, (count,), generator=generator), y)


def signals(seed, *, models=8, points=120, population=300, independent=False):
    """Return signals and the networks; with `independent` nobody trained on the points that `keep` speaks of."""
    x, y = records(points, seed.child("points"))
    z, z_labels = records(population, seed.child("population"))
    keep = balanced_keep(models, points, seed.child("keep"))
    trained_on = records(points, seed.child("elsewhere")) if independent else (x, y)
    run = train(*trained_on, keep, seed.child("train"))
    return Signals(run(x), y, keep, run(z), z_labels), run, x, z
