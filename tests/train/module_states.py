"""Networks whose state is legal and unusual: tied, aliased, frozen, volatile, parametrised, replaced."""

import torch
from torch import nn
from torch.nn.utils import parametrizations

from train.train_toys import CLASSES, FEATURES


class Net(nn.Module):
    """Layers from one function, the forward pass from another."""

    def __init__(self, build, run):
        super().__init__()
        build(self)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


def of(build, run):
    return lambda: Net(build, run)


def plain(net, x):
    return net.head(torch.relu(net.body(x)))


def layers(net, width=8, wrap=lambda layer: layer):
    net.body, net.head = wrap(nn.Linear(FEATURES, width)), nn.Linear(width, CLASSES)


def tied(net):
    net.body, net.more, net.head = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES), nn.Linear(6, CLASSES)
    net.more.weight = net.body.weight


def tied_sequence(*names):
    network = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, CLASSES))
    for name in names:
        setattr(network[2], name, getattr(network[0], name))
    return network


def two_names(net):
    layers(net, FEATURES)
    net.again = nn.ModuleList([net.body, net.body])


def frozen(net, *names):
    layers(net)
    for name in names:
        net.get_parameter(name).requires_grad_(False)


def normed(net, momentum):
    layers(net)
    net.norm = nn.BatchNorm1d(8, momentum=momentum)
    net.same = net.norm


def held(net):
    net.head = nn.Linear(FEATURES, CLASSES)
    net.register_buffer("mean", torch.zeros(FEATURES))
    net.register_buffer("seen", torch.tensor(0))


def in_place(net, x):
    if net.training:
        with torch.no_grad():
            net.mean.mul_(0.9).add_(0.1 * x.mean(0))
            net.seen += 1
    return net.head(x - net.mean)


def assigned(net, x):
    if net.training:
        net.mean = 0.9 * net.mean + 0.1 * x.mean(0)
        net.seen = net.seen + 1
    return net.head(x - net.mean)


def volatile(net):
    net.head = nn.Linear(FEATURES, CLASSES)
    net.register_buffer("places", torch.arange(6.0) / 6, persistent=False)
    net.register_buffer("drawn", torch.randn(6), persistent=False)


def shared_buffer(net):
    layers(net, FEATURES)
    net.register_buffer("mean", torch.zeros(FEATURES))
    net.body.register_buffer("mean", net.mean)


def through_shared(net, x):
    if net.training:
        with torch.no_grad():
            net.body.mean.mul_(0.9).add_(0.1 * x.mean(0))
    return net.head(torch.relu(net.body(x - net.mean)))


def scalar(net):
    net.head, net.scale = nn.Linear(FEATURES, CLASSES), nn.Parameter(torch.tensor(1.5))
    net.register_buffer("mask", torch.tensor([0.0, float("-inf")]))


def changing(net, x):
    x -= 0.5
    x.mul_(net.scale)
    return net.head(x)


CARRIED = {
    "tied": of(tied, lambda n, x: n.head(torch.relu(n.more(torch.relu(n.body(x)))))),
    "tied weights in a sequence": lambda: tied_sequence("weight"),
    "tied biases in a sequence": lambda: tied_sequence("bias"),
    "two names": of(two_names, lambda n, x: n.head(torch.relu(n.again[1](torch.relu(n.again[0](x)))))),
    "frozen layer": of(lambda n: frozen(n, "body.weight", "body.bias"), plain),
    "frozen bias": of(lambda n: frozen(n, "head.bias"), plain),
    "cumulative norm, called twice": of(
        lambda n: normed(n, None), lambda n, x: n.head(n.same(torch.relu(n.norm(n.body(x)))))
    ),
    "norm": of(lambda n: normed(n, 0.2), lambda n, x: n.head(torch.relu(n.norm(n.body(x))))),
    "weight norm": of(lambda n: layers(n, wrap=parametrizations.weight_norm), plain),
    "spectral norm": of(lambda n: layers(n, wrap=parametrizations.spectral_norm), plain),
    "orthogonal": of(lambda n: layers(n, wrap=parametrizations.orthogonal), plain),
    "buffers in place": of(held, in_place),
    "buffers assigned": of(held, assigned),
    "volatile buffers": of(volatile, lambda n, x: n.head(x + n.places * n.drawn)),
    "one buffer under two names": of(shared_buffer, through_shared),
    "0-d parameter": of(scalar, lambda n, x: n.head(x) * n.scale),
    "input changed in place": of(scalar, changing),
    "rectified in place": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 8), nn.ReLU(True), nn.Linear(8, 2)),
}


def transposed(net):
    net.body, net.head = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
    net.head.weight = nn.Parameter(net.body.weight.t())


def part_of(net):
    held(net)
    net.register_buffer("start", net.mean[:CLASSES])


def counting(net, x):
    if net.training:
        net.calls = getattr(net, "calls", 0) + 1
    return net.head(x) * (1 + getattr(net, "calls", 0))


def read_as_a_number(net, x):
    if net.training:
        net.seen.add_(1)
    return net.head(x) / (1.0 + float(net.seen))


class Reading(nn.Module):
    """A layer that `vmap` cannot run."""

    def forward(self, x):
        return x * float(x.detach().abs().max())


REFUSED = {
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2)), "0.weight has no shape"),
    "transposed view": (of(transposed, plain), "head.weight shares memory with body.weight"),
    "buffer inside a buffer": (of(part_of, lambda n, x: in_place(n, x) + n.start), "start"),
    "counter in an attribute": (of(held, counting), "fresh module"),
    "buffer read as a number": (of(held, read_as_a_number), "item"),
    "layer without vmap": (lambda: nn.Sequential(nn.Linear(6, 2), Reading()), "layer '1'"),
    "all frozen": (lambda: nn.Linear(6, 2).requires_grad_(False), "frozen"),
    "other precision": (lambda: nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 2).double()), "layer '1'"),
    "two answers": (of(held, lambda n, x: (n.head(x), n.head(x))), "tuple"),
    "one logit": (lambda: nn.Linear(6, 1), "[2, 1]"),
    "NaN at the start": (lambda: _filled(nn.Linear(6, 2), float("nan")), "weight"),
}


def _filled(layer, value):
    nn.init.constant_(layer.weight, value)
    return layer
