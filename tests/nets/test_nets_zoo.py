import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeward.backends.cleartext.reference import ReferenceExecutable
from edgeward.core.errors import ConfigError, ModelError
from edgeward.core.randomness import Seed
from edgeward.graph import capture, fold_batch_norm, to_module
from edgeward.nets import (
    NETS,
    alexnet_small,
    densenet,
    densenet_imagenet,
    ds_cnn,
    lenet,
    mlp,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    nin,
    resnet,
    resnet_imagenet,
    resnet_tiny,
    small_cnn,
    vgg,
    vgg_imagenet,
    vit,
)
from edgeward.nets.same_padding import SameConv2d, same_padding
from edgeward.train.population import Population, build

SMALL = {
    "alexnet_small": ({"width": 8}, (3, 32, 32)),
    "densenet": ({"depth": 10, "growth": 4}, (3, 16, 16)),
    "densenet_imagenet": ({"growth": 4, "classes": 10, "blocks": (2, 2, 2, 2)}, (3, 32, 32)),
    "ds_cnn": ({"width": 8, "classes": 10}, (1, 49, 10)),
    "early_exit_cnn": ({"widths": (4, 8)}, (1, 12, 12)),
    "lenet": ({}, (1, 28, 28)),
    "mlp": ({"features": 20}, (20,)),
    "mobilenet_v1": ({"width": 0.25, "classes": 10, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}, (3, 32, 32)),
    "mobilenet_v2": ({"width": 0.35, "classes": 10}, (3, 32, 32)),
    "mobilenet_v3": ({"kind": "small", "width": 0.35, "classes": 10}, (3, 32, 32)),
    "nin": ({}, (3, 16, 16)),
    "resnet": ({"depth": 8, "width": 4}, (3, 16, 16)),
    "resnet_imagenet": ({"width": 4, "classes": 10}, (3, 32, 32)),
    "resnet_tiny": ({"width": 4}, (3, 32, 32)),
    "small_cnn": ({"width": 4}, (1, 28, 28)),
    "vgg": ({"width": 0.1}, (3, 32, 32)),
    "vgg_imagenet": ({"depth": 11, "width": 0.05, "size": 32, "classes": 10, "norm": True}, (3, 32, 32)),
    "vit": ({"depth": 2, "dimension": 16, "size": 16}, (3, 16, 16)),
}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def with_statistics(module):
    """Give batch normalisation running statistics that are not neutral."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return module.eval()


def test_every_network_is_in_this_suite():
    assert set(NETS) == set(SMALL)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_capture_and_rewrites_equal_the_module(name):
    options, shape = SMALL[name]
    module = with_statistics(build(lambda: NETS[name](**options), Seed(1)))
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = module(x)
    answers = [a.numpy() for a in (expected if isinstance(expected, tuple) else (expected,))]
    network = capture(module, shape)
    folded = fold_batch_norm(network)
    for candidate in (network, folded):
        for found, wanted in zip(ReferenceExecutable(candidate).run_all(x.numpy()), answers, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        rebuilt = to_module(network)(x)
    for found, wanted in zip(rebuilt if isinstance(rebuilt, tuple) else (rebuilt,), answers, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5, rtol=1e-5)
    if name in (
        "resnet",
        "vgg",
        "small_cnn",
        "mobilenet_v2",
        "early_exit_cnn",
        "mobilenet_v1",
        "ds_cnn",
        "resnet_tiny",
    ):
        assert not any(node.operator == "batch_norm" for node in folded.nodes)


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"early_exit_cnn"}))
def test_population_equals_its_members(name):
    """All networks run under vmap, in training and in eval mode."""
    options, shape = SMALL[name]
    population = Population.initialise(lambda: NETS[name](**options), [Seed(0), Seed(1)])
    x = torch.randn(4, *shape)
    assert population.forward(x, training=True, per_model=False).shape == (2, 4, 10)
    member = population.member(1, lambda: NETS[name](**options))
    with torch.no_grad():
        torch.testing.assert_close(population.logits(x)[1], member(x), atol=1e-4, rtol=1e-4)


# Published by the papers or their widespread implementations, or summed by hand from the layer tables; VGG-16 without
# the 4224 convolution biases that batch normalisation makes idle.
COUNTS = [
    (lambda: mlp(784, (128, 128, 64)), 784 * 128 + 128 + 128 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10),
    (lambda: lenet(channels=3, size=32), 62006),
    (lambda: resnet(20), 269722),
    (lambda: resnet(32), 464154),
    (lambda: resnet(44), 658586),
    (lambda: mobilenet_v2(), 3504872),
    (lambda: mobilenet_v2(1.4), 6108776),
    (lambda: mobilenet_v2(0.75), 2636424),
    (lambda: mobilenet_v2(0.35), 1677128),
    (lambda: mobilenet_v3(), 5483032),
    (lambda: mobilenet_v3("small"), 2542856),
    (lambda: resnet_imagenet(18), 11689512),
    (lambda: resnet_imagenet(34), 21797672),
    (lambda: resnet_imagenet(50), 25557032),
    (lambda: densenet_imagenet(), 7978856),
    (lambda: vgg_imagenet(), 138357544),
    (lambda: mobilenet_v1(), 4231976),
    (lambda: mobilenet_v1(0.25, classes=2, norm=False), 210850),
    (lambda: ds_cnn(norm=False), 22604),
    (lambda: resnet_tiny(norm=False), 77706),
    (lambda: vgg(16), 14728266 - 4224),
    (lambda: densenet(100, 12, bottleneck=True, compression=0.5), 769162),
    (lambda: nin(), 966986),
]


@pytest.mark.parametrize(("make", "count"), COUNTS, ids=range(len(COUNTS)))
def test_parameter_counts(make, count):
    assert parameters(make()) == count


@pytest.mark.parametrize(("make", "macs"), [(mobilenet_v1, 568.74), (mobilenet_v2, 300.77)])
def test_mobilenet_macs(make, macs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        make().eval()(torch.zeros(1, 3, 224, 224))
    assert round(counter.get_total_flops() / 2e6, 2) == macs


def test_he_initialisation_keeps_the_signal():
    """Activations keep their second moment through ten rectified layers; the default initialisation loses it."""
    net = build(lambda: mlp(256, (256,) * 10), Seed(0))
    x = torch.randn(200, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        deep = net[:-1](x).square().mean()
    assert 0.3 < float(deep) < 3.0


def test_shape_errors_say_what_fits():
    with pytest.raises(ModelError, match="28 or 32"):
        lenet(size=30)
    with pytest.raises(ModelError, match="6 k"):
        resnet(21)
    with pytest.raises(ModelError, match="11, 13 or 16"):
        vgg(19)
    with pytest.raises(ModelError, match="divide"):
        vit(size=30)
    with pytest.raises(ModelError, match="dense blocks"):
        densenet(41)
    with pytest.raises(ModelError, match="18, 34, 50"):
        resnet_imagenet(20)
    with pytest.raises(ModelError, match="121, 169"):
        densenet_imagenet(40)
    with pytest.raises(ModelError, match="divisible by 32"):
        vgg_imagenet(size=48)
    with pytest.raises(ModelError, match="'small' or 'large'"):
        mobilenet_v3("medium")
    with pytest.raises(ConfigError, match="resnet"):
        NETS["resnett"]


def test_options_change_the_size():
    assert parameters(small_cnn(width=8)) < parameters(small_cnn(width=16))
    assert parameters(alexnet_small(width=16)) < parameters(alexnet_small(width=32))
    assert small_cnn(channels=3, size=32)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_standardisation_is_the_first_layer_and_does_not_train():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    plain = build(lambda: resnet(8), Seed(0)).eval()
    inside = build(lambda: resnet(8, mean=mean, std=std), Seed(0)).eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    outside = (x - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(inside(x), plain(outside), atol=1e-4, rtol=1e-4)
    assert not any(name.startswith("standardize") for name, _ in inside.named_parameters())
    network = capture(inside, (3, 32, 32))
    assert network.nodes[0].operator == "conv2d"
    assert network.nodes[0].attributes["groups"] == 3
    assert not any(key.startswith("standardize") for key in network.parameters)


def test_input_statistics_are_checked():
    with pytest.raises(ConfigError, match="3 means"):
        resnet(8, mean=(0.5,), std=(0.5,))
    with pytest.raises(ConfigError, match="positive"):
        resnet(8, mean=(0.5,) * 3, std=(0.5, 0.0, 0.5))
    with pytest.raises(ConfigError, match="0 and 3"):
        resnet(8, std=(0.5,) * 3)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 10])
@pytest.mark.parametrize("size", [5, 6, 49])
def test_same_padding_by_its_definition(size, kernel, stride):
    """ceil(size / stride) windows, no more zeros than they need, the surplus zero after the axis."""
    before, after = same_padding(size, kernel, stride)
    windows = -(-size // stride)
    assert (size + before + after - kernel) // stride + 1 == windows
    assert after - before in (0, 1)
    assert before + after == 0 or (windows - 1) * stride + kernel == size + before + after


def test_same_convolution_reads_the_right_pixels():
    """A window of ones over the numbers 0 .. 15, stride 2: sums of the 3x3 corners that start at even places."""
    conv = SameConv2d(1, 1, 3, stride=2, bias=False)
    torch.nn.init.ones_(conv.weight)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    with torch.no_grad():
        assert conv(x).flatten().tolist() == [45.0, 39.0, 66.0, 50.0]
