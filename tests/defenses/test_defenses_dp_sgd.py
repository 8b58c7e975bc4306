"""DP-SGD: the steps are clipped Poisson SGD, and the statement is what the accountant and the theorem say."""

import re
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from torch import nn

from edgeward.attacks.privacy import dp_tpr_bound
from edgeward.core.errors import CompositionError, ConfigError, ModelError
from edgeward.core.randomness import Seed
from edgeward.defenses import CrossFitDistillation, DpSgd, EarlyStopping, InputNoise
from edgeward.defenses.clipping import Clipped, Rows
from edgeward.train import CrossEntropy, Part, Population, Schedule, fit
from edgeward.train.population import build
from train.train_toys import blobs, context, linear, memberships, normed, perceptron


@dataclass(frozen=True)
class Spy(Part):
    """Cross-entropy that remembers which records each step drew."""

    slug: ClassVar[str] = "spy"
    drawn: list = field(default_factory=list)

    def loss(self):
        inner = CrossEntropy().loss()

        def value(logits, batch, made):
            self.drawn.append(batch.index[0].clone())
            return inner(logits, batch, made)

        return value


def train(part, factory=linear, *, schedule, count=24, x=None, y=None, members=None):
    blob_x, blob_y = blobs(count)
    x, y = blob_x if x is None else x, blob_y if y is None else y
    members = torch.ones(1, len(x), dtype=torch.bool) if members is None else members
    factory = part.wrap_factory(factory)
    made = context(factory, x, y, members, schedule)
    start = Population.initialise(factory, made.seeds)
    spy = Spy()
    trained = fit(start.clone(), made, [spy, part])
    return start, trained, spy.drawn, made


def gradient(module, x, y):
    module.zero_grad()
    nn.functional.cross_entropy(module(x[None]), y[None]).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize("clip", [1e6, 0.05])
@pytest.mark.parametrize("factory", [linear, perceptron])
def test_without_noise_it_is_clipped_sgd_on_its_poisson_batches(clip, factory):
    """Reference: sum of per-record gradients, each clipped to C, over the expected batch size."""
    x, y = blobs(24)
    schedule = Schedule(epochs=3, batch=6, rate=0.3, optimizer="sgd")
    start, trained, drawn, _ = train(DpSgd(noise=0.0, clip=clip), factory, schedule=schedule)
    assert len(drawn) == 3 * 4
    module = start.member(0, factory)
    for rows in drawn:
        total = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
        for i in rows:
            own = gradient(module, x[i], y[i])
            norm = float(torch.cat([g.flatten() for g in own.values()]).norm())
            for name, g in own.items():
                total[name] += g * min(1.0, clip / (norm + 1e-6))
        with torch.no_grad():
            for name, p in module.named_parameters():
                p -= 0.3 * total[name] / 6
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(trained.params[name][0], tensor, rtol=1e-4, atol=1e-6)


def test_one_outlier_cannot_move_the_weights_further_than_the_clip_allows():
    x, y = blobs(20)
    x[3] *= 1000.0
    schedule = Schedule(epochs=1, batch=20, rate=1.0, optimizer="sgd")

    def update(part):
        start, trained, drawn, _ = train(part, schedule=schedule, x=x, y=1 - y)
        moved = torch.cat([(trained.params[n] - start.params[n]).flatten() for n in start.params]).norm()
        return float(moved), sum(len(rows) for rows in drawn)

    bounded, records = update(DpSgd(noise=0.0, clip=0.1))
    assert bounded <= 1.0 * 0.1 * records / 20 + 1e-5
    free, _ = update(DpSgd(noise=0.0, clip=1e9))
    assert free > 10.0


def test_poisson_batches_vary_may_be_empty_and_draw_members_only():
    members = torch.zeros(1, 12, dtype=torch.bool)
    members[0, ::3] = True
    schedule = Schedule(epochs=12, batch=1, rate=0.1, optimizer="sgd")
    _, trained, drawn, _ = train(DpSgd(noise=0.5), schedule=schedule, count=12, members=members)
    sizes = {len(rows) for rows in drawn}
    assert 0 in sizes, "no empty batch was tried"
    assert len(sizes) > 2
    assert {int(i) for rows in drawn for i in rows} == {0, 3, 6, 9}
    assert torch.isfinite(trained.params["weight"]).all()


def test_an_empty_step_still_adds_noise():
    schedule = Schedule(epochs=1, batch=1, rate=1.0, optimizer="sgd")
    start, trained, drawn, _ = train(DpSgd(noise=2.0, clip=1.0), schedule=schedule, count=2)
    still = train(DpSgd(noise=0.0, clip=1e-9), schedule=schedule, count=2)[1]
    torch.testing.assert_close(still.params["weight"], start.params["weight"], atol=1e-6, rtol=0)
    moved = (trained.params["weight"] - start.params["weight"]).std()
    # two steps of standard deviation sigma C rate / expected batch size
    assert 0.5 * 2.0 * 2**0.5 < moved < 2.0 * 2.0 * 2**0.5
    assert len(drawn) == 2


def test_models_have_their_own_noise_and_repeat_with_their_seed():
    members = torch.ones(2, 12, dtype=torch.bool)
    schedule = Schedule(epochs=2, batch=4, rate=0.1, optimizer="sgd")
    first = train(DpSgd(), normed, schedule=schedule, count=12, members=members)[1]
    torch.rand(3)
    second = train(DpSgd(), normed, schedule=schedule, count=12, members=members)[1]
    assert all(torch.equal(tensor, second.params[name]) for name, tensor in first.params.items())
    assert not torch.equal(first.params["0.weight"][0], first.params["0.weight"][1])


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2)
    )


@pytest.mark.parametrize(("factory", "shape"), [(normed, (6,)), (convolutional, (1, 5, 5))])
def test_batch_norm_is_replaced_by_a_norm_that_lets_the_input_through(factory, shape):
    module = build(DpSgd().wrap_factory(factory), Seed(0)).eval()
    assert not [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    x = torch.randn(6, *shape, generator=Seed(1).torch())
    assert module(x).std(0).min() > 1e-3
    torch.testing.assert_close(module(x[:1]), module(x)[:1])


def test_layers_without_per_sample_gradients_are_one_model_error():
    class Own(nn.Module):
        """A user's layer with a parameter and a buffer of its own, which Opacus has no per-sample gradient for."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6))
            self.running = nn.BatchNorm1d(6)
            self.register_buffer("seen", torch.zeros(6))

        def forward(self, x):
            return self.running(x) * self.scale

    with pytest.raises(ModelError, match="per-sample"):
        DpSgd().wrap_factory(Own)()


def test_a_users_class_that_cannot_be_pickled_trains():
    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = normed()

        def forward(self, x):
            return self.body(x)

    schedule = Schedule(epochs=1, batch=4, rate=0.1, optimizer="sgd")
    _, trained, _, _ = train(DpSgd(), Local, schedule=schedule, count=12)
    assert torch.isfinite(trained.params["body.0.weight"]).all()


@pytest.mark.parametrize(("noise", "records", "batch", "epochs"), [(1.0, 500, 50, 5), (2.0, 130, 60, 3)])
def test_epsilon_is_that_of_the_accountant_stepped_as_trained(noise, records, batch, epochs):
    from opacus.accountants import PRVAccountant, RDPAccountant

    x, y = blobs(records)
    made = context(linear, x, y, torch.ones(1, records, dtype=torch.bool), Schedule(epochs=epochs, batch=batch))
    epsilon, delta = DpSgd(noise).epsilon(records, made)
    assert delta == pytest.approx(1 / (10 * records))
    steps = -(-records // batch)
    stepped, loose = PRVAccountant(), RDPAccountant()
    for _ in range(epochs * steps):
        stepped.step(noise_multiplier=noise, sample_rate=1 / steps)
        loose.step(noise_multiplier=noise, sample_rate=1 / steps)
    assert epsilon == pytest.approx(stepped.get_epsilon(delta=delta), rel=1e-6)
    assert epsilon <= loose.get_epsilon(delta=delta) * 1.01


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0, 5.0])
def test_statement_carries_epsilon_and_the_bound_of_the_theorem(noise):
    x, y = blobs(60)
    members = torch.ones(2, 60, dtype=torch.bool)
    made = context(linear, x, y, members, Schedule(epochs=3, batch=20))
    part = DpSgd(noise)
    (claim,) = part.statement(made)
    epsilon, delta = part.epsilon(60, made)
    bound = dp_tpr_bound(epsilon, delta, 0.01)
    stated = re.search(r"\) = \((\S+), (\S+)\)-DP.* TPR ([\d.]+)% at 1 % FPR", claim.statement)
    assert float(stated[1]) == pytest.approx(epsilon, abs=0.005)
    assert float(stated[2]) == pytest.approx(delta, rel=0.05)
    assert float(stated[3]) / 100 == pytest.approx(bound, abs=0.0006)
    assert ("vacuous" in claim.statement) == (bound > 0.999)
    assert "noise seed" in claim.adversary


def test_more_noise_spends_less():
    x, y = blobs(60)
    made = context(linear, x, y, torch.ones(1, 60, dtype=torch.bool), Schedule(epochs=3, batch=20))
    spent = [DpSgd(noise).epsilon(60, made)[0] for noise in (0.5, 1.0, 2.0, 4.0)]
    assert spent == sorted(spent, reverse=True)


@pytest.mark.parametrize("bad", [{"noise": -1.0}, {"noise": float("nan")}, {"clip": 0.0}, {"delta": 0.0}, {"delta": 2}])
def test_settings_that_mean_nothing_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        DpSgd(**bad)


@pytest.mark.parametrize("other", [InputNoise(), EarlyStopping(), CrossFitDistillation(linear)])
def test_parts_it_would_not_call_or_account_are_refused(other):
    x, y = blobs(10)
    made = context(linear, x, y, memberships(1, 10), Schedule(epochs=1), validation=(x, y))
    with pytest.raises(CompositionError, match=other.slug):
        fit(Population.initialise(linear, made.seeds), made, [CrossEntropy(), other, DpSgd()])


def test_nan_records_are_one_model_error():
    x, y = blobs(10)
    x[0, 0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        train(DpSgd(noise=0.1), schedule=Schedule(epochs=3, batch=5, rate=0.1), x=x, y=y)


def perceptron_with_hook():
    """The same network, kept from the form by norms alone."""
    module = perceptron()
    module.register_forward_hook(lambda layer, inputs, output: None)
    return module


@pytest.mark.parametrize("schedule", [Schedule(epochs=6, batch=1, rate=0.2), Schedule(epochs=3, batch=6, rate=0.2)])
def test_norms_alone_take_the_steps_of_whole_gradients(schedule):
    """Same sampling, same noise, same clipping, empty batches included; only a perceptron qualifies."""
    ghost, whole = (train(DpSgd(noise=0.7, clip=0.3), f, schedule=schedule) for f in (perceptron, perceptron_with_hook))
    assert [rows.tolist() for rows in ghost[2]] == [rows.tolist() for rows in whole[2]]
    assert schedule.batch > 1 or any(not len(rows) for rows in ghost[2])
    for name, tensor in whole[1].params.items():
        assert not torch.equal(tensor, whole[0].params[name])
        torch.testing.assert_close(ghost[1].params[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Secure RNG turned off")
@pytest.mark.parametrize(("factory", "alone"), [(perceptron, True), (perceptron_with_hook, False), (linear, False)])
def test_only_plain_perceptrons_are_clipped_by_norms_alone(factory, alone):
    x, y = blobs(8)
    module = factory().train()
    sgd = torch.optim.SGD(module.parameters(), lr=0.1)
    made = Clipped.make(module, sgd, (x, y, torch.arange(8)), batch=4, noise=1.0, clip=1.0, seed=Seed(0))
    assert made.norms_alone is alone


def test_a_batch_is_gathered_as_its_records_stacked():
    x, y = blobs(8)
    rows = Rows(x, y)
    alone = [rows[i] for i in (5, 0, 5)]
    for together, stacked in zip(rows.__getitems__([5, 0, 5]), zip(*alone, strict=True), strict=True):
        assert torch.equal(together, torch.stack(stacked))
    assert [tuple(t.shape) for t in rows.__getitems__([])] == [(0, 6), (0,)]
