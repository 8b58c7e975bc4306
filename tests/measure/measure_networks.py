"""Networks with known costs, written down layer by layer: the builder of the measure tests."""

from math import prod

import torch

from edgeward.graph.network import Network, Node, Value


class Stack:
    """Appends one layer after another; `precision` is None (float32), (weight bits, activation bits) or "binary"."""

    def __init__(self, *shape):
        self.shape, self.last = shape, "x"
        self.nodes, self.values, self.tensors = [], {"x": Value("x", shape)}, {}

    def node(self, operator, shape, attributes=None, tensors=None, inputs=None, output=None):
        name = f"n{len(self.nodes)}"
        keys = {role: f"{name}.{role}" for role in tensors or {}}
        self.tensors |= {keys[role]: tensor for role, tensor in (tensors or {}).items()}
        output = output or f"{name}.out"
        self.nodes.append(Node(name, name, operator, tuple(inputs or (self.last,)), output, attributes or {}, keys))
        self.values[output] = Value(output, tuple(shape))
        self.shape, self.last = tuple(shape), output
        return self

    def _layer(self, kind, shape, weight, attributes, bias, precision):
        tensors = {"weight": weight} | ({"bias": torch.ones(len(weight))} if bias else {})
        if precision == "binary":
            kind, tensors = f"binary_{kind}", tensors | {"scale": torch.ones(len(weight))}
        elif precision is not None:
            kind, attributes = (
                f"quantized_{kind}",
                attributes
                | {
                    "weight_bits": precision[0],
                    "activation_bits": precision[1],
                },
            )
            tensors |= {"weight_scale": torch.full((len(weight),), 0.1)}
            tensors |= {"activation_scale": torch.tensor(0.1), "activation_zero_point": torch.tensor(0.0)}
        return self.node(kind, shape, attributes, tensors)

    def conv(self, out, kernel=3, stride=1, groups=1, padding=None, bias=False, precision=None):
        c, h, w = self.shape
        kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        ph, pw = padding if isinstance(padding, tuple) else ((kh // 2, kw // 2) if padding is None else (padding,) * 2)
        sh, sw = stride if isinstance(stride, tuple) else (stride, stride)
        shape = (out, (h + 2 * ph - kh) // sh + 1, (w + 2 * pw - kw) // sw + 1)
        attributes = {"stride": (sh, sw), "padding": (ph, pw), "dilation": (1, 1), "groups": groups}
        weight = torch.ones(()).expand(out, c // groups, kh, kw)  # large ones take no memory
        return self._layer("conv2d", shape, weight, attributes, bias, precision)

    def depthwise(self, stride=1, precision=None, kernel=3):
        return self.conv(self.shape[0], kernel, stride, groups=self.shape[0], precision=precision)

    def linear(self, out, bias=True, precision=None):
        weight = torch.ones(()).expand(out, self.shape[-1])
        return self._layer("linear", (*self.shape[:-1], out), weight, {}, bias, precision)

    def same(self, operator, **attributes):
        return self.node(operator, self.shape, attributes)

    def norm(self):
        c = self.shape[0]
        tensors = {role: torch.ones(c) for role in ("weight", "bias", "mean", "variance")}
        return self.node("batch_norm", self.shape, {"epsilon": 1e-5}, tensors)

    def max_pool(self, size=2):
        c, h, w = self.shape
        attributes = {"kernel": (size, size), "stride": (size, size), "padding": (0, 0), "dilation": (1, 1)}
        return self.node("max_pool2d", (c, h // size, w // size), attributes | {"ceil": False})

    def global_pool(self):
        return self.node("adaptive_avg_pool2d", (self.shape[0], 1, 1), {"output": (1, 1)})

    def flatten(self):
        return self.node("reshape", (prod(self.shape),), {"shape": (prod(self.shape),)})

    def add(self, other):
        return self.node("add", self.shape, inputs=(self.last, other))

    def network(self):
        return Network(("x",), (self.last,), tuple(self.nodes), self.values, self.tensors)


def lenet(precision=None):
    """LeNet-5 on 1x28x28 with padding 2: 6@5x5, pool, 16@5x5, pool, 120, 84, 10."""
    stack = Stack(1, 28, 28).conv(6, 5, bias=True, precision=precision).same("relu").max_pool()
    stack.conv(16, 5, padding=0, bias=True, precision=precision).same("relu").max_pool().flatten()
    stack.linear(120, precision=precision).same("relu").linear(84, precision=precision).same("relu")
    return stack.linear(10, precision=precision).network()


def resnet8(precision=(8, 8)):
    """The image classifier of MLPerf Tiny: three residual stacks of 16, 32, 64 channels on 3x32x32."""
    stack = Stack(3, 32, 32).conv(16, precision=precision).same("relu")
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        start, shape = stack.last, stack.shape
        stack.conv(channels, stride=stride, precision=precision).same("relu").conv(channels, precision=precision)
        main = stack.last
        if stride != 1:
            stack.last, stack.shape = start, shape
            start = stack.conv(channels, 1, stride, precision=precision).last
        stack.last = main
        stack.add(start).same("relu")
    return stack.global_pool().flatten().linear(10, precision=precision).network()


def mobilenet_v1_quarter(precision=(8, 8)):
    """The visual wake words model of MLPerf Tiny: MobileNetV1 x 0.25 on 3x96x96."""
    stack = Stack(3, 96, 96).conv(8, stride=2, precision=precision).same("relu")
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    for out, stride in zip((16, 32, 32, 64, 64, *[128] * 6, 256, 256), strides, strict=True):
        stack.depthwise(stride, precision).same("relu").conv(out, 1, precision=precision).same("relu")
    return stack.global_pool().flatten().linear(2, precision=precision).network()


def ds_cnn(precision=(8, 8)):
    """The keyword spotter of MLPerf Tiny: a 10x4 convolution and four separable blocks of 64 on 1x49x10."""
    stack = Stack(1, 49, 10).conv(64, (10, 4), 2, padding=(5, 1), precision=precision).same("relu")
    for _ in range(4):
        stack.depthwise(precision=precision).same("relu").conv(64, 1, precision=precision).same("relu")
    return stack.global_pool().flatten().linear(12, precision=precision).network()


def autoencoder(precision=(8, 8)):
    """The anomaly detector of MLPerf Tiny: 640-128x4-8-128x4-640."""
    stack = Stack(640)
    for out in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        stack.linear(out, precision=precision).same("relu")
    return stack.linear(640, precision=precision).network()


def mobilenet_v2():
    """MobileNetV2 1.0 on 3x224x224 with batch normalisation and 1000 classes."""
    stack = Stack(3, 224, 224).conv(32, stride=2).norm().same("clip", low=0.0, high=6.0)
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, out, count, first in rows:
        for index in range(count):
            start, channels, stride = stack.last, stack.shape[0], first if index == 0 else 1
            if expansion > 1:
                stack.conv(expansion * channels, 1).norm().same("clip", low=0.0, high=6.0)
            stack.depthwise(stride).norm().same("clip", low=0.0, high=6.0).conv(out, 1).norm()
            if stride == 1 and channels == out:
                stack.add(start)
    stack.conv(1280, 1).norm().same("clip", low=0.0, high=6.0)
    return stack.global_pool().flatten().linear(1000).network()
