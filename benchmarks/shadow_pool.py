"""32 shadow models trained as one batched computation against the same 32 trained one after the other."""

import math
import time

import torch
import torch.nn.functional as F
from torch import nn

from edgeward.core import Seed
from edgeward.data import load
from edgeward.train import Schedule, train_many
from edgeward.train.population import build

NAME = "shadow-pool"
DESCRIPTION = "32 shadow MLPs (64-128-10) on digits: train_many against ordinary PyTorch, one model after the other"

MODELS, EPOCHS, BATCH, RATE = 32, 20, 64, 2e-3


def factory() -> nn.Module:
    """The shadow model."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def one_after_the_other(x, y, members, seed, fused):
    """Train each model with its own Adam in the plain PyTorch way; the same number of steps as train_many takes.

    `fused` None is what `torch.optim.Adam(parameters)` does by default on a CPU.
    """
    models = []
    for s, mask in enumerate(members):
        model = build(factory, seed.child("model", s))
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=fused)
        own = mask.nonzero().squeeze(1)
        steps = math.ceil(int(members.sum(1).max()) / BATCH)
        for epoch in range(EPOCHS):
            order = own[torch.randperm(len(own), generator=seed.child("model", s).child("order", epoch).torch())]
            for rows in torch.tensor_split(order, steps):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
        models.append(model)
    return models


def run() -> dict:
    """Time both ways of training the same models alternately, best of five, and compare what they learned."""
    seed = Seed(0)
    splits = load("digits", seed=seed, canaries=10)
    x, y = splits.train.x, splits.train.y
    members = torch.rand(MODELS, len(x), generator=seed.torch()) < 0.5
    schedule = Schedule(epochs=EPOCHS, batch=BATCH, rate=RATE)
    ours, peer, fused_peer = math.inf, math.inf, math.inf
    torch.set_flush_denormal(True)
    try:
        for _ in range(5):
            start = time.perf_counter()
            population = train_many(factory, x, y, members, classes=10, seed=seed, schedule=schedule)
            ours = min(ours, time.perf_counter() - start)
            torch.set_flush_denormal(True)
            start = time.perf_counter()
            one_after_the_other(x, y, members, seed, True)
            fused_peer = min(fused_peer, time.perf_counter() - start)
            start = time.perf_counter()
            models = one_after_the_other(x, y, members, seed, None)
            peer = min(peer, time.perf_counter() - start)
    finally:
        torch.set_flush_denormal(False)
    probe = splits.holdout.x
    with torch.no_grad():
        difference = max(
            float((population.logits(probe)[s] - model(probe)).abs().max()) for s, model in enumerate(models)
        )
        agreement = float(
            torch.stack([m(probe).argmax(1) for m in models]).eq(population.logits(probe).argmax(-1)).float().mean()
        )
    return {
        "name": NAME,
        "ratio": peer / ours,
        "ours": ours,
        "peer": peer,
        "unit": "s",
        "peer_name": "PyTorch with its default Adam, one model after the other",
        "peer_with_fused_adam": fused_peer,
        "ratio_to_fused_adam": fused_peer / ours,
        "threads": torch.get_num_threads(),
        "largest_logit_difference": difference,
        "label_agreement": agreement,
        "models": MODELS,
        "epochs": EPOCHS,
        "batch": BATCH,
    }
