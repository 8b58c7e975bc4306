"""The training loop: many models at once are the models one by one; orders, refusals and hooks."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeward.core.errors import CompositionError, ConfigError, DataError, ModelError
from edgeward.core.randomness import Seed
from edgeward.train import CrossEntropy, Needs, Part, Population, Schedule, fit, train_many
from edgeward.train.compose import compose
from edgeward.train.fit import epoch_order, rate_at
from edgeward.train.population import build
from train.train_toys import CLASSES, blobs, context, double, linear, memberships, normed, perceptron


@pytest.mark.parametrize("factory", [linear, perceptron, normed])
@pytest.mark.parametrize("per_model", [False, True])
def test_population_answers_as_its_modules(factory, per_model):
    models = Population.initialise(factory, [Seed(s) for s in range(3)])
    x = torch.randn(3, 7, 6, generator=Seed(1).torch())
    given_x = x if per_model else x[0]
    together = models.forward(given_x, training=False, per_model=per_model)
    for s in range(3):
        alone = models.member(s, factory)(x[s] if per_model else x[0])
        torch.testing.assert_close(together[s], alone)
    assert torch.equal(models.logits(x[0], chunk=2), models.logits(x[0]))


def test_population_keeps_running_statistics_per_model():
    models = Population.initialise(normed, [Seed(0), Seed(1)])
    x = torch.randn(2, 9, 6, generator=Seed(1).torch())
    models.forward(x, training=True, per_model=True)
    for s in range(2):
        module = build(normed, Seed(s)).train()
        module(x[s])
        torch.testing.assert_close(models.buffers["1.running_mean"][s], module.get_buffer("1.running_mean"))
        assert int(models.buffers["1.num_batches_tracked"][s]) == 1


def test_stacking_differing_models_is_one_error():
    with pytest.raises(ModelError, match="cannot be stacked"):
        Population.stack([nn.Linear(2, 2), nn.Linear(3, 2)])


@pytest.mark.parametrize(("optimizer", "decay"), [("sgd", "constant"), ("sgd", "cosine"), ("adam", "constant")])
def test_train_many_equals_each_model_trained_alone_by_torch(optimizer, decay):
    """Reference: an ordinary torch loop over the same order, in float64."""
    x, y = blobs(40)
    x = x.double()
    members = memberships(3, 40)
    schedule = Schedule(epochs=4, batch=8, rate=0.05, optimizer=optimizer, decay=decay, weight_decay=0.01)
    models = train_many(double, x, y, members, classes=CLASSES, seed=Seed(5), schedule=schedule)
    steps = -(-int(members.sum(1).max()) // 8)
    for s in range(3):
        seed = Seed(5).child("model", s)
        module = build(double, seed)
        if optimizer == "sgd":
            opt = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
        else:
            opt = torch.optim.Adam(module.parameters(), lr=0.05, weight_decay=0.01)
        own = members[s].nonzero().squeeze(1)
        for epoch in range(4):
            opt.param_groups[0]["lr"] = rate_at(schedule, epoch)
            order = own[torch.randperm(len(own), generator=seed.child("order", epoch).torch())]
            for rows in torch.tensor_split(order, steps):
                opt.zero_grad()
                nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
                opt.step()
        for name, tensor in module.state_dict().items():
            torch.testing.assert_close(models.params[name][s], tensor, rtol=1e-9, atol=1e-12)


def test_a_model_does_not_depend_on_its_siblings():
    x, y = blobs(32)
    x, members = x.double(), torch.ones(3, 32, dtype=torch.bool)
    schedule = Schedule(epochs=3, batch=8, rate=0.05, optimizer="sgd")
    three = train_many(double, x, y, members, classes=CLASSES, seed=Seed(2), schedule=schedule)
    one = train_many(double, x, y, members[:1], classes=CLASSES, seed=Seed(2), schedule=schedule)
    for name, tensor in one.params.items():
        torch.testing.assert_close(three.params[name][0], tensor[0], rtol=1e-9, atol=1e-12)


@given(
    masks=st.integers(1, 30).flatmap(
        lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n).filter(any), min_size=1, max_size=4)
    ),
    batch=st.integers(1, 40),
    epoch=st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_epoch_order_covers_each_member_once_and_no_one_else(masks, batch, epoch):
    members = torch.tensor(masks)
    seeds = [Seed(s) for s in range(len(members))]
    index, weight = epoch_order(members, seeds, epoch, batch)
    assert index.shape == weight.shape
    assert index.shape[2] <= batch
    assert index.shape[1] == -(-int(members.sum(1).max()) // batch)
    assert set(weight.unique().tolist()) <= {0.0, 1.0}
    for s, mask in enumerate(members):
        assert mask[index[s].flatten()].all(), "a non-member was touched"
        real = index[s][weight[s] == 1]
        assert sorted(real.tolist()) == mask.nonzero().squeeze(1).tolist()
        sizes = weight[s].sum(1)
        assert sizes.max() - sizes.min() <= 1
    again, _ = epoch_order(members[:1], seeds[:1], epoch, batch)
    if again.shape == index[:1].shape:
        assert torch.equal(again, index[:1])


def test_padding_of_very_uneven_memberships_trains():
    x, y = blobs(30)
    members = torch.zeros(2, 30, dtype=torch.bool)
    members[0, :3] = True
    members[1] = True
    models = train_many(linear, x, y, members, classes=CLASSES, seed=Seed(0), schedule=Schedule(epochs=1, batch=20))
    assert torch.isfinite(models.logits(x)).all()


def test_non_finite_training_is_one_model_error():
    x, y = blobs(20)
    members = torch.ones(2, 20, dtype=torch.bool)
    fast = Schedule(epochs=6, batch=10, rate=1e30, optimizer="sgd")
    with pytest.raises(ModelError, match="learning rate"):
        train_many(perceptron, x, y, members, classes=CLASSES, seed=Seed(0), schedule=fast)
    x[3, 2] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        train_many(linear, x, y, members, classes=CLASSES, seed=Seed(0), schedule=Schedule(epochs=1, batch=10))


def test_weights_that_the_last_step_broke_are_refused():
    @dataclass(frozen=True)
    class Breaks(Part):
        slug: ClassVar[str] = "breaks"

        def finish(self, context, population):
            with torch.no_grad():
                population.params["weight"][1, 0, 0] = float("inf")

    x, y = blobs(12)
    made = context(linear, x, y, torch.ones(2, 12, dtype=torch.bool), Schedule(epochs=1))
    with pytest.raises(ModelError, match="1 tensors hold NaN or infinity"):
        fit(Population.initialise(linear, made.seeds), made, [CrossEntropy(), Breaks()])


def test_all_problems_with_records_in_one_error():
    x, y = blobs(10)
    members = torch.ones(2, 10, dtype=torch.bool)
    members[1] = False
    made = context(linear, x, y + 5, members, Schedule(epochs=1))
    made.seeds = made.seeds[:1]
    with pytest.raises(DataError) as caught:
        fit(Population.initialise(linear, [Seed(0), Seed(1)]), made, [CrossEntropy()])
    for reason in ("labels from 5 to 6 for 2 classes", "1 seeds for 2 models", "no member"):
        assert reason in str(caught.value)
    with pytest.raises(DataError, match="labels from -1"):
        train_many(linear, x, y - 1, members[:1], classes=CLASSES, seed=Seed(0))


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"batch": 0},
        {"rate": 0.0},
        {"rate": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"optimizer": "lion"},
        {"decay": "linear"},
    ],
)
def test_schedule_refuses(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Schedule(**bad)


def test_schedule_names_all_its_problems_at_once():
    with pytest.raises(ConfigError) as caught:
        Schedule(epochs=0, batch=0, optimizer="lion")
    assert all(word in caught.value.expected for word in ("epochs", "batch", "optimizer"))


@dataclass(frozen=True)
class Demanding(Part):
    """A part with the needs of its class."""

    slug: ClassVar[str] = "demanding"


class Owner(Demanding):
    slug = "owner"
    needs = Needs(owns_optimizer=True, owns_order=True, differentially_private=True, forbids_batch_norm=True)


class Coupled(Demanding):
    slug = "coupled"
    needs = Needs(per_sample_loss=False, touches_records_outside_loss=True)


class Stepping(Demanding):
    slug = "stepping"

    def on_step(self, context, population):
        raise AssertionError("never called")


def test_compose_names_every_reason():
    with pytest.raises(CompositionError) as caught:
        compose([Owner(), Owner(), Coupled(), Stepping()], normed())
    reasons = str(caught.value)
    for reason in ("each own the optimiser", "each own the data order", "coupled couple", "outside the clipped loss"):
        assert reason in reasons
    assert "BatchNorm couples samples at 1" in reasons
    assert "no part gives a loss" in reasons
    assert "stepping act during training" in reasons


def test_compose_returns_the_losses_of_a_legal_list():
    assert len(compose([CrossEntropy(), Stepping(), CrossEntropy()], normed())) == 2


def test_global_generator_is_left_alone():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    x, y = blobs(20)
    members = memberships(2, 20)
    first, second = (
        train_many(normed, x, y, members, classes=CLASSES, seed=Seed(1), schedule=Schedule(epochs=2, batch=8))
        for _ in range(2)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first.params[n], second.params[n]) for n in first.params)


def test_a_stopping_part_stops_the_loop():
    class Stops(Demanding):
        slug = "stops"

        def on_epoch(self, context, population):
            context.stop = context.epoch == 2

    x, y = blobs(12)
    made = context(linear, x, y, torch.ones(1, 12, dtype=torch.bool), Schedule(epochs=9))
    fit(Population.initialise(linear, made.seeds), made, [CrossEntropy(), Stops()])
    assert made.epoch == 2


def test_augmentations_draw_anew_in_every_epoch():
    drawn = []

    class Draws(Demanding):
        slug = "draws"

        def augment(self, made, batch):
            drawn.append(float(torch.rand(())))
            return batch

    x, y = blobs(12)
    made = context(linear, x, y, torch.ones(1, 12, dtype=torch.bool), Schedule(epochs=4, batch=12))
    fit(Population.initialise(linear, made.seeds), made, [CrossEntropy(), Draws()])
    assert len(set(drawn)) == 4
