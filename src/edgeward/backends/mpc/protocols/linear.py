"""Linear layers on a shared input with shared, fixed weights: the weights' mask is opened once, then the input's only.

Source: Beaver, CRYPTO 1991, with the mask of a fixed factor opened once. With E = x - a and F = w - b public,
L(x; w) = L(E; w_p) summed over both parties + L(a; F) + L(a; b), where w_p is a share of w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.interleaving import Duplex
from edgeward.backends.mpc.offline.demand import Demand, Field, Values
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.linear_map import Convolution, Dense, LinearMap, Shape
from edgeward.backends.mpc.protocols.slicing import slices_of
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError


@final
@dataclass(frozen=True)
class WeightMask(Demand):
    """The mask b of one layer's weights, opened against them once; `name` is unique to the deal."""

    name: str
    shape: Shape

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        return (Field("mask", self.shape, ring.bits, False),)

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        if self.name in kept:
            raise ConfigError(f"weights '{self.name}' were dealt before", fix="give every layer its own name")
        return {}

    def keep(self, clear: Values) -> dict[str, np.ndarray]:
        return {self.name: clear["mask"]}

    def cost(self, ring: Ring) -> Cost:
        return Cost(math.prod(self.shape) * ring.element_bytes, 1)


@final
@dataclass(frozen=True)
class Use:
    """One layer that reads an input: its map, and the name and shape of its weights."""

    name: str
    map: LinearMap
    weights: Shape


@final
@dataclass(frozen=True)
class Linear(Demand):
    """Material for one input of shape `input` read by one layer or by several: the input is opened once for all."""

    input: Shape
    uses: tuple[Use, ...]

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        products = [
            Field(f"product{i}", use.map.output_shape(self.input, use.weights), ring.bits, True)
            for i, use in enumerate(self.uses)
        ]
        return (Field("mask", self.input, ring.bits, False), *products)

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        missing = [use.name for use in self.uses if use.name not in kept]
        if missing:
            raise ConfigError(f"no weights dealt for {', '.join(missing)}", fix="deal their WeightMask first")
        return {f"product{i}": use.map.apply(ring, clear["mask"], kept[use.name]) for i, use in enumerate(self.uses)}

    def cost(self, ring: Ring) -> Cost:
        return Cost(math.prod(self.input) * ring.element_bytes, 1)


@final
@dataclass(frozen=True, eq=False)
class MaskedWeights:
    """One party's hold on a layer's weights: the public F = w - b and this party's share of w.

    `share` is the share b_p, plus F at the first party, so that the shares sum to w.
    """

    name: str
    opened: Elements
    share: Elements
    fraction: int

    def __repr__(self) -> str:
        """Return name and shape, never the share."""
        return f"MaskedWeights({self.name!r}, shape={tuple(self.opened.shape)})"


def mask_weights(party: Party, weights: Shared, material: Material) -> MaskedWeights:
    """Open w - b, once for the life of the weights. Guarantee: see `Party`; b is used for this opening alone.

    Cost: one element per weight, 1 round.
    """
    return mask_all_weights(party, [weights], [material])[0]


def mask_all_weights(party: Party, weights: Sequence[Shared], materials: Sequence[Material]) -> list[MaskedWeights]:
    """Open w - b of several layers at once, as `mask_weights` does. Cost: one element per weight, 1 round together."""
    ring, names, masks, differences = party.ring, list[str](), list[Elements](), list[Elements]()
    for share, material in zip(weights, materials, strict=True):
        demand, arrays = material.take(WeightMask)
        if share.shape != demand.shape:
            raise ConfigError(
                f"weights of '{demand.name}' have another shape", expected=str(demand.shape), came=str(share.shape)
            )
        names.append(demand.name)
        masks.append(arrays["mask"])
        differences.append(ring.wrap(share.elements - arrays["mask"]))
    opened = party.open_all(differences, [f"{name}/weights" for name in names])
    differences.clear()
    masks.reverse()
    return [
        MaskedWeights(name, public, ring.wrap(masks.pop() + public) if party.first else masks.pop(), share.fraction)
        for name, public, share in zip(names, opened, weights, strict=True)
    ]


def prepare(ring: Ring, weights: Sequence[MaskedWeights], material: Material) -> Material:
    """Do the part of one request that needs no input: L(a; F) + L(a; b), a product per layer; uses `material` up."""
    demand, arrays = material.take(Linear)
    _agree(demand, weights)
    ready = {"mask": arrays["mask"], "ready": np.ones(1, np.uint8)}
    for i, (use, held) in enumerate(zip(demand.uses, weights, strict=True)):
        ready[f"product{i}"] = ring.wrap(arrays[f"product{i}"] + use.map.apply(ring, arrays["mask"], held.opened))
    return material.renewed(ready)


def linear(
    party: Party,
    x: Shared,
    weights: Sequence[MaskedWeights],
    material: Material,
    biases: Sequence[Shared | None] | None = None,
    label: str = "linear",
) -> tuple[Shared, ...]:
    """Return shares of L_i(x; w_i) + bias_i for every layer that reads `x`; fraction bits add up.

    `material` may come from `prepare` (then one ring product per layer is left) or straight from the supply. A bias
    has one element per output channel and carries the fraction bits of the product.

    Guarantee: see `Party`; x is opened under a mask used once, the weights are not opened again. Cost: one element per
    input element, 1 round, for all layers together.
    """
    demand, arrays = material.take(Linear)
    _agree(demand, weights)
    if x.shape != demand.input:
        raise ConfigError("material for an input of another shape", expected=str(demand.input), came=str(x.shape))
    ring, outputs = party.ring, []
    masked = ring.wrap(x.elements - arrays["mask"])
    shares = [held.share for held in weights]
    for i, out in enumerate(_products(party, demand, masked, shares, label)):
        use, held = demand.uses[i], weights[i]
        out = out + arrays[f"product{i}"]
        if "ready" not in arrays:
            out = out + use.map.apply(ring, arrays["mask"], held.opened)
        shared = Shared(ring.wrap(out), x.fraction + held.fraction)
        bias = biases[i] if biases else None
        outputs.append(shared if bias is None else add_bias(ring, use.map, shared, bias))
    return tuple(outputs)


def _products(party: Party, demand: Linear, masked: Elements, shares: Sequence[Elements], label: str) -> list[Elements]:
    """Open the input's share `masked` and return L_i(opened; share_i) of every layer, part by part where that pays."""
    ring, link = party.ring, party.link
    axis, cuts = _cuts(demand, slices_of(party, masked.size))
    if len(cuts) < 2 or not isinstance(link, Duplex):
        opened = party.open_elements(masked, label)
        return [use.map.apply(ring, opened, share) for use, share in zip(demand.uses, shares, strict=True)]
    mine = [np.ascontiguousarray(masked[:, cut] if axis else masked[cut], ring.dtype) for cut in cuts]
    for part in mine:
        link.send(part, label)
    parts: list[list[Elements]] = [[] for _ in demand.uses]
    for part, cut in zip(mine, cuts, strict=True):
        opened = ring.wrap(part + link.receive(part.shape, part.dtype, label))
        for use, share, made in zip(demand.uses, shares, parts, strict=True):
            made.append(use.map.apply(ring, opened, np.ascontiguousarray(share[:, cut]) if axis else share))
    return [ring.wrap(sum(made[1:], made[0])) if axis else np.concatenate(made) for made in parts]


def _cuts(demand: Linear, slices: int) -> tuple[int, list[slice]]:
    """Return the axis along which to cut the input, records (0) or channels (1), and where; no places for neither."""
    maps, records = [use.map for use in demand.uses], demand.input[0]
    known = all(isinstance(m, Dense) or (isinstance(m, Convolution) and m.groups == 1) for m in maps)
    axis = 0 if records >= slices else 1
    if slices < 2 or not known:
        return axis, []
    size = -(-demand.input[axis] // slices)
    return axis, [slice(start, min(start + size, demand.input[axis])) for start in range(0, demand.input[axis], size)]


def public_linear(ring: Ring, map_: LinearMap, x: Shared, w: Elements, fraction: int) -> Shared:
    """Return shares of L(x; w) for weights that both parties know. No communication."""
    return Shared(map_.apply(ring, x.elements, w), x.fraction + fraction)


def add_bias(ring: Ring, map_: LinearMap, z: Shared, bias: Shared) -> Shared:
    """Return shares of z + bias, one bias per channel. No communication."""
    if bias.fraction != z.fraction:
        raise ConfigError("bias with other fraction bits", expected=str(z.fraction), came=str(bias.fraction))
    return Shared(ring.wrap(z.elements + map_.spread(bias.elements, z.elements.ndim)), z.fraction)


def _agree(demand: Linear, weights: Sequence[MaskedWeights]) -> None:
    wanted, came = [use.name for use in demand.uses], [held.name for held in weights]
    if wanted != came:
        raise ConfigError("material for other layers", expected=str(wanted), came=str(came))
