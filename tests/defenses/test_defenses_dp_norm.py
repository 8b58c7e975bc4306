"""What DP-SGD exchanges fits the network: groups by map size, in-place operators, batches of one record and of none."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.defenses import DpSgd
from edgeward.defenses.dp_norm import FEWEST_NUMBERS, MOST_GROUPS, FittedGroupNorm
from edgeward.graph import capture
from edgeward.train import CrossEntropy, Schedule, train_many
from edgeward.train.population import build
from train.train_toys import Recording


class Maps(nn.Module):
    """A convolution that leaves maps of one size, a norm, and a head."""

    def __init__(self, channels, side, run=lambda net, x: net.norm(net.conv(x))):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, channels, 9 - side), nn.BatchNorm2d(channels)
        self.head, self.run = nn.Linear(channels * side * side, 2), run

    def forward(self, x):
        return self.head(F.relu(self.run(self, x)).flatten(1))


def bright(count=120):
    """The sign of a record's mean brightness, made easy."""
    x = torch.randn(count, 1, 8, 8, generator=Seed(0).torch())
    y = (x.mean((1, 2, 3)) > 0).long()
    return x + (2 * y - 1).view(-1, 1, 1, 1) * 0.5, y


def train(factory, x, y, schedule, noise=0.0, clip=1.0, members=None, watcher=None):
    members = torch.ones(1, len(x), dtype=torch.bool) if members is None else members
    parts = (CrossEntropy(), DpSgd(noise, clip))
    return train_many(factory, x, y, members, classes=2, seed=Seed(1), schedule=schedule, parts=parts, watcher=watcher)


@given(
    channels=st.integers(1, 96),
    places=st.lists(st.integers(1, 6), min_size=0, max_size=2),
    flat=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_every_group_holds_two_numbers_at_least_and_a_record_is_not_erased(channels, places, flat):
    norm = FittedGroupNorm(nn.BatchNorm1d(channels) if flat else nn.BatchNorm2d(channels), "features.norm")
    shape = (channels, *places)
    numbers = torch.Size(shape).numel()
    if numbers < 2:
        with pytest.raises(ModelError, match=r"features\.norm"):
            norm.groups_of(shape)
        return
    groups = norm.groups_of(shape)
    assert channels % groups == 0
    assert numbers // groups >= min(2, numbers)
    assert numbers // groups >= min(FEWEST_NUMBERS, numbers)
    assert groups == 1 if flat else MOST_GROUPS % groups == 0
    x = torch.randn(3, *shape, generator=Seed(channels).torch())
    answer = norm(x)
    torch.testing.assert_close(answer, F.group_norm(x, groups, eps=norm.eps))
    # two numbers leave nothing but their order
    assert float(answer.detach().std(0).max()) > 1e-3 or numbers == 2


def test_maps_with_numbers_enough_keep_a_channel_per_group():
    assert FittedGroupNorm(nn.BatchNorm2d(32), "norm").groups_of((32, 4, 4)) == 32
    assert FittedGroupNorm(nn.BatchNorm2d(12), "norm").groups_of((12, 5, 5)) == 4
    assert FittedGroupNorm(nn.BatchNorm2d(64), "norm").groups_of((64, 1, 1)) == 4


@pytest.mark.parametrize(("channels", "side"), [(8, 1), (16, 1), (32, 1), (48, 1), (4, 2)])
def test_a_norm_on_small_maps_learns_what_the_network_could(channels, side):
    x, y = bright()
    schedule = Schedule(epochs=6, batch=24, rate=0.5, optimizer="sgd", momentum=0.0)
    logits = train(lambda: Maps(channels, side), x, y, schedule).logits(x)[0]
    assert float((logits.argmax(1) == y).float().mean()) > 0.9
    assert float(logits.std(0).max()) > 0.1


def test_a_norm_of_one_number_is_refused_before_training():
    x, y = bright(12)
    watcher = Recording()
    with pytest.raises(ModelError, match="norm"):
        train(lambda: Maps(1, 1), x, y, Schedule(epochs=1, batch=4), watcher=watcher)
    assert not watcher.steps


def test_scale_shift_and_what_is_frozen_pass_to_the_new_norm():
    def factory():
        net = Maps(8, 2)
        nn.init.constant_(net.norm.weight, 0.25)
        nn.init.constant_(net.norm.bias, -1.0)
        net.norm.bias.requires_grad_(False)
        net.same = net.norm
        return net

    net = build(DpSgd().wrap_factory(factory), Seed(0))
    assert isinstance(net.norm, FittedGroupNorm)
    assert net.same is net.norm
    assert torch.equal(net.norm.weight.detach(), torch.full((8,), 0.25))
    assert not net.norm.bias.requires_grad
    x, y = bright(24)
    trained = train(factory, x, y, Schedule(epochs=2, batch=8, rate=0.5), noise=1.0)
    assert torch.equal(trained.held("norm.bias")[0], torch.full((8,), -1.0))
    assert not torch.equal(trained.held("norm.weight")[0], torch.full((8,), 0.25))


def test_the_captured_network_has_the_same_norm():
    net = build(DpSgd().wrap_factory(lambda: Maps(16, 1)), Seed(0)).eval()
    (norm,) = [n for n in capture(net, (1, 8, 8)).nodes if n.operator == "group_norm"]
    assert norm.attributes["groups"] == 1


IN_PLACE = {
    "module": lambda net, x: nn.ReLU(inplace=True)(net.norm(net.conv(x))),
    "functional": lambda net, x: F.relu_(net.norm(F.relu_(net.conv(x)))),
    "added": lambda net, x: _added(net.conv(x), net.norm),
    "on the input": lambda net, x: net.norm(net.conv(x.mul_(0.5))),
}


def _added(y, norm):
    z = norm(y)
    z += 1.0
    z.mul_(2.0)
    return z


class Inside(nn.Module):
    """The in-place activation as a layer of its own."""

    def __init__(self):
        super().__init__()
        self.net, self.act = Maps(4, 2), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.net(x))


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_operators_train_as_the_others(name):
    """Reference: per-record gradients of the same network, clipped, one step of all records."""
    x, y = bright(6)
    kept = x.clone()
    factory = lambda: Maps(4, 2, IN_PLACE[name])  # noqa: E731
    schedule = Schedule(epochs=1, batch=6, rate=0.3, optimizer="sgd")
    trained = train(factory, x, y, schedule, clip=0.5)
    assert torch.equal(x, kept)
    module = build(DpSgd().wrap_factory(factory), Seed(1).child("model", 0))
    total = {n: torch.zeros_like(p) for n, p in module.named_parameters()}
    for i in range(6):
        module.zero_grad()
        F.cross_entropy(module(x[i : i + 1].clone()), y[i : i + 1]).backward()
        norm = float(torch.cat([p.grad.flatten() for p in module.parameters()]).norm())
        for n, p in module.named_parameters():
            total[n] += p.grad * min(1.0, 0.5 / (norm + 1e-6))
    for n, p in module.named_parameters():
        torch.testing.assert_close(trained.held(n)[0], (p - 0.3 * total[n] / 6).detach(), rtol=1e-3, atol=1e-5)
    assert torch.isfinite(train(Inside, x, y, schedule).logits(x)).all()


def _rigid(net, x):
    return net.norm(net.conv(x)).view(len(x), -1, 2, 2)


@pytest.mark.parametrize("run", [lambda net, x: net.norm(net.conv(x)), _rigid], ids=["plain", "view"])
def test_batches_of_one_record_and_of_none(run):
    x, y = bright(40)
    few = torch.zeros(1, 40, dtype=torch.bool)
    few[0, :6] = True
    single = Schedule(epochs=8, batch=1, rate=0.1, optimizer="sgd")
    trained = train(lambda: Maps(16, 2, run), x, y, single, noise=1.0, members=few)
    assert torch.isfinite(trained.logits(x)).all()


def test_a_network_that_needs_two_records_is_refused_by_its_layer():
    class Squeezing(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(1, 8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.body(x).squeeze())

    x, y = bright(12)
    with pytest.raises(ModelError, match=r"\[1, 2\](.|\n)*\[2\]"):
        train(Squeezing, x, y, Schedule(epochs=1, batch=4))


def test_a_gradient_that_opacus_misreads_is_refused():
    """A layer whose output row mixes places of its input in a way that the rule for linear layers does not see."""

    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x) * self.weight.sum()

    x, y = bright(12)
    with pytest.raises(ModelError, match=r"per-sample gradient(.|\n)*1\.weight"):
        train(lambda: nn.Sequential(nn.Flatten(), _known(Scaled(64, 2))), x, y, Schedule(epochs=1, batch=4))


def _known(layer):
    """Let Opacus take the layer for a plain linear one."""
    from opacus import GradSampleModule

    GradSampleModule.GRAD_SAMPLERS.setdefault(type(layer), GradSampleModule.GRAD_SAMPLERS[nn.Linear])
    return layer


def test_a_parameter_that_no_record_reaches_gets_noise_and_does_not_stop_the_training():
    def factory():
        net = Maps(4, 2)
        net.idle = nn.Linear(2, 2)
        return net

    x, y = bright(12)
    trained = train(factory, x, y, Schedule(epochs=1, batch=4, rate=0.1), noise=1.0)
    start = build(factory, Seed(1).child("model", 0))
    assert not torch.equal(trained.held("idle.weight")[0], start.idle.weight)
