"""Binary layers: normalise, take signs, multiply with sign weights, scale per output (XNOR order)."""

from __future__ import annotations

from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.transforms.convolution import convolution_settings
from edgeward.transforms.products import Host, Product, hosted
from edgeward.transforms.straight_through import passing, sign
from edgeward.transforms.transform import Derived, plain

Rule = Literal["xnor", "clip"]


def filter_scale(weight: Float[Tensor, " out *rest"]) -> Float[Tensor, " out"]:
    """Return mean |W| per output filter, the least-squares scale of sign(W).

    Source: Rastegari et al., XNOR-Net, ECCV 2016, equation 6.
    """
    return weight.abs().flatten(1).mean(1)


def binary_parts(weight: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Return (sign(W), alpha) whose product has the gradient of `rule` with respect to W.

    "xnor": alpha 1[|W| < 1] g + sign(W) mean(sign(W) g), the full derivative of alpha sign(W); "clip": alpha constant,
    alpha 1[|W| < 1] g.
    """
    scale = filter_scale(weight)
    return sign(weight), scale if rule == "xnor" else scale.detach()


@final
class BinaryLinear(Derived, nn.Linear):
    """Fully connected layer on one-bit operands: alpha[o] * (sign(norm(x)) sign(W)^T), without bias.

    Shapes: x [B, in] or [B, T, in]; returns [B, out] or [B, T, out]. State: `weight` the real-valued latent weight
    [out, in], `scale` [out] = mean |W| per output, `norm.*` a BatchNorm over the inputs.
    Cost at inference: in * out bit operations and out multiplications per record; 1 bit per weight.
    Source: Rastegari et al., XNOR-Net, ECCV 2016, section 3.2 (block order BatchNorm, sign, binary product).
    """

    scale: Tensor

    def __init__(self, in_features: int, out_features: int, *, rule: Rule = "xnor") -> None:
        """Create the layer with torch's default initial weights."""
        super().__init__(in_features, out_features, bias=False)
        self.rule: Rule = rule
        self.norm = nn.BatchNorm1d(in_features)
        self.register_buffer("scale", torch.ones(out_features))
        self.settle()

    @classmethod
    def of(cls, layer: nn.Linear, rule: Rule = "xnor") -> BinaryLinear:
        """Take over the weight of a plain layer as latent weight, without drawing random numbers."""
        with torch.random.fork_rng(devices=[]):
            new = cls(layer.in_features, layer.out_features, rule=rule)
        new.weight = layer.weight
        new.settle()
        return new.to(layer.weight.device).train(layer.training)

    def derive(self, weight: Tensor, *beside: Tensor) -> dict[str, Tensor]:
        return {"scale": filter_scale(weight)}

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer; in training mode also refresh `scale`."""
        x = self.norm(x) if x.dim() == 2 else self.norm(x.transpose(1, 2)).transpose(1, 2)
        if torch.compiler.is_exporting():
            result: Tensor = torch.ops.edgeward.binary_linear(x, self.weight, self.scale, None)
            return result
        weight, scale = binary_parts(self.weight, self.rule)
        if self.training:
            self.scale.copy_(scale.detach())
        return F.linear(sign(x), weight) * passing(self.scale, scale)


@final
class BinaryConv2d(Derived, nn.Conv2d):
    """Convolution on one-bit operands: alpha[o] * conv2d(sign(norm(x)), sign(W)), padded with -1, without bias.

    Shapes: x [B, in, H, W]; returns [B, out, H', W']. State: `weight` the real-valued latent weight
    [out, in / groups, kh, kw], `scale` [out] = mean |W| per filter, `norm.*` a BatchNorm over the input channels.
    Cost at inference: one bit operation per multiply-accumulate of the plain layer; 1 bit per weight.
    Source: Rastegari et al., XNOR-Net, ECCV 2016, section 3.2; the input scale K of its equation 11 is left out, as
    BatchNorm before the sign makes it nearly constant and it would need full-precision windows.
    """

    scale: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        *,
        rule: Rule = "xnor",
    ) -> None:
        """Create the layer with torch's default initial weights."""
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self.rule: Rule = rule
        self.norm = nn.BatchNorm2d(in_channels)
        self.register_buffer("scale", torch.ones(out_channels))
        self.settle()

    @classmethod
    def of(cls, layer: nn.Conv2d, rule: Rule = "xnor") -> BinaryConv2d:
        """Take over the weight of a plain layer as latent weight, without drawing random numbers."""
        with torch.random.fork_rng(devices=[]):
            new = cls(**convolution_settings(layer), rule=rule)
        new.weight = layer.weight
        new.settle()
        return new.to(layer.weight.device).train(layer.training)

    def derive(self, weight: Tensor, *beside: Tensor) -> dict[str, Tensor]:
        return {"scale": filter_scale(weight)}

    def forward(self, input: Tensor) -> Tensor:
        """Run the layer; in training mode also refresh `scale`."""
        x = self.norm(input)
        high, wide = (int(extent) for extent in self.padding)
        if torch.compiler.is_exporting():
            result: Tensor = torch.ops.edgeward.binary_conv2d(
                x, self.weight, self.scale, None, self.stride, (high, wide), self.dilation, self.groups
            )
            return result
        weight, scale = binary_parts(self.weight, self.rule)
        if self.training:
            self.scale.copy_(scale.detach())
        padded = F.pad(sign(x), (wide, wide, high, high), value=-1.0)
        y = F.conv2d(padded, weight, None, self.stride, 0, self.dilation, self.groups)
        return y * passing(self.scale, scale).view(-1, 1, 1)


@final
class BinaryHost(Host):
    """A layer of a subclass whose own forward runs on one-bit operands: normalise, take signs, multiply, scale.

    State: that of the layer, `scale` [out] and `norm.*` as of the plain binary layers. What its forward pads itself is
    normalised with the rest, and becomes a sign like any other number; a bias given to the product is left out.
    """

    rule: Rule
    norm: nn.Module
    scale: Tensor

    def equip(self, rule: Rule, inputs: int, outputs: int) -> None:
        """Add normalisation and scales; called once."""
        self.rule = rule
        self.norm = nn.BatchNorm2d(inputs) if len(self.weight_shape) == 4 else nn.BatchNorm1d(inputs)
        self.register_buffer("scale", torch.ones(outputs))
        self.settle()

    def derive(self, weight: Tensor, *beside: Tensor) -> dict[str, Tensor]:
        return {"scale": filter_scale(weight)}

    def compute(self, product: Product) -> Tensor:
        """Return the one-bit product; in training mode also refresh `scale`."""
        x, own = product.x, product.weight is self._parameters.get("weight")
        flat = not product.convolution and x.dim() == 3
        x = self.norm(x.transpose(1, 2)).transpose(1, 2) if flat else self.norm(x)
        if torch.compiler.is_exporting():
            scale = self.scale if own else filter_scale(product.weight)
            return self._exported(product, x, scale)
        weight, scale = binary_parts(product.weight, self.rule)
        if self.training and own:
            self.scale.copy_(scale.detach())
        shown = passing(self.scale, scale) if own else scale
        if not product.convolution:
            return F.linear(sign(x), weight) * shown
        high, wide = product.padding
        padded = F.pad(sign(x), (wide, wide, high, high), value=-1.0)
        y = F.conv2d(padded, weight, None, product.stride, 0, product.dilation, product.groups)
        return y * shown.view(-1, 1, 1)

    def _exported(self, product: Product, x: Tensor, scale: Tensor) -> Tensor:
        operators = torch.ops.edgeward
        operator = operators.binary_conv2d if product.convolution else operators.binary_linear
        geometry = (product.stride, product.padding, product.dilation, product.groups) if product.convolution else ()
        result: Tensor = operator(x, product.weight, scale, None, *geometry)
        return result


def binary_layer(layer: nn.Linear | nn.Conv2d, rule: Rule = "xnor") -> nn.Module:
    """Return the one-bit form of a layer; one of a subclass keeps its own forward, and is changed in place."""
    if plain(layer):
        return BinaryConv2d.of(layer, rule) if isinstance(layer, nn.Conv2d) else BinaryLinear.of(layer, rule)
    inputs, outputs = (
        (layer.in_channels, layer.out_channels)
        if isinstance(layer, nn.Conv2d)
        else (layer.in_features, layer.out_features)
    )
    host = hosted(layer, BinaryHost)
    host.equip(rule, inputs, outputs)
    return host.to(host.weight.device).train(host.training)


BINARY = (BinaryLinear, BinaryConv2d, BinaryHost)
