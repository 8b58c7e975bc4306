"""Early stopping keeps each model's best epoch; input noise has the asked spread."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from torch import nn

from edgeward.core.errors import CompositionError, ConfigError
from edgeward.core.randomness import Seed
from edgeward.defenses import EarlyStopping, InputNoise
from edgeward.train import Batch, CrossEntropy, Part, Population, Schedule, fit
from train.train_toys import blobs, context, linear, memberships, normed, perceptron


@dataclass(frozen=True)
class Diary(Part):
    """Remembers every model's state and validation loss after each epoch."""

    slug: ClassVar[str] = "diary"
    losses: list = field(default_factory=list)
    states: list = field(default_factory=list)

    def on_epoch(self, made, population):
        x, y = made.validation
        logits = population.logits(x)
        self.losses.append([float(nn.functional.cross_entropy(one, y)) for one in logits])
        self.states.append([population.state(s) for s in range(len(population))])


@pytest.mark.parametrize("factory", [perceptron, normed])
@pytest.mark.parametrize("patience", [1, 3])
def test_each_model_gets_back_its_epoch_of_lowest_validation_loss(factory, patience):
    x, y = blobs(24, spread=3.0)
    schedule = Schedule(epochs=25, batch=8, rate=0.05)
    made = context(factory, x, y, memberships(4, 24), schedule, validation=blobs(40, 9, 3.0))
    diary = Diary()
    trained = fit(Population.initialise(factory, made.seeds), made, [CrossEntropy(), diary, EarlyStopping(patience)])
    stops = []
    for s in range(4):
        series = [losses[s] for losses in diary.losses]
        best, stale = 0, 0
        for epoch in range(1, len(series)):
            if series[epoch] < series[best]:
                best, stale = epoch, 0
            else:
                stale += 1
            if stale >= patience:
                break
        stops.append(best)
        for name, tensor in diary.states[best][s].items():
            assert torch.equal(trained.state(s)[name], tensor), (s, name)
    assert len(set(stops)) > 1, "all models stopped together: the test shows nothing"
    assert made.epoch == len(diary.losses)
    assert made.epoch < 25 or patience > 1


def test_without_validation_records_it_is_refused():
    x, y = blobs(8)
    for validation in (None, (x[:0], y[:0])):
        made = context(linear, x, y, memberships(1, 8), Schedule(epochs=1), validation=validation)
        with pytest.raises(CompositionError, match="validation"):
            fit(Population.initialise(linear, made.seeds), made, [CrossEntropy(), EarlyStopping()])


def test_a_patience_that_never_waits_is_refused():
    with pytest.raises(ConfigError, match="patience"):
        EarlyStopping(0)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 2.0])
def test_input_noise_has_the_asked_spread_and_changes_nothing_else(ratio):
    x, y = blobs(200)
    made = context(linear, x, y, memberships(2, 200), Schedule(epochs=1))
    index = torch.arange(200).expand(2, -1)
    batch = Batch(x[index], y[index], index, torch.ones(2, 200))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Seed(3).value)
        noisy = InputNoise(ratio).augment(made, batch)
    added = noisy.x - batch.x
    assert float(added.std()) == pytest.approx(ratio * float(x.std()), rel=0.05)
    assert abs(float(added.mean())) < 0.1
    assert not ratio or not torch.equal(added[0], added[1])
    assert torch.equal(noisy.y, batch.y)
    assert noisy.target is None
