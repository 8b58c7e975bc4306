"""`SecretTensor`: arithmetic on values that no party knows, recorded so that gradients can flow back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import torch

from edgeward.backends.mpc.products import matmul
from edgeward.backends.mpc.protocols.linear_map import Shape
from edgeward.backends.mpc.ring import Elements, Ring
from edgeward.backends.mpc.tensor.protocols import Protocols, Value
from edgeward.backends.mpc.tensor.public import Public, encoded, lifted, numbers_of, whole
from edgeward.core.errors import ConfigError, DataError

Axis: TypeAlias = "int | tuple[int, ...] | None"

_MOST_SPARE = 14


@final
@dataclass(frozen=True, eq=False)
class Parent:
    """A tensor that was read, and what turns the result's gradient into its own."""

    tensor: SecretTensor
    pull: Callable[[SecretTensor], SecretTensor]


@final
class SecretTensor:
    """A tensor of fixed-point numbers of which every party holds a share.

    Arithmetic, comparison and indexing are NumPy's; public numbers, arrays and CPU tensors mix in. Every party must run
    the same operations in the same order, so that control may depend on public values only. Sums keep the fraction
    bits of products; they are dropped where the next product, or an answer, needs it. Every value, and every factor,
    must keep below 2^(l-2-2f) (2^30 by default), and where it is compared below 2^(width-1-f) (2^15); outside, results
    are wrong without notice.

    Guarantee: that of the parties' protocols (`Party`, `Member`); `reveal` gives the value away, and what follows from
    it. Unaudited.
    """

    __array_ufunc__ = None

    def __init__(self, protocols: Protocols, value: Value, parents: Sequence[Parent] = ()) -> None:
        """Wrap shares; gradients flow to those of `parents` that are tracked."""
        self.protocols, self.value = protocols, value
        self.parents = tuple(parent for parent in parents if parent.tensor.tracked)
        self.tracked: bool = bool(self.parents)
        self.gradient: SecretTensor | None = None
        self._short: Value | None = None

    @property
    def shape(self) -> Shape:
        """Return the public shape."""
        return self.value.shape

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return self.value.size

    @property
    def ring(self) -> Ring:
        """Return the ring."""
        return self.protocols.ring

    def __repr__(self) -> str:
        """Return the shape, never a share."""
        return f"SecretTensor(shape={list(self.shape)})"

    def __len__(self) -> int:
        """Return the length of the first axis."""
        return self.shape[0]

    def __bool__(self) -> bool:
        """Refuse: what a program does next may not depend on a secret."""
        raise ConfigError("a secret tensor is neither true nor false", fix="reveal it, or multiply by the comparison")

    def track(self) -> SecretTensor:
        """Record what is computed from this tensor, so that `backward` finds its gradient; return it."""
        self.tracked = True
        return self

    def detach(self) -> SecretTensor:
        """Return the same value, which no gradient reaches."""
        other = SecretTensor(self.protocols, self.value)
        other._short = self._short
        return other

    def assign(self, other: SecretTensor) -> None:
        """Take the value of `other`, and forget the gradient (a step of training)."""
        if other.shape != self.shape:
            raise ConfigError("a tensor of another shape", expected=str(list(self.shape)), came=str(list(other.shape)))
        self.value, self._short, self.gradient = other.short(), None, None

    def short(self) -> Value:
        """Return the shares with no more than the ring's fraction bits; truncates once. Cost: 0 to 2 rounds."""
        shift = self.value.fraction - self.ring.fraction
        if shift <= 0:
            return self.value
        if self._short is None:
            self._short = self.protocols.truncate(self.value, shift)
        return self._short

    def summand(self) -> Value:
        """Return the shares to add up: with no more fraction bits than a product, which leave room for large sums."""
        return self.value if self.value.fraction <= 2 * self.ring.fraction else self.short()

    def reveal(self, to: int | None = None) -> np.ndarray | None:
        """Return the numbers in float64 at party `to` and None elsewhere; without `to`, all parties learn them.

        Guarantee: nothing but the value, rounded to the ring's fraction bits; up or down by chance, so that who
        sees the same product computed and rounded many times learns more of its bits. Cost: one element each, 1 round,
        and a truncation where the value is a product.
        """
        if to is not None and not 0 <= to < self.protocols.parties:
            raise ConfigError("no such party", expected=f"a number below {self.protocols.parties}", came=str(to))
        value = self.short()
        opened = self.protocols.reveal(value, to)
        return None if opened is None else self.ring.decode(opened, value.fraction).reshape(self.shape)

    def backward(self, gradient: SecretTensor | None = None) -> None:
        """Add the gradients of this tensor to `gradient` of every tracked tensor that it was computed from.

        `gradient` is that of what shall be minimised by this tensor (needed unless it is one number). Cost: products as
        in the forward pass, about twice.
        """
        if gradient is None:
            if self.size != 1:
                raise ConfigError(
                    "which gradient?", expected="one number", came=f"shape {list(self.shape)}", fix="sum()"
                )
            gradient = constant(self.protocols, np.ones(self.shape))
        if not self.tracked:
            raise ConfigError("nothing was recorded", fix="call `track()` on the parameters first")
        waiting = {id(self): gradient}
        for tensor in _latest_first(self):
            arrived = waiting.pop(id(tensor))
            if not tensor.parents:
                tensor.gradient = arrived if tensor.gradient is None else tensor.gradient + arrived
            for parent in tensor.parents:
                share, key = parent.pull(arrived), id(parent.tensor)
                waiting[key] = waiting[key] + share if key in waiting else share

    def __add__(self, other: SecretTensor | Public) -> SecretTensor:
        """Return the sum, without communication."""
        if isinstance(other, SecretTensor):
            (a, b), fraction = aligned([self, other])
            parts = tuple(self.ring.wrap(u + v) for u, v in zip(a.parts, b.parts, strict=True))
            parents = [Parent(x, lambda g, shape=x.shape: narrowed(g, shape)) for x in (self, other)]  # type: ignore[misc]
            return SecretTensor(self.protocols, Value(parts, fraction), parents)
        numbers, value = numbers_of(other), self.summand()
        value = value if whole(numbers) else lifted(self.ring, value, self.ring.fraction)
        elements = encoded(self.ring, numbers, value.fraction)
        zero = np.zeros_like(elements)
        parts = tuple(
            self.ring.wrap(part + (elements if first else zero))
            for part, first in zip(value.parts, self.protocols.firsts, strict=True)
        )
        return SecretTensor(
            self.protocols, Value(parts, value.fraction), [Parent(self, lambda g: narrowed(g, self.shape))]
        )

    def __mul__(self, other: SecretTensor | Public) -> SecretTensor:
        """Return the product; of two secret tensors in 1 round, and one to truncate each factor that is a product."""
        if not isinstance(other, SecretTensor):
            return self._scaled(numbers_of(other))
        x = self.short()
        y = x if other is self else other.short()
        value = self.protocols.multiply(x, y)
        a, b = self.detach(), other.detach()
        parents = [
            Parent(self, lambda g: narrowed(g * b, self.shape)),
            Parent(other, lambda g: narrowed(g * a, other.shape)),
        ]
        return SecretTensor(self.protocols, value, parents)

    def __matmul__(self, other: SecretTensor | np.ndarray | torch.Tensor) -> SecretTensor:
        """Return the product of matrices [m, k] and [k, n]: 1 round, or none for public factors."""
        if not isinstance(other, SecretTensor):
            return self._mapped(numbers_of(other))
        if len(self.shape) != 2 or len(other.shape) != 2 or self.shape[1] != other.shape[0]:
            raise DataError("no matrix product", expected="[m, k] and [k, n]", came=f"{self.shape} and {other.shape}")
        value = self.protocols.matrix_multiply(self.short(), other.short())
        a, b = self.detach(), other.detach()
        parents = [Parent(self, lambda g: g @ b.transpose()), Parent(other, lambda g: a.transpose() @ g)]
        return SecretTensor(self.protocols, value, parents)

    def __rmatmul__(self, other: np.ndarray) -> SecretTensor:
        """Return the product of a public matrix and this one, without communication."""
        return self.transpose()._mapped(numbers_of(other).T).transpose()

    def __neg__(self) -> SecretTensor:
        """Return the negative, without communication."""
        value = self.value.each(lambda part: self.ring.wrap(np.negative(part)))
        return SecretTensor(self.protocols, value, [Parent(self, lambda g: -g)])

    def __sub__(self, other: SecretTensor | Public) -> SecretTensor:
        """Return the difference, without communication."""
        return self + (-other if isinstance(other, SecretTensor) else -numbers_of(other))

    def __radd__(self, other: Public) -> SecretTensor:
        """Return the sum."""
        return self + other

    def __rsub__(self, other: Public) -> SecretTensor:
        """Return other - self."""
        return -self + other

    def __rmul__(self, other: Public) -> SecretTensor:
        """Return the product."""
        return self * other

    def __truediv__(self, other: SecretTensor | Public) -> SecretTensor:
        """Return the quotient by public numbers; by a secret tensor: multiply by its `reciprocal`."""
        if isinstance(other, SecretTensor):
            raise ConfigError("a secret divisor", fix="multiply by functions.reciprocal(divisor), for a known range")
        numbers = numbers_of(other)
        if (numbers == 0).any():
            raise DataError("a division by zero", expected="public divisors other than 0", came="0")
        return self * (1 / numbers)

    def __ge__(self, other: SecretTensor | Public) -> SecretTensor:  # type: ignore[misc]
        """Return 1 where self >= other and 0 elsewhere; no gradient flows through it. Cost: a comparison."""
        apart = (self - other).detach()
        return SecretTensor(self.protocols, self.protocols.nonnegative(apart.short(), 0))

    def __le__(self, other: SecretTensor | Public) -> SecretTensor:  # type: ignore[misc]
        """Return 1 where self <= other and 0 elsewhere."""
        return -self >= -(other if isinstance(other, SecretTensor) else numbers_of(other))

    def __gt__(self, other: SecretTensor | Public) -> SecretTensor:  # type: ignore[misc]
        """Return 1 where self > other and 0 elsewhere."""
        return 1 - (self <= other)

    def __lt__(self, other: SecretTensor | Public) -> SecretTensor:  # type: ignore[misc]
        """Return 1 where self < other and 0 elsewhere."""
        return 1 - (self >= other)

    def moved(self, there: Callable[[Elements], np.ndarray], back: Callable[[Elements], np.ndarray]) -> SecretTensor:
        """Return the tensor with its elements moved; `back` is the transposed move, for gradients."""
        return SecretTensor(self.protocols, self.value.each(there), [Parent(self, lambda g: g.moved(back, there))])

    def reshape(self, *shape: int) -> SecretTensor:
        """Return the elements in another shape."""
        before = self.shape
        return self.moved(lambda part: part.reshape(shape), lambda part: part.reshape(before))

    def transpose(self, *axes: int) -> SecretTensor:
        """Return the axes in another order, by default backwards."""
        order = axes or tuple(reversed(range(len(self.shape))))
        back = np.argsort(order)
        return self.moved(lambda part: part.transpose(order), lambda part: part.transpose(back))

    def __getitem__(self, index: Any) -> SecretTensor:
        """Return the elements at a public index, as NumPy does; a single element has shape [1]."""
        shape, dtype = self.shape, self.ring.dtype

        def scattered(part: Elements) -> np.ndarray:
            out = np.zeros(shape, dtype)
            np.add.at(out, index, part.reshape(out[index].shape))
            return self.ring.wrap(out)

        return self.moved(lambda part: np.atleast_1d(part[index]), scattered)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> SecretTensor:
        """Return the sum over axes, by default all (shape [1]), without communication."""
        shape, axes = self.shape, _axes(axis, len(self.shape))
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        out = kept if keepdims else tuple(n for i, n in enumerate(shape) if i not in axes) or (1,)
        terms = SecretTensor(self.protocols, self.summand(), [Parent(self, lambda g: g)])
        return terms.moved(
            lambda part: self.ring.wrap(np.asarray(part.sum(axis=axes, dtype=part.dtype)).reshape(out)),
            lambda part: np.broadcast_to(part.reshape(kept), shape),
        )

    def mean(self, axis: Axis = None, keepdims: bool = False) -> SecretTensor:
        """Return the mean over axes, by default all (shape [1]), without communication."""
        count = math.prod(self.shape[i] for i in _axes(axis, len(self.shape)))
        return self.sum(axis, keepdims) * (1 / max(1, count))

    def _mapped(self, numbers: np.ndarray) -> SecretTensor:
        """Return the product with a public matrix."""
        if len(self.shape) != 2 or numbers.ndim != 2 or self.shape[1] != len(numbers):
            came = f"{self.shape} and {numbers.shape}"
            raise DataError("no matrix product", expected="[m, k] and [k, n]", came=came)
        ring, factor = self.ring, encoded(self.ring, numbers, self.ring.fraction)
        value = self.short()
        product = value.each(lambda part: matmul(part, factor, ring), value.fraction + ring.fraction)
        return SecretTensor(self.protocols, product, [Parent(self, lambda g: g @ numbers.T)])

    def _scaled(self, numbers: np.ndarray) -> SecretTensor:
        """Return the product with public numbers: small ones get more fraction bits, whole ones none."""
        parent = Parent(self, lambda g: narrowed(g * numbers, self.shape))
        if whole(numbers):
            value, places = self.value if np.abs(numbers).max(initial=0) <= 1 else self.summand(), 0
        else:
            largest = float(np.abs(numbers).max(initial=2.0**-_MOST_SPARE))
            value = self.short()
            places = self.ring.fraction + min(_MOST_SPARE, max(0, math.floor(-math.log2(largest))))
        factor = encoded(self.ring, numbers, places)
        scaled = value.each(lambda part: self.ring.wrap(part * factor), value.fraction + places)
        return SecretTensor(self.protocols, scaled, [parent])


def constant(protocols: Protocols, numbers: Public) -> SecretTensor:
    """Return public numbers as a secret tensor that everybody knows, without communication."""
    elements = encoded(protocols.ring, numbers_of(numbers), protocols.ring.fraction)
    parts = tuple(elements if first else np.zeros_like(elements) for first in protocols.firsts)
    return SecretTensor(protocols, Value(parts, protocols.ring.fraction))


def aligned(tensors: Sequence[SecretTensor]) -> tuple[list[Value], int]:
    """Return the shares with equal fraction bits, not above a product's."""
    ring, values = tensors[0].ring, [tensor.summand() for tensor in tensors]
    fraction = max(value.fraction for value in values)
    return [lifted(ring, value, fraction) for value in values], fraction


def narrowed(g: SecretTensor, shape: Shape) -> SecretTensor:
    """Return the gradient of a tensor of `shape` that was broadcast: the sum over what it was repeated along."""
    leading = tuple(range(len(g.shape) - len(shape)))
    out = g.sum(leading) if leading else g
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and out.shape[i] != 1)
    return out.sum(repeated, keepdims=True) if repeated else out.reshape(*shape)


def _latest_first(root: SecretTensor) -> list[SecretTensor]:
    """Return every tracked tensor behind `root`, each before those it was computed from."""
    order: list[SecretTensor] = []
    seen: set[int] = set()
    stack: list[tuple[SecretTensor, bool]] = [(root, False)]
    while stack:
        tensor, done = stack.pop()
        if done:
            order.append(tensor)
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            stack.append((tensor, True))
            stack.extend((parent.tensor, False) for parent in tensor.parents)
    return order[::-1]


def _axes(axis: Axis, dimensions: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(dimensions))
    return tuple(i % dimensions for i in (axis if isinstance(axis, tuple) else (axis,)))
