"""Products of secret matrices: one ring product per party once the inputs are known, one before.

Source: Beaver, CRYPTO 1991: with E = x - a and F = y - b opened and c = a b, x y = E F + E b + a F + c. Each party can
compute E b_p + a_p F from its shares (two products), and one of them E F. Ours: let R be an invertible matrix over the
integers with R - R^-1 = 1, namely [[0, 1], [1, 1]] on the halves of the inner dimension. Then

    (E R + a_0) (F + R^-1 b_0) + (a_1 - E R^-1) (F - R b_1) = E F + E b + a F + a_0 R^-1 b_0 - a_1 R b_1,

and the last two products need no input: what is opened, and so what anybody sees, is the same, but half of the
multiply-adds are done in advance. (Numbers with r - 1/r = 1 would do for elementwise products as well; no ring modulo
2^l has them, because 1 = r^2 - r is even.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from edgeward.backends.mpc.cost import Cost
from edgeward.backends.mpc.offline.demand import Demand, Field, Values
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.products import matmul
from edgeward.backends.mpc.protocols.truncation import mask_onto, open_truncated
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError
from edgeward.native.shares import add_both, turn_factor

_OWN = "truncation/"


@final
@dataclass(frozen=True)
class MatrixProduct(Demand):
    """Material for `count` products of an m x k and a k x n matrix, all secret."""

    m: int
    k: int
    n: int
    count: int = 1

    def fields(self, ring: Ring) -> tuple[Field, ...]:
        shapes = {
            "a": (self.count, self.m, self.k),
            "b": (self.count, self.k, self.n),
            "c": (self.count, self.m, self.n),
        }
        return tuple(Field(name, shape, ring.bits, name == "c") for name, shape in shapes.items())

    def complete(self, ring: Ring, clear: Values, kept: Values) -> dict[str, np.ndarray]:
        return {"c": stacked_product(ring, clear["a"], clear["b"])}

    def cost(self, ring: Ring) -> Cost:
        return Cost(self.count * self.k * (self.m + self.n) * ring.element_bytes, 1)


def stacked_product(ring: Ring, a: Elements, b: Elements, onto: Elements | None = None) -> Elements:
    """Return a b for stacks [count, m, k] and [count, k, n], added to `onto` in place where that is given."""
    return matmul(np.ascontiguousarray(a), np.ascontiguousarray(b), ring, onto)


def prepare_product(party: Party, material: Material, truncation: Material | None = None) -> Material:
    """Do the part of `matrix_multiply` that needs no input, one of its two ring products; uses the material up.

    With `truncation` for the product's elements it comes out truncated: the mask is added here.
    """
    _, arrays = material.take(MatrixProduct)
    ready = _prepared(party, arrays)
    if truncation is not None:
        shift, own = mask_onto(party, ready["c"], truncation)
        ready |= {"shift": np.array([shift]), **{_OWN + name: array for name, array in own.items()}}
    return material.renewed(ready)


def matrix_multiply(party: Party, x: Shared, y: Shared, material: Material, label: str = "matmul") -> Shared:
    """Return shares of x y for secret matrices, [m, k] and [k, n] or stacks of them; fraction bits add up.

    `material` may come from `prepare_product` (then one ring product is left; a truncation given there follows, as
    `truncate` does it) or straight from the supply.

    Guarantee: see `Party`; both are opened under masks used once. Cost: count k (m + n) elements, 1 round, and the
    truncation's.
    """
    demand, t = material.take(MatrixProduct)
    stacks = (demand.count, demand.m, demand.k), (demand.count, demand.k, demand.n)
    single = demand.count == 1 and len(x.shape) == 2
    if (x.shape, y.shape) != (tuple(shape[1:] for shape in stacks) if single else stacks):
        raise ConfigError("material for other shapes", expected=repr(demand), came=f"{x.shape} and {y.shape}")
    if "left" not in t:
        t = _prepared(party, t)
    ring, factors = party.ring, [part.elements.reshape(shape) for part, shape in zip((x, y), stacks, strict=True)]
    masked = [ring.wrap(np.subtract(own, t[name], out=t[name])) for own, name in zip(factors, "ab", strict=True)]
    (_, e), (_, f) = party.swap_all(masked, [label, label])
    left = turn_factor(t["left"], _even(factors[0], 2), _even(e, 2), party.first)
    right = add_both(t["right"], _even(factors[1], 1), _even(f, 1))
    share = ring.wrap(stacked_product(ring, left, right, t["c"]))
    fraction = x.fraction + y.fraction
    if "shift" in t:
        own = {name.removeprefix(_OWN): array for name, array in t.items() if name.startswith(_OWN)}
        shift = int(t["shift"][0])
        truncated = open_truncated(party, share.reshape(-1), shift, own, f"{label}/truncate")
        share, fraction = truncated.reshape(share.shape), fraction - shift
    return Shared(share[0] if single else share, fraction)


def _prepared(party: Party, t: Values) -> dict[str, np.ndarray]:
    """Return the material with its own part of both factors, and with the product that needs no input taken from c.

    With E = x_0 - a_0 + e, where e came, the first party's factor a_0 + E R is (a_0 - a_0 R) + (x_0 + e) R, and the
    others likewise: what is added to x_p and y_p is known before.
    """
    ring, a, b = party.ring, _even(t["a"], 2), _even(t["b"], 1)
    (a1, a2), (b1, b2) = np.split(a, 2, axis=2), np.split(b, 2, axis=1)
    turned = np.concatenate([b2 - b1, b1] if party.first else [-b2, -b1 - b2], axis=1)
    left = np.concatenate([a1 - a2, -a1] if party.first else [a2, a1 + a2], axis=2)
    return {**t, "left": left, "right": turned - b, "c": t["c"] - stacked_product(ring, a, turned)}


def _even(x: Elements, axis: int) -> Elements:
    """Return `x` with a zero row or column more where the length of `axis` is odd."""
    if x.shape[axis] % 2 == 0:
        return x
    return np.pad(x, [(0, int(place == axis)) for place in range(3)])
