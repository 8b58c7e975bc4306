"""k-bit layers: weights rounded per output channel, inputs rounded per tensor, ranges observed on the way."""

from __future__ import annotations

from typing import Literal, TypeVar, final

import torch
from torch import Tensor, nn

from edgeward.core.errors import ConfigError
from edgeward.graph.quantized import fake_quantize_activation, fake_quantize_weight
from edgeward.transforms.convolution import convolution_settings
from edgeward.transforms.products import Host, Product, hosted
from edgeward.transforms.ranges import affine, batch_range, bearing_scale, symmetric_scale, widen
from edgeward.transforms.straight_through import passing
from edgeward.transforms.transform import Derived, plain

Mode = Literal["observe", "quantize"]


class Quantized(Derived):
    """What k-bit layers share: widths, scales, range observers, and the two modes.

    State: `weight_scale` [out]; `activation_scale` [], `activation_zero_point` []; and, where inputs are rounded,
    the observed range `activation_low` [], `activation_high` [] with the count `activation_seen` [].
    `mode` "observe" runs in float and collects ranges; "quantize" rounds, and in training mode follows the range with
    an exponential moving average. `percentile` 100 observes extremes, less cuts both tails of each observed batch.
    """

    weight_scale: Tensor
    activation_scale: Tensor
    activation_zero_point: Tensor
    activation_low: Tensor
    activation_high: Tensor
    activation_seen: Tensor

    def equip(self, weight_bits: int, activation_bits: int, momentum: float) -> None:
        """Check the widths and register the buffers; called once by constructors."""
        widths = (weight_bits, activation_bits)
        if not ((2 <= weight_bits <= 8 and (2 <= activation_bits <= 8 or activation_bits == 32)) or widths == (32, 32)):
            raise ConfigError(
                "no k-bit layer has these widths",
                expected="weight bits 2 to 8 with activation bits 2 to 8 or 32, or 32 and 32 for none",
                came=f"weight bits {weight_bits}, activation bits {activation_bits}",
                fix="use 8 and 8",
            )
        self.weight_bits, self.activation_bits, self.momentum = weight_bits, activation_bits, momentum
        self.mode: Mode = "quantize"
        self.percentile: float = 100.0
        rows = self.weight.shape[0]
        self.register_buffer("weight_scale", torch.ones(rows))
        self.register_buffer("activation_scale", torch.ones(()))
        self.register_buffer("activation_zero_point", torch.zeros(()))
        if activation_bits < 32:
            for name in ("low", "high", "seen"):
                self.register_buffer(f"activation_{name}", torch.zeros(()))
        self.settle()

    def derive(self, weight: Tensor, *beside: Tensor) -> dict[str, Tensor]:
        if self.weight_bits == 32:
            return {}
        scale = symmetric_scale(weight, self.weight_bits)
        return {"weight_scale": bearing_scale(scale, *beside) if beside else scale}

    def beside(self) -> tuple[str, ...]:
        integers = self.weight_bits < 32 and self.activation_bits < 32
        return ("bias", "activation_scale") if integers and getattr(self, "bias", None) is not None else ()

    def compute(self, product: Product) -> Tensor:
        """Return a product of the layer in its mode."""
        x, weight, bias = product.x, product.weight, product.bias
        if self.weight_bits == 32:
            return product.multiply(x, weight, bias)
        if torch.compiler.is_exporting():
            return self._exported(product)
        if self.mode == "observe":
            self._observe(x.detach())
            return product.multiply(x, weight, bias)
        if self.training:
            self._follow(x.detach())
            self.settle()
        return product.multiply(self._round_input(x), self._round_weight(product), bias)

    def _exported(self, product: Product) -> Tensor:
        """Call the custom operator that survives `torch.export`."""
        operators = torch.ops.edgeward
        operator = operators.quantized_conv2d if product.convolution else operators.quantized_linear
        scales = (self._steps(product), self.activation_scale, self.activation_zero_point)
        geometry = (product.stride, product.padding, product.dilation, product.groups) if product.convolution else ()
        result: Tensor = operator(
            product.x, product.weight, product.bias, *scales, *geometry, self.weight_bits, self.activation_bits
        )
        return result

    def _steps(self, product: Product) -> Tensor:
        """Return the steps of a product's weight: those stored, or for a weight that is computed, computed with it."""
        if product.weight is self._parameters.get("weight"):
            return self.weight_scale
        scale = symmetric_scale(product.weight.detach(), self.weight_bits)
        if product.bias is None or self.activation_bits == 32:
            return scale
        return bearing_scale(scale, product.bias.detach(), self.activation_scale)

    def _round_weight(self, product: Product) -> Tensor:
        """Return the rounded weight; its gradient reaches the latent weight unchanged."""
        weight = product.weight
        return passing(fake_quantize_weight(weight, self._steps(product), self.weight_bits), weight)

    def _round_input(self, x: Tensor) -> Tensor:
        """Return the rounded input; its gradient passes inside the representable range only."""
        if self.activation_bits == 32:
            return x
        scale, zero = self.activation_scale, self.activation_zero_point
        low, high = -zero * scale, (2**self.activation_bits - 1 - zero) * scale
        clipped = torch.minimum(torch.maximum(x, low), high)
        return passing(fake_quantize_activation(x, scale, zero, self.activation_bits), clipped)

    def _observe(self, x: Tensor) -> None:
        """Widen the range by `x` (extremes) or average over batches (percentiles)."""
        if self.activation_bits < 32:
            found = batch_range(x, self.percentile)
            seen = (self.activation_low, self.activation_high)
            self._store(*widen(seen, found, self.activation_seen, extremes=self.percentile >= 100))

    def _follow(self, x: Tensor) -> None:
        """Move the range towards that of `x`; the first batch sets it."""
        if self.activation_bits < 32:
            rate = torch.where(self.activation_seen == 0, 1.0, self.momentum)
            low, high = batch_range(x, self.percentile)
            self._store(torch.lerp(self.activation_low, low, rate), torch.lerp(self.activation_high, high, rate))

    def _store(self, low: Tensor, high: Tensor) -> None:
        """Keep a range and what follows from it."""
        scale, zero = affine(low, high, self.activation_bits)
        self.activation_low.copy_(low)
        self.activation_high.copy_(high)
        self.activation_seen.add_(1.0)
        self.activation_scale.copy_(scale)
        self.activation_zero_point.copy_(zero)


LayerT = TypeVar("LayerT", bound=Quantized)


def _adopt(new: LayerT, layer: nn.Linear | nn.Conv2d) -> LayerT:
    """Move weight and bias of `layer` into `new`."""
    for name in ("weight", "bias"):
        new.register_parameter(name, getattr(layer, name))
    new.settle()
    return new.to(layer.weight.device).train(layer.training)


@final
class QuantLinear(Quantized, nn.Linear):
    """Fully connected layer with k-bit weights and inputs, as `quantized_linear` of the graph computes it.

    Shapes: x [..., in]; returns [..., out].
    Cost at inference: weight_bits per weight, 8-bit multiplications; see `graph.quantized` for the arithmetic.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight_bits: int = 8,
        activation_bits: int = 8,
        momentum: float = 0.05,
    ) -> None:
        """Create the layer with torch's default initial weights."""
        super().__init__(in_features, out_features, bias)
        self.equip(weight_bits, activation_bits, momentum)

    @classmethod
    def of(cls, layer: nn.Linear, weight_bits: int, activation_bits: int) -> QuantLinear:
        """Take over weight and bias of a plain layer, without drawing random numbers."""
        with torch.random.fork_rng(devices=[]):
            new = cls(layer.in_features, layer.out_features, weight_bits=weight_bits, activation_bits=activation_bits)
        return _adopt(new, layer)

    def forward(self, input: Tensor) -> Tensor:
        """Run the layer in its mode."""
        return self.compute(Product(input, self.weight, self.bias, convolution=False))


@final
class QuantConv2d(Quantized, nn.Conv2d):
    """Convolution with k-bit weights and inputs, as `quantized_conv2d` of the graph computes it.

    Shapes: x [B, in, H, W]; returns [B, out, H', W']. Weight scales are per output channel, so that a depthwise
    convolution has one scale per channel.
    Cost at inference: weight_bits per weight, 8-bit multiplications; see `graph.quantized` for the arithmetic.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        weight_bits: int = 8,
        activation_bits: int = 8,
        momentum: float = 0.05,
    ) -> None:
        """Create the layer with torch's default initial weights."""
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.equip(weight_bits, activation_bits, momentum)

    @classmethod
    def of(cls, layer: nn.Conv2d, weight_bits: int, activation_bits: int) -> QuantConv2d:
        """Take over weight and bias of a plain layer, without drawing random numbers."""
        with torch.random.fork_rng(devices=[]):
            new = cls(**convolution_settings(layer), weight_bits=weight_bits, activation_bits=activation_bits)
        return _adopt(new, layer)

    def forward(self, input: Tensor) -> Tensor:
        """Run the layer in its mode."""
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        return self.compute(Product(input, self.weight, self.bias, *geometry))  # type: ignore[arg-type]


@final
class QuantHost(Quantized, Host):
    """A layer of a subclass whose own forward runs with k-bit weights and inputs."""


def quantized_layer(layer: nn.Linear | nn.Conv2d, weight_bits: int, activation_bits: int) -> Quantized:
    """Return the k-bit form of a layer; one of a subclass keeps its own forward, and is changed in place."""
    if not plain(layer):
        host = hosted(layer, QuantHost)
        host.equip(weight_bits, activation_bits, momentum=0.05)
        return host.to(layer.weight.device)
    if isinstance(layer, nn.Conv2d):
        return QuantConv2d.of(layer, weight_bits, activation_bits)
    return QuantLinear.of(layer, weight_bits, activation_bits)
