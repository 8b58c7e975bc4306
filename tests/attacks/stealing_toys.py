"""Really trained victims and public priors on the embedded digits, small enough to be stolen in a second."""

from dataclasses import replace

import torch
from sklearn.datasets import load_digits
from torch import nn

from edgeward.attacks.extraction import Attacker, Exposure, audit_split, measure_references
from edgeward.attacks.extraction.audit import runner
from edgeward.attacks.extraction.exposure import learned_keys
from edgeward.attacks.extraction.surrogate import Surrogate, parameter_name
from edgeward.attacks.extraction.training import trained
from edgeward.attacks.oracle import Oracle
from edgeward.core.randomness import Seed
from edgeward.data.records import Records
from edgeward.graph import capture, fold_batch_norm
from edgeward.train import Schedule
from edgeward.train.fit import train_many

BUDGETS = (40, 160)
SEEDS = 2
# Each view and each kind of training once; the others are tried where a test is about them.
VARIANTS = ("as it is", "fine-tuned", "hidden part trained", "new head", "head on taps", "monitor on taps")
ATTACKER = Attacker(
    rates=(1e-2,), head_rates=(1e-2,), entry_rates=(1e-1,), epochs=8, steps=40, variants=VARIANTS, finalists=1
)
ATTACKER = replace(ATTACKER, queries=("records",))


def tiny():
    first = [nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def images():
    """All digits as [n, 1, 8, 8] in a fixed random order."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=Seed(0).torch())
    return torch.tensor(data.images[:, None] / 16, dtype=torch.float32)[order], torch.tensor(data.target)[order]


X, Y = images()
PRIVATE, PUBLIC, POOL, HOLDOUT = slice(0, 700), slice(700, 1000), slice(1000, 1300), slice(1300, 1797)
MEMBERS = Records(X[PRIVATE], Y[PRIVATE], "private")
QUERIES = Records(X[POOL], Y[POOL], "queries")
JUDGES = Records(X[HOLDOUT], Y[HOLDOUT], "holdout")


def train(x, y, epochs, seed):
    """Train the tiny network with BatchNorm and fold it."""
    members = torch.ones(1, len(x), dtype=torch.bool)
    schedule = Schedule(epochs=epochs, batch=50, rate=5e-3, decay="cosine")
    population = train_many(tiny, x, y, members, classes=10, seed=Seed(seed), schedule=schedule)
    return fold_batch_norm(capture(population.member(0, tiny), (1, 8, 8)))


def tuned(network, x, y, epochs, rate):
    """Return the network trained on, all tensors, from where it stands."""
    model = Surrogate(network, network.outputs, network.tensors)
    members = torch.ones(1, len(x), dtype=torch.bool)
    schedule = Schedule(epochs=epochs, batch=50, rate=rate)
    state = trained([model], frozenset(), x, y, members, [Seed(1)], schedule, [], 10, "cpu").state(0)
    return replace(network, tensors={key: state[parameter_name(key)] for key in network.tensors})


def random_prior(network, seed):
    generator = Seed(seed).torch()
    return {k: torch.randn(network.tensors[k].shape, generator=generator) for k in learned_keys(network)}


def convolutions(network):
    return [node.tensors["weight"] for node in network.nodes if node.operator == "conv2d"]


def head(network):
    return tuple(next(node for node in network.nodes if node.operator == "linear").tensors.values())


def relus(network):
    return tuple(node.output for node in network.nodes if node.operator == "relu")


def black_box(victim, prior):
    return Exposure("black box", victim, {}, prior, taps=relus(victim))


def no_shield(victim, prior):
    return Exposure.of("no shield", victim, prior, taps=relus(victim), direct=victim)


def labels_of(network):
    return Oracle(runner(network), "label")


def ends_of(victim, parent, budgets, seeds=SEEDS):
    pair = black_box(victim, parent.tensors), no_shield(victim, parent.tensors)
    rest = (labels_of(victim), QUERIES, JUDGES, budgets, seeds)
    return measure_references(*pair, *rest, attacker=ATTACKER)


def audited(exposure, victim, ends, *, budgets=BUDGETS, seeds=SEEDS, **more):
    oracle = victim if callable(victim) or isinstance(victim, Oracle) else labels_of(victim)
    rest = (QUERIES, JUDGES, budgets, seeds)
    return audit_split(exposure, oracle, *rest, references=ends, **{"attacker": ATTACKER, **more})
