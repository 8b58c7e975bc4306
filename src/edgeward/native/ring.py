"""Matrix products and convolutions modulo 2^32 and 2^64: several kernels, one result."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from edgeward.core.errors import ConfigError, unknown_name
from edgeward.native.build import kernels

Words = TypeVar("Words", np.ndarray, torch.Tensor)
_COMPILED = {"amx": 4, "ifma": 3, "avx512": 2, "avx2": 1, "c": 0}
_SIGNED: dict[int, type[np.signedinteger]] = {32: np.int32, 64: np.int64}
_TORCH = {32: torch.int32, 64: torch.int64}


@functools.lru_cache(maxsize=1)
def variants() -> tuple[str, ...]:
    """Return the forms that run on this machine, in the order of preference; "portable" (PyTorch) is the last.

    "amx": int8 digits on tiles; "ifma": AVX-512 with 52-bit and 16-bit multiply-adds; "avx512", "avx2", "c": whole
    words. A compiled form is offered only after it has reproduced known products, so a miscompiled one is never used.
    """
    library = kernels().library
    if library is None:
        return ("portable",)
    able = [name for name, code in _COMPILED.items() if library.edgeward_ring_supports(code)]
    if {"ifma", "avx512"} <= set(able) and library.edgeward_ring_prefers_whole_words():
        able.remove("ifma")
        able.insert(able.index("avx512") + 1, "ifma")
    return (*(name for name in able if all(_reproduces(name, bits) for bits in (32, 64))), "portable")


def matmul(a: Words, b: Words, bits: int, variant: str | None = None, onto: Words | None = None) -> Words:
    """Return the matrix product a b modulo 2^bits.

    Shapes: `a` [..., m, k], `b` [..., k, n], leading dimensions broadcast; words of `bits` (32 or 64) bits, signed or
    not, NumPy or PyTorch on the CPU; the result has the kind of `a`. `variant` names a form, the first by default.
    `onto`, of the result's shape and contiguous and apart from `a` and `b`: the product is added to it, in place, and
    it is returned.
    Guarantee: every form gives the same bits; neither branches nor addresses depend on the values (reviewed, not
    measured; "portable" is PyTorch's product, for which this is assumed). Cost: m k n multiply-adds, one thread.
    Errors: `ConfigError` for words or shapes that do not fit, `MemoryError`.

    >>> matmul(np.array([[2**63 - 1, 3]]), np.array([[2], [1]]), bits=64)
    array([[1]])
    """
    x, y = _words(a, bits), _words(b, bits)
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-2]:
        raise ConfigError("matrices do not fit", expected="[..., m, k] and [..., k, n]", came=f"{x.shape}, {y.shape}")
    lead: tuple[int, ...]
    try:
        lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise ConfigError(
            "leading dimensions do not fit", expected="dimensions that broadcast", came=f"{x.shape}, {y.shape}"
        ) from None
    (m, k), n = x.shape[-2:], y.shape[-1]
    if all(size == 1 for size in y.shape[:-2]):
        x, y = np.broadcast_to(x, (*lead, m, k)).reshape(1, math.prod(lead) * m, k), y.reshape(1, k, n)
    else:
        x = np.broadcast_to(x, (*lead, m, k)).reshape(math.prod(lead), m, k)
        y = np.broadcast_to(y, (*lead, k, n)).reshape(math.prod(lead), k, n)
    target = None if onto is None else _target(onto, (*lead, m, n), bits).reshape(len(x), -1, n)
    return _like(_product(_chosen(variant), x, y, bits, target).reshape(*lead, m, n), a)


def conv2d(
    x: Words,
    weight: Words,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bits: int = 64,
    variant: str | None = None,
) -> Words:
    """Return the convolution (cross-correlation, as in PyTorch) of `x` with `weight` modulo 2^bits, zeros outside.

    Shapes: `x` [n, C, H, W], `weight` [O, C / groups, kh, kw], result [n, O, oh, ow]; words, `variant` and guarantees
    as in `matmul`. The patches are never stored as a matrix. Cost: n O oh ow (C / groups) kh kw multiply-adds.
    """
    image, kernel = _words(x, bits), _words(weight, bits)
    steps: tuple[int, int] = _pair("stride", stride, 1)
    pads: tuple[int, int] = _pair("padding", padding, 0)
    gaps: tuple[int, int] = _pair("dilation", dilation, 1)
    if image.ndim != 4 or kernel.ndim != 4 or groups < 1 or kernel.shape[0] % groups or 0 in kernel.shape[2:]:
        raise ConfigError(
            "a convolution takes images and weights",
            expected="[n, C, H, W] and [O, C / groups, kh, kw]",
            came=f"{image.shape}, {kernel.shape}, {groups} groups",
        )
    (n, channels, height, width), (outputs, depth, kh, kw) = image.shape, kernel.shape
    oh = (height + 2 * pads[0] - gaps[0] * (kh - 1) - 1) // steps[0] + 1
    ow = (width + 2 * pads[1] - gaps[1] * (kw - 1) - 1) // steps[1] + 1
    if channels != depth * groups or min(oh, ow) < 1:
        raise ConfigError(
            "images and weights do not fit",
            expected=f"{depth * groups} channels, at least the size of the kernel with its dilation",
            came=f"{channels} channels of {height} x {width}",
        )
    shape = (n, groups, depth, height, width, outputs // groups, kh, kw, *steps, *pads, *gaps, oh, ow)
    return _like(_convolution(_chosen(variant), image, kernel, bits, shape), x)


def _reproduces(variant: str, bits: int) -> bool:
    """Return whether a compiled form gives the portable one's bits on a product that reaches every path of its tile."""
    draws = np.random.default_rng(bits)
    low, high = np.iinfo(_SIGNED[bits]).min, np.iinfo(_SIGNED[bits]).max
    for m, k, n in ((37, 131, 70), (2, 131, 70)):
        a, b = (draws.integers(low, high, s, _SIGNED[bits], endpoint=True) for s in ((1, m, k), (1, k, n)))
        if not np.array_equal(_product(variant, a, b, bits), _product("portable", a, b, bits)):
            return False
    return True


def _chosen(variant: str | None) -> str:
    known = variants()
    if variant is not None and variant not in known:
        raise unknown_name("ring variant", variant, known)
    return variant or known[0]


def _words(given: np.ndarray | torch.Tensor, bits: int) -> np.ndarray:
    """Return contiguous signed words that share memory with `given` where they can."""
    if bits not in _SIGNED:
        raise ConfigError("no such ring", expected="bits=32 or bits=64", came=f"bits={bits}")
    if isinstance(given, torch.Tensor):
        if given.device.type != "cpu" or given.dtype != _TORCH[bits]:
            raise ConfigError(
                "not words of this ring", expected=f"{_TORCH[bits]} on cpu", came=f"{given.dtype} on {given.device}"
            )
        return np.ascontiguousarray(given.detach().numpy())
    if given.dtype.kind not in "iu" or given.dtype.itemsize * 8 != bits or not given.dtype.isnative:
        raise ConfigError("not words of this ring", expected=f"int{bits} or uint{bits}", came=str(given.dtype))
    return np.ascontiguousarray(given).view(_SIGNED[bits])


def _target(onto: np.ndarray | torch.Tensor, shape: tuple[int, ...], bits: int) -> np.ndarray:
    """Return the words of `onto`, into which a product of `shape` may be added."""
    words = _words(onto, bits)
    shared = np.shares_memory(words, onto.numpy() if isinstance(onto, torch.Tensor) else onto)
    if words.shape != shape or not (shared and words.flags.writeable):
        raise ConfigError("a product cannot be added to this", expected=f"{shape}, contiguous", came=str(words.shape))
    return words


def _like(out: np.ndarray, given: Words) -> Words:
    return torch.from_numpy(out) if isinstance(given, torch.Tensor) else out.view(given.dtype)


def _pair(name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < least or max(pair) >= 2**31:
        raise ConfigError(f"{name} out of range", expected=f"one or two integers from {least}", came=str(value))
    return pair[0], pair[1]


def _product(variant: str, a: np.ndarray, b: np.ndarray, bits: int, onto: np.ndarray | None = None) -> np.ndarray:
    """Return a b for `a` [batch, m, k] and `b` [batch, k, n], added to `onto` [batch, m, n] where that is given."""
    (batch, m, k), n = a.shape, b.shape[-1]
    if variant == "portable" or 0 in (batch, m, k, n):
        product = np.ascontiguousarray((torch.from_numpy(a.copy()) @ torch.from_numpy(b.copy())).numpy())
        return product if onto is None else np.add(product, onto, out=onto)
    library = kernels().library
    assert library is not None  # noqa: S101 - `variants` offers compiled forms only with a library
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    out = np.zeros((batch, m, n), a.dtype) if onto is None else onto
    pointers = [array.ctypes.data for array in (a, b, out)]
    _check(library.edgeward_ring_matmul(_COMPILED[variant], bits, *pointers, batch, m, k, n), variant)
    return out


def _convolution(variant: str, x: np.ndarray, weight: np.ndarray, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    n, groups, *_ = shape
    if variant == "portable" or 0 in shape[:6]:
        return _portable_convolution(x, weight, shape)
    library = kernels().library
    assert library is not None  # noqa: S101
    out, sizes = np.empty((n, groups * shape[5], *shape[-2:]), x.dtype), np.array(shape, np.int64)
    pointers = [array.ctypes.data for array in (x, weight, out, sizes)]
    _check(library.edgeward_ring_conv2d(_COMPILED[variant], bits, *pointers), variant)
    return out


def _portable_convolution(x: np.ndarray, weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the convolution as a product with stored patches, one image at a time."""
    n, groups, depth, _, _, outputs, kh, kw, sh, sw, ph, pw, dh, dw, oh, ow = shape
    out = np.zeros((n, groups * outputs, oh, ow), x.dtype)
    kernel = torch.from_numpy(weight.reshape(groups, outputs, depth * kh * kw).copy())
    for image, result in zip(np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw))), out, strict=True):
        view = np.lib.stride_tricks.sliding_window_view(image, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), (1, 2))
        patches = view[:, : sh * oh : sh, : sw * ow : sw, ::dh, ::dw].transpose(0, 3, 4, 1, 2)
        columns = torch.from_numpy(patches.reshape(groups, depth * kh * kw, oh * ow).copy())
        result[:] = (kernel @ columns).numpy().reshape(result.shape)
    return out


def _check(code: int, variant: str) -> None:
    if code == 2:
        raise MemoryError("no memory for the packed blocks of a ring product")
    if code:
        raise ConfigError(f"this processor cannot run the ring variant '{variant}'")
