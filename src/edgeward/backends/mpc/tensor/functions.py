"""Functions of secret tensors: rectifiers, curves, convolutions, the largest, joined tensors; all with gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeward.backends.mpc.protocols.linear_map import Convolution
from edgeward.backends.mpc.ring import Elements
from edgeward.backends.mpc.tensor.protocols import Value
from edgeward.backends.mpc.tensor.public import Public, lifted
from edgeward.backends.mpc.tensor.secret import Parent, SecretTensor, aligned
from edgeward.core.errors import DataError

# What a logarithm of a probability is taken of at least.
_LEAST_PROBABILITY = 2.0**-10


def relu(x: SecretTensor) -> SecretTensor:
    """Return max(x, 0): one fused protocol, or a comparison and a product where a gradient will be needed."""
    if not x.tracked:
        shift = max(0, x.value.fraction - x.ring.fraction)
        fused = shift <= x.ring.bits - x.protocols.width
        value = x.protocols.relu(x.value, shift) if fused else x.protocols.relu(x.short(), 0)
        return SecretTensor(x.protocols, value)
    bit = x.detach() >= 0
    value = x.protocols.multiply(x.short(), bit.value)
    return SecretTensor(x.protocols, value, [Parent(x, lambda g: g * bit)])


def maximum(x: SecretTensor, y: SecretTensor) -> SecretTensor:
    """Return the larger of both, element by element: y + relu(x - y)."""
    return y + relu(x - y)


def largest(x: SecretTensor, axis: int = -1) -> SecretTensor:
    """Return the largest along an axis, in a tournament of ceil(log2 n) comparisons."""
    axis = axis % len(x.shape)
    order = (*(i for i in range(len(x.shape)) if i != axis), axis)
    rows = x.transpose(*order)
    while (count := rows.shape[-1]) > 1:
        pairs = count // 2
        best = maximum(rows[..., :pairs], rows[..., pairs : 2 * pairs])
        rows = concatenate([best, rows[..., 2 * pairs :]], axis=-1) if count % 2 else best
    return rows.reshape(*(rows.shape[:-1] or (1,)))


def sigmoid(x: SecretTensor) -> SecretTensor:
    """Return 1 / (1 + exp(-x)). Error below 2^-12 (measured)."""
    y = _curve("sigmoid", x)
    return SecretTensor(x.protocols, y.value, [Parent(x, lambda g: g * (y - y * y))])


def tanh(x: SecretTensor) -> SecretTensor:
    """Return tanh x. Error below 2^-12 (measured)."""
    y = _curve("tanh", x)
    return SecretTensor(x.protocols, y.value, [Parent(x, lambda g: g * (1 - y * y))])


def exp(x: SecretTensor) -> SecretTensor:
    """Return exp x for -20.5 <= x < 11; values outside give wrong results without notice."""
    y = _curve("exp", x)
    return SecretTensor(x.protocols, y.value, [Parent(x, lambda g: g * y)])


def reciprocal(x: SecretTensor) -> SecretTensor:
    """Return 1 / x for 2^-8 <= x < 2^13; values outside give wrong results without notice."""
    y = _curve("reciprocal", x)
    return SecretTensor(x.protocols, y.value, [Parent(x, lambda g: -(g * (y * y)))])


def log(x: SecretTensor) -> SecretTensor:
    """Return the natural logarithm for 2^-12 <= x < 2^13; see `reciprocal` for the rest."""
    a = x.detach()
    return SecretTensor(x.protocols, _curve("log", x).value, [Parent(x, lambda g: g * reciprocal(a))])


def softmax(x: SecretTensor) -> SecretTensor:
    """Return softmax over the last of two axes, of values in [-64, 62); outside, results are wrong without notice."""
    y = _curve("softmax", x)
    return SecretTensor(x.protocols, y.value, [Parent(x, lambda g: (g - (g * y).sum(1, keepdims=True)) * y)])


def cross_entropy(logits: SecretTensor, targets: SecretTensor | Public) -> SecretTensor:
    """Return the mean over rows of -sum(targets log softmax(logits)); probabilities count as 2^-10 at least.

    Targets are distributions, one per row. The gradient is (softmax - targets) / rows; who needs only that saves rounds
    with `logits.backward((softmax(logits).detach() - targets) / rows)`.
    """
    p, rows = softmax(logits.detach()), len(logits)
    loss = -(log(relu(p - _LEAST_PROBABILITY) + _LEAST_PROBABILITY) * targets).sum() / rows
    fixed = targets.detach() if isinstance(targets, SecretTensor) else targets
    return SecretTensor(logits.protocols, loss.value, [Parent(logits, lambda g: (p - fixed) * (g / rows))])


def concatenate(tensors: Sequence[SecretTensor], axis: int = 0) -> SecretTensor:
    """Return the tensors joined along an axis, without communication."""
    axis, first = axis % len(tensors[0].shape), tensors[0]
    values, fraction = aligned(tensors)
    parts = tuple(np.concatenate(same, axis) for same in zip(*(value.parts for value in values), strict=True))
    parents, start = [], 0
    for tensor in tensors:
        stop = start + tensor.shape[axis]
        place = (*[slice(None)] * axis, slice(start, stop))
        parents.append(Parent(tensor, lambda g, place=place: g[place]))  # type: ignore[misc]
        start = stop
    return SecretTensor(first.protocols, Value(parts, fraction), parents)


def conv2d(
    x: SecretTensor,
    w: SecretTensor,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> SecretTensor:
    """Return the convolution of x [n, C, H, W] with w [O, C / groups, kh, kw]; gradients for one group only."""
    if len(x.shape) != 4 or len(w.shape) != 4 or x.shape[1] != w.shape[1] * groups:
        raise DataError(
            "no convolution", expected="[n, C, H, W], [O, C / groups, kh, kw]", came=f"{x.shape}, {w.shape}"
        )
    if groups != 1 and (x.tracked or w.tracked):
        raise DataError("no gradient of a grouped convolution", expected="groups=1", came=str(groups))
    map_ = Convolution(stride, padding, dilation, groups)
    value = x.protocols.bilinear(map_, x.short(), w.short())
    a, b = x.detach(), w.detach()
    parents = [
        Parent(x, lambda g: _image_gradient(g, b, a.shape, map_)),
        Parent(w, lambda g: _kernel_gradient(g, a, b.shape, map_)),
    ]
    return SecretTensor(x.protocols, value, parents)


def _image_gradient(g: SecretTensor, w: SecretTensor, image: tuple[int, ...], map_: Convolution) -> SecretTensor:
    """Return the gradient's convolution with the kernel turned round, zeros between its elements for the stride."""
    sides = [_spread(image[2 + i], w.shape[2 + i], g.shape[2 + i], map_, i) for i in (0, 1)]

    def spread(part: Elements) -> np.ndarray:
        out = np.zeros((*part.shape[:2], *(size for size, _, _ in sides)), part.dtype)
        (_, top, step), (_, left, jump) = sides
        # Rows that fall outside only ever met padding.
        rows = [(i, top + i * step) for i in range(part.shape[2]) if 0 <= top + i * step < out.shape[2]]
        columns = [(j, left + j * jump) for j in range(part.shape[3]) if 0 <= left + j * jump < out.shape[3]]
        (i, to), (j, across) = zip(*rows, strict=True), zip(*columns, strict=True)
        out[:, :, np.array(to)[:, None], np.array(across)] = part[:, :, np.array(i)[:, None], np.array(j)]
        return out

    turned = w.moved(lambda part: part.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1], lambda part: part)
    return conv2d(g.moved(spread, lambda part: part), turned, dilation=map_.dilation)


def _spread(image: int, kernel: int, out: int, map_: Convolution, side: int) -> tuple[int, int, int]:
    """Return the extent that convolves to the image's, where the first element goes, and the step to the next."""
    reach = map_.dilation[side] * (kernel - 1)
    return image + reach, reach - map_.padding[side], map_.stride[side]


def _kernel_gradient(g: SecretTensor, x: SecretTensor, kernel: tuple[int, ...], map_: Convolution) -> SecretTensor:
    """Return the convolution of the images with the gradient as kernel, with records as channels."""
    images, gradients = x.transpose(1, 0, 2, 3), g.transpose(1, 0, 2, 3)
    whole = conv2d(images, gradients, stride=map_.dilation, padding=map_.padding, dilation=map_.stride)
    return whole[:, :, : kernel[2], : kernel[3]].transpose(1, 0, 2, 3)


def _curve(name: str, x: SecretTensor) -> SecretTensor:
    """Return the curve's value; one with so many fraction bits that few can be added is truncated."""
    result = SecretTensor(x.protocols, x.protocols.curve(name, lifted(x.ring, x.short(), x.ring.fraction)))
    return SecretTensor(x.protocols, result.short()) if result.value.fraction > 2 * x.ring.fraction else result
