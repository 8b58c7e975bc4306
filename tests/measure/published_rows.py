"""Published single-thread times of networks on the boards of the profiles, and those networks written down.

Times: minimum in milliseconds, benchmark/README.md of Tencent/ncnn. On the Raspberry Pi 5 and the phone ncnn computes
float networks in float16. Names are the benchmark's. `MADE` are the rows that the rates were made from.
"""

from functools import cache

from measure_networks import Stack, mobilenet_v2

from edgeward.graph.network import Network

FLOAT = {
    "rpi3": {
        "mobilenet": 204.62,
        "mobilenet_v2": 158.69,
        "mobilenet_v3": 127.13,
        "resnet18": 379.21,
        "resnet50": 977.51,
    },
    "rpi4": {
        "mobilenet": 123.76,
        "mobilenet_v2": 92.98,
        "mobilenet_v3": 72.48,
        "resnet18": 190.80,
        "resnet50": 533.15,
        "vgg16": 1066.58,
    },
    "rpi5": {"mobilenet_v2": 16.2, "mobilenet_v3": 11.6, "resnet18": 29.5},
    "phone-cpu": {"mobilenet_v2": 9.5, "mobilenet_v3": 7.9, "resnet18": 21.9},
    "x86-laptop": {
        "mobilenet": 40.99,
        "mobilenet_v2": 26.53,
        "mobilenet_v3": 22.96,
        "resnet18": 76.58,
        "resnet50": 198.27,
        "vgg16": 286.45,
    },
}
INT8 = {
    "rpi3": {"mobilenet": 181.34, "resnet18": 312.23, "resnet50": 890.77},
    "rpi4": {"mobilenet": 84.66, "resnet18": 157.92, "resnet50": 423.72, "vgg16": 866.15},
    "rpi5": {"mobilenet": 14.4},
    "phone-cpu": {"mobilenet": 8.8},
    "x86-laptop": {"mobilenet": 98.06, "resnet18": 231.16, "resnet50": 493.52, "vgg16": 1797.58},
}
MADE = {None: ("resnet18", "mobilenet_v2"), (8, 8): ("resnet18", "mobilenet")}
MACS = {
    "mobilenet": 568_740_352,
    "mobilenet_v2": 300_774_272,
    "mobilenet_v3": 216_589_760,
    "resnet18": 1_814_073_344,
    "resnet50": 4_089_184_256,
    "vgg16": 15_470_264_320,
}


def mobilenet(precision) -> Network:
    stack = Stack(3, 224, 224).conv(32, stride=2, precision=precision).same("relu")
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    for out, stride in zip((64, 128, 128, 256, 256, *[512] * 6, 1024, 1024), strides, strict=True):
        stack.depthwise(stride, precision).same("relu").conv(out, 1, precision=precision).same("relu")
    return stack.global_pool().flatten().linear(1000, precision=precision).network()


def mobilenet_v3(precision) -> Network:
    """Howard et al., table 1: (kernel, expanded, out, squeeze, hard swish, stride)."""
    rows = [
        (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2), (5, 120, 40, 1, 0, 1),
        (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1),
        (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2),
        (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1),
    ]  # fmt: skip
    stack = Stack(3, 224, 224).conv(16, stride=2, precision=precision).same("hard_swish")
    for kernel, expanded, out, squeeze, swish, stride in rows:
        start, channels, act = stack.last, stack.shape[0], "hard_swish" if swish else "relu"
        if expanded != channels:
            stack.conv(expanded, 1, precision=precision).same(act)
        stack.depthwise(stride, precision, kernel).same(act)
        if squeeze:
            whole, shape = stack.last, stack.shape
            narrow = int(expanded / 4 + 4) // 8 * 8
            narrow += 8 * (narrow < 0.9 * expanded / 4)
            stack.global_pool().conv(narrow, 1, bias=True, precision=precision).same("relu")
            stack.conv(expanded, 1, bias=True, precision=precision).same("hard_sigmoid")
            stack.node("mul", shape, inputs=(whole, stack.last))
        stack.conv(out, 1, precision=precision)
        if stride == 1 and channels == out:
            stack.add(start)
    stack.conv(960, 1, precision=precision).same("hard_swish").global_pool().flatten()
    return stack.linear(1280, precision=precision).same("hard_swish").linear(1000, precision=precision).network()


def residual(blocks, widths, bottleneck, precision) -> Network:
    stack = Stack(3, 224, 224).conv(64, 7, 2, padding=3, precision=precision).same("relu")
    stack.node(
        "max_pool2d",
        (64, 56, 56),
        {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "ceil": False},
    )
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for index in range(count):
            start, shape, stride = stack.last, stack.shape, 2 if stage and not index else 1
            out = 4 * width if bottleneck else width
            if bottleneck:
                stack.conv(width, 1, precision=precision).same("relu").conv(width, 3, stride, precision=precision)
                stack.same("relu").conv(out, 1, precision=precision)
            else:
                stack.conv(width, 3, stride, precision=precision).same("relu").conv(out, 3, precision=precision)
            main = stack.last
            if shape[0] != out or stride != 1:
                stack.last, stack.shape = start, shape
                start = stack.conv(out, 1, stride, precision=precision).last
            stack.last = main
            stack.add(start).same("relu")
    return stack.global_pool().flatten().linear(1000, precision=precision).network()


def vgg16(precision) -> Network:
    stack = Stack(3, 224, 224)
    for count, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            stack.conv(width, bias=True, precision=precision).same("relu")
        stack.max_pool()
    stack.flatten().linear(4096, precision=precision).same("relu").linear(4096, precision=precision).same("relu")
    return stack.linear(1000, precision=precision).network()


@cache
def network(name: str, precision: tuple[int, int] | None) -> Network:
    """Return the benchmark's network `name` on 3x224x224 with 1000 classes."""
    if name == "mobilenet_v2":
        assert precision is None
        return mobilenet_v2()
    stages = {"resnet18": ((2, 2, 2, 2), False), "resnet50": ((3, 4, 6, 3), True)}
    if name in stages:
        return residual(stages[name][0], (64, 128, 256, 512), stages[name][1], precision)
    return {"mobilenet": mobilenet, "mobilenet_v3": mobilenet_v3, "vgg16": vgg16}[name](precision)
