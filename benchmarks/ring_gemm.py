"""Ring products against PyTorch's and NumPy's integer products, and against what this core can multiply at most."""

import ctypes
import math
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from edgeward.native import ring
from edgeward.native.build import find_compiler

NAME = "ring-gemm"
DESCRIPTION = "512^3 products and the convolutions of two ResNets modulo 2^32 and 2^64: ours against PyTorch and NumPy"

_SIDE = 512
_IMAGE, _CHANNELS = 56, 64
_ROUNDS = 2_000_000
# Convolutions of ResNet-20 (32-pixel images) and ResNet-18 (224): inputs, outputs, side, kernel, stride.
_LAYERS = {
    "resnet20": (
        (3, 16, 32, 3, 1),
        (16, 16, 32, 3, 1),
        (16, 32, 32, 3, 2),
        (32, 32, 16, 3, 1),
        (32, 64, 16, 3, 2),
        (64, 64, 8, 3, 1),
    ),
    "resnet18": (
        (3, 64, 224, 7, 2),
        (64, 64, 56, 3, 1),
        (64, 128, 56, 3, 2),
        (64, 128, 56, 1, 2),
        (128, 128, 28, 3, 1),
        (128, 256, 28, 3, 2),
        (256, 256, 14, 3, 1),
        (256, 512, 14, 3, 2),
        (512, 512, 7, 3, 1),
    ),
}
_WORDS = {32: np.int32, 64: np.int64}
# Gop/s per core that a product must reach, two operations per multiply-add.
_TARGETS = {"amx": {64: 40.0, 32: 90.0}, "ifma": {64: 20.0, 32: 40.0}, "avx512": {64: 20.0, 32: 40.0}}
_WITHIN = 0.75


def _seconds(work, repeats=5):
    best, value = math.inf, None
    for _ in range(repeats):
        start = time.perf_counter()
        value = work()
        best = min(best, time.perf_counter() - start)
    return best, value


def limits() -> dict[tuple[str, int], float]:
    """Return the Gop/s of each variant's instructions on registers alone; what cannot be measured here is left out.

    AMX is left out: its limit is 2 x 16384 / (36 or 10) operations per tile instruction, every 16 cycles.
    """
    compiler = find_compiler()
    if compiler is None:
        return {}
    source, found = Path(__file__).with_name("ring_limit.c"), {}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "limit.so"
        command = [compiler[0], "-std=gnu11", "-O3", "-fPIC", "-shared", str(source), "-o", str(made)]
        if subprocess.run(command, capture_output=True, timeout=120, check=False).returncode:
            return {}
        library = ctypes.CDLL(str(made))
        for variant in {"avx2", "avx512", "ifma"} & set(ring.variants()):
            for bits in _WORDS:
                function = getattr(library, f"limit_{variant}_{bits}")
                function.argtypes, function.restype = [ctypes.c_int64, ctypes.c_void_p], ctypes.c_int64
                sink = np.zeros(1, np.uint64)
                seconds, done = _seconds(lambda f=function, s=sink: f(_ROUNDS, s.ctypes.data), 3)
                found[variant, bits] = 2 * done / seconds / 1e9
    return found


def run() -> dict:
    """Time every variant, PyTorch and NumPy on one thread; equal words required. Seconds, best of several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure()
    finally:
        torch.set_num_threads(threads)


def _measure() -> dict:
    ceiling = limits()
    rows = {bits: _width(bits, ceiling) for bits in _WORDS}
    main = rows[64]
    best = ring.variants()[0]
    return {
        "name": NAME,
        "description": DESCRIPTION,
        "ours": main["seconds"],
        "peer": main["torch_seconds"],
        "unit": "s",
        "ratio": main["torch_seconds"] / main["seconds"],
        "ratio_to_numpy": main["numpy_seconds"] / main["seconds"],
        "peer_name": f"PyTorch {torch.__version__} int64 `@`, one thread, {_SIDE}^3",
        "variant": best,
        "words": {str(bits): row for bits, row in rows.items()},
        "layers": {name: [_layer(layer) for layer in layers] for name, layers in _LAYERS.items()},
        "values_equal": all(row["values_equal"] for row in rows.values()),
        "targets_met": {str(bits): row["targets_met"] for bits, row in rows.items()},
        "not_measured": [name for name in _TARGETS if name not in ring.variants()],
    }


def _width(bits: int, ceiling: dict[tuple[str, int], float]) -> dict:
    rng, info = np.random.default_rng(bits), np.iinfo(_WORDS[bits])
    draw = lambda shape: rng.integers(info.min, info.max, shape, _WORDS[bits], endpoint=True)  # noqa: E731
    a, b = draw((_SIDE, _SIDE)), draw((_SIDE, _SIDE))
    x, w = draw((1, _CHANNELS, _IMAGE, _IMAGE)), draw((_CHANNELS, _CHANNELS, 3, 3))
    patches = draw((_CHANNELS * 9, _IMAGE**2))
    product, patch, variants = 2 * _SIDE**3, 2 * _CHANNELS**2 * 9 * _IMAGE**2, {}
    right, equal, first = np.matmul(a, b), True, None
    for name in ring.variants():
        seconds, value = _seconds(lambda v=name: ring.matmul(a, b, bits, v))
        conv, image = _seconds(lambda v=name: ring.conv2d(x, w, 1, 1, bits=bits, variant=v))
        same, _ = _seconds(lambda v=name: ring.matmul(w.reshape(_CHANNELS, -1), patches, bits, v))
        first = image if not variants else first
        equal = equal and np.array_equal(value, right) and np.array_equal(image, first)
        limit = ceiling.get((name, bits))
        variants[name] = {
            "seconds": seconds,
            "gops_per_core": product / seconds / 1e9,
            "limit_gops": limit,
            "share_of_limit": product / seconds / 1e9 / limit if limit else None,
            "conv_gops": patch / conv / 1e9,
            "conv_to_its_gemm": same / conv,
        }
    best = variants[ring.variants()[0]]
    tensors = torch.from_numpy(a), torch.from_numpy(b)
    torch_seconds, also = _seconds(lambda: tensors[0] @ tensors[1])
    numpy_seconds, _ = _seconds(lambda: np.matmul(a, b), 2)
    return {
        "seconds": best["seconds"],
        "torch_seconds": torch_seconds,
        "numpy_seconds": numpy_seconds,
        "ratio_to_torch": torch_seconds / best["seconds"],
        "ratio_to_numpy": numpy_seconds / best["seconds"],
        "variants": variants,
        "values_equal": bool(equal and np.array_equal(also.numpy(), right)),
        "targets_met": {
            name: row["gops_per_core"] >= _TARGETS[name][bits] and row["conv_to_its_gemm"] >= _WITHIN
            for name, row in variants.items()
            if name in _TARGETS
        },
    }


def _layer(layer: tuple[int, int, int, int, int]) -> dict:
    """Return the rates of one convolution of a network and of the product with its patches stored beforehand."""
    inputs, outputs, side, kernel, stride = layer
    padding, rng = kernel // 2, np.random.default_rng(side)
    out = (side + 2 * padding - kernel) // stride + 1
    done = 2 * outputs * inputs * kernel**2 * out**2
    row = {"inputs": inputs, "outputs": outputs, "side": side, "kernel": kernel, "stride": stride}
    for bits, word in _WORDS.items():
        info = np.iinfo(word)
        draw = lambda shape: rng.integers(info.min, info.max, shape, word, endpoint=True)  # noqa: B023, E731
        x, w = draw((1, inputs, side, side)), draw((outputs, inputs, kernel, kernel))
        patches = draw((inputs * kernel**2, out**2))
        repeats = 20 if done < 1e8 else 5
        conv, _ = _seconds(lambda: ring.conv2d(x, w, stride, padding, bits=bits), repeats)  # noqa: B023
        product, _ = _seconds(lambda: ring.matmul(w.reshape(outputs, -1), patches, bits), repeats)  # noqa: B023
        row[str(bits)] = {
            "conv_gops": done / conv / 1e9,
            "gemm_gops": done / product / 1e9,
            "conv_to_its_gemm": product / conv,
            "within_target": product / conv >= _WITHIN,
        }
    return row
