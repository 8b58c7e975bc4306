"""The shared operator table: tiny modules that together show a backend every operator of `graph.OPERATORS`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeward.graph import Network, capture


@dataclass(frozen=True)
class Case:
    """A named module in eval mode with reproducible weights, and the shape of one record.

    `operators` are those the captured graph must hold.
    """

    name: str
    module: nn.Module
    input_shape: tuple[int, ...]
    operators: tuple[str, ...] = ()

    @cached_property
    def network(self) -> Network:
        """The captured module; captured once per test session."""
        return capture(self.module, self.input_shape)

    def __iter__(self):
        """Unpack as (name, module, input_shape)."""
        return iter((self.name, self.module, self.input_shape))


class Apply(nn.Module):
    """A stateless function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Residual(nn.Module):
    """x + body(x), then relu."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + x)


class Concat(nn.Module):
    """Two convolutions of one input, side by side in channels, then a third one."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 3, padding=1)
        self.after = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.cat([self.left(x), torch.relu(self.right(x))], dim=1))


class BinaryLinear(nn.Module):
    """The custom operator `edgeward::binary_linear` with its weights."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.scale = nn.Parameter(torch.rand(outputs) + 0.5)
        self.bias = nn.Parameter(torch.randn(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.edgeward.binary_linear(x, self.weight, self.scale, self.bias)


class BinaryConv2d(nn.Module):
    """The custom operator `edgeward::binary_conv2d` with its weights."""

    def __init__(self, inputs: int, outputs: int, stride: int, padding: int, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs // groups, 3, 3))
        self.scale = nn.Parameter(torch.rand(outputs) + 0.5)
        self.stride, self.padding, self.groups = [stride] * 2, [padding] * 2, groups

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.edgeward.binary_conv2d(
            x, self.weight, self.scale, None, self.stride, self.padding, [1, 1], self.groups
        )


class QuantizedLinear(nn.Module):
    """The custom operator `edgeward::quantized_linear` with scales that fit its weights and inputs of N(0, 1)."""

    def __init__(self, inputs: int, outputs: int, weight_bits: int, activation_bits: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.randn(outputs))
        self.weight_bits, self.activation_bits = weight_bits, activation_bits
        top = 2 ** (weight_bits - 1) - 1
        self.register_buffer("weight_scale", self.weight.detach().abs().flatten(1).amax(1) / top)
        levels = 2 ** min(activation_bits, 8)
        self.register_buffer("activation_scale", torch.tensor(6.0 / levels))
        self.register_buffer("activation_zero_point", torch.tensor(float(levels // 2)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.edgeward.quantized_linear(
            x,
            self.weight,
            self.bias,
            self.weight_scale,
            self.activation_scale,
            self.activation_zero_point,
            self.weight_bits,
            self.activation_bits,
        )


class QuantizedConv2d(nn.Module):
    """The custom operator `edgeward::quantized_conv2d` with scales that fit its weights and inputs of N(0, 1)."""

    def __init__(self, inputs: int, outputs: int, weight_bits: int, activation_bits: int, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs // groups, 3, 3))
        self.bias = nn.Parameter(torch.randn(outputs))
        self.weight_bits, self.activation_bits, self.groups = weight_bits, activation_bits, groups
        top = 2 ** (weight_bits - 1) - 1
        self.register_buffer("weight_scale", self.weight.detach().abs().flatten(1).amax(1) / top)
        levels = 2 ** min(activation_bits, 8)
        self.register_buffer("activation_scale", torch.tensor(6.0 / levels))
        self.register_buffer("activation_zero_point", torch.tensor(float(levels // 2)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.edgeward.quantized_conv2d(
            x,
            self.weight,
            self.bias,
            self.weight_scale,
            self.activation_scale,
            self.activation_zero_point,
            [2, 2],
            [1, 1],
            [1, 1],
            self.groups,
            self.weight_bits,
            self.activation_bits,
        )


class Attention(nn.Module):
    """One head of self-attention over tokens [T, D]."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dimension, dimension) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))


class TokenBlock(nn.Module):
    """A class token and positions before a transformer block; returns the class token's vector."""

    def __init__(self, tokens: int, dimension: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, dimension))
        self.position = nn.Parameter(torch.randn(1, tokens + 1, dimension))
        self.norm = nn.LayerNorm(dimension)
        self.attention = nn.MultiheadAttention(dimension, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x[:, 0]


class ManualAttention(nn.Module):
    """softmax(x x^T / 2) x written out with two products."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x @ x.transpose(1, 2) / 2.0, dim=-1) @ x


class ScaleAndShift(nn.Module):
    """(x - mean) / std * gain + x * 2 with stored constants, as an input normalisation does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(3, 1, 1))
        self.register_buffer("std", torch.rand(3, 1, 1) + 0.5)
        self.gain = nn.Parameter(torch.rand(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std * self.gain + x * 2.0


class TwoValues(nn.Module):
    """Differences, products and quotients of two values."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(x) + 1.0
        return (x - y) * x / y


def _squeeze_excite() -> nn.Module:
    class SqueezeExcite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            gate = F.hardsigmoid(self.up(torch.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
            return x * gate

    return SqueezeExcite()


def _randomised(module: nn.Module) -> nn.Module:
    """Give normalisation layers statistics and weights that are not neutral."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
                if tensor.is_floating_point():
                    positive = name in ("running_var", "weight")
                    tensor.data.copy_(torch.rand_like(tensor) + 0.5 if positive else torch.randn_like(tensor))
    return module.eval().requires_grad_(False)


_IMAGE = (3, 8, 8)

_BUILDERS: list[tuple[str, Callable[[], nn.Module], tuple[int, ...], tuple[str, ...]]] = [
    ("linear", lambda: nn.Linear(5, 3), (5,), ("linear",)),
    ("linear_without_bias", lambda: nn.Linear(5, 3, bias=False), (5,), ("linear",)),
    ("linear_on_tokens", lambda: nn.Linear(6, 4), (5, 6), ("linear",)),
    (
        "mlp_batch_norm",
        lambda: nn.Sequential(nn.Linear(7, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 3)),
        (7,),
        ("linear", "batch_norm", "relu"),
    ),
    ("conv", lambda: nn.Conv2d(3, 4, 3), _IMAGE, ("conv2d",)),
    ("conv_stride_padding", lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), _IMAGE, ("conv2d",)),
    ("conv_rectangular", lambda: nn.Conv2d(3, 4, (3, 1), stride=(1, 2), padding=(1, 0)), (3, 8, 7), ("conv2d",)),
    ("conv_dilation", lambda: nn.Conv2d(3, 4, 3, padding=2, dilation=2), _IMAGE, ("conv2d",)),
    ("conv_groups", lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 8, 8), ("conv2d",)),
    ("conv_depthwise", lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4), (4, 8, 8), ("conv2d",)),
    (
        "conv_batch_norm_relu6",
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU6()),
        _IMAGE,
        ("conv2d", "batch_norm", "clip"),
    ),
    (
        "residual",
        lambda: Residual(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))),
        _IMAGE,
        ("conv2d", "relu", "add"),
    ),
    ("concat", Concat, _IMAGE, ("concat",)),
    ("squeeze_excite", _squeeze_excite, (4, 8, 8), ("adaptive_avg_pool2d", "hard_sigmoid", "mul")),
    ("max_pool", lambda: nn.MaxPool2d(3, stride=2, padding=1), _IMAGE, ("max_pool2d",)),
    ("max_pool_ceil", lambda: nn.MaxPool2d(2, ceil_mode=True), (2, 7, 7), ("max_pool2d",)),
    ("avg_pool", lambda: nn.AvgPool2d(3, stride=2, padding=1), _IMAGE, ("avg_pool2d",)),
    (
        "avg_pool_without_pad",
        lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
        _IMAGE,
        ("avg_pool2d",),
    ),
    ("adaptive_avg_pool", lambda: nn.AdaptiveAvgPool2d((2, 4)), _IMAGE, ("adaptive_avg_pool2d",)),
    (
        "global_pool_flatten",
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)),
        _IMAGE,
        ("adaptive_avg_pool2d", "reshape", "linear"),
    ),
    ("mean", lambda: Apply(lambda x: x.mean((2, 3))), _IMAGE, ("mean",)),
    ("mean_keep", lambda: Apply(lambda x: x.mean(1, keepdim=True)), (5, 6), ("mean",)),
    ("leaky_relu", lambda: nn.LeakyReLU(0.1), (9,), ("leaky_relu",)),
    ("sigmoid", lambda: nn.Sigmoid(), (9,), ("sigmoid",)),
    ("tanh", lambda: nn.Tanh(), (9,), ("tanh",)),
    ("silu", lambda: nn.SiLU(), (9,), ("silu",)),
    ("gelu", lambda: nn.GELU(), (9,), ("gelu",)),
    ("gelu_tanh", lambda: nn.GELU(approximate="tanh"), (9,), ("gelu",)),
    ("hard_swish", lambda: nn.Hardswish(), (9,), ("hard_swish",)),
    ("softmax", lambda: nn.Softmax(dim=1), (9,), ("softmax",)),
    ("layer_norm", lambda: nn.LayerNorm(6), (5, 6), ("layer_norm",)),
    ("layer_norm_plain", lambda: nn.LayerNorm((5, 6), elementwise_affine=False), (5, 6), ("layer_norm",)),
    ("group_norm", lambda: nn.GroupNorm(2, 4), (4, 5, 5), ("group_norm",)),
    ("scale_and_shift", ScaleAndShift, _IMAGE, ("sub", "div", "mul", "add")),
    ("two_values", TwoValues, (9,), ("sub", "mul", "div", "add")),
    ("one_minus", lambda: Apply(lambda x: 1.0 - x), (9,), ()),
    (
        "permute",
        lambda: nn.Sequential(Apply(lambda x: x.permute(0, 3, 1, 2)), nn.Conv2d(3, 2, 1)),
        (8, 8, 3),
        ("permute",),
    ),
    ("slice", lambda: Apply(lambda x: x[:, :, ::2, 1:-1]), _IMAGE, ("slice",)),
    ("select", lambda: Apply(lambda x: x[:, -1]), (5, 6), ("select",)),
    ("pad", lambda: Apply(lambda x: F.pad(x, (1, 2, 0, 1), value=0.5)), _IMAGE, ("pad",)),
    ("attention", lambda: Attention(6), (5, 6), ("attention", "linear")),
    ("matmul_softmax", ManualAttention, (5, 6), ("matmul", "softmax", "permute")),
    ("token_block", lambda: TokenBlock(4, 6), (4, 6), ("constant", "concat", "attention", "layer_norm", "select")),
    ("identity", lambda: nn.Identity(), (9,), ()),
    ("binary_linear", lambda: BinaryLinear(40, 6, bias=True), (40,), ("binary_linear",)),
    (
        "binary_mlp",
        lambda: nn.Sequential(
            BinaryLinear(70, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), BinaryLinear(64, 10, bias=True)
        ),
        (70,),
        ("binary_linear", "batch_norm"),
    ),
    ("binary_conv", lambda: BinaryConv2d(3, 5, stride=1, padding=0), _IMAGE, ("binary_conv2d",)),
    ("binary_conv_stride_padding", lambda: BinaryConv2d(3, 5, stride=2, padding=1), _IMAGE, ("binary_conv2d",)),
    ("binary_conv_groups", lambda: BinaryConv2d(4, 4, 1, 1, groups=2), (4, 6, 6), ("binary_conv2d",)),
    ("quantized_linear_8", lambda: QuantizedLinear(12, 5, 8, 8), (12,), ("quantized_linear",)),
    ("quantized_linear_4_weights_only", lambda: QuantizedLinear(12, 5, 4, 32), (12,), ("quantized_linear",)),
    ("quantized_conv_8", lambda: QuantizedConv2d(3, 4, 8, 8), _IMAGE, ("quantized_conv2d",)),
    ("quantized_conv_4_depthwise", lambda: QuantizedConv2d(4, 4, 4, 8, groups=4), (4, 8, 8), ("quantized_conv2d",)),
]


def _build() -> list[Case]:
    cases = []
    with torch.random.fork_rng(devices=[]):
        for number, (name, builder, shape, operators) in enumerate(_BUILDERS):
            torch.manual_seed(number)
            cases.append(Case(name, _randomised(builder()), shape, operators))
    return cases


CASES = _build()
