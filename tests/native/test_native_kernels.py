"""The kernels: every form equals NumPy and the float product, and the build refuses what it should."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.core.errors import ConfigError
from edgeward.native import binary_matmul, ordered_matmul, pack_signs, status, variants
from edgeward.native.build import compile_kernels, find_compiler, load_from
from edgeward.native.cache import distrust, open_cache
from patience import PATIENCE

sizes = st.tuples(st.integers(0, 11), st.integers(0, 37), st.integers(1, 300))


def signs(x):
    return np.where(x >= 0, 1.0, -1.0)


@settings(max_examples=150, deadline=None)
@given(sizes, st.integers(0, 2**32 - 1))
def test_every_variant_equals_the_float_product(size, seed):
    p, o, n = size
    draws = np.random.default_rng(seed)
    a, w = draws.standard_normal((p, n)).round(1), draws.standard_normal((o, n)).round(1)
    right = (signs(a) @ signs(w).T).astype(np.int32)
    for variant in variants():
        assert np.array_equal(binary_matmul(pack_signs(a), pack_signs(w), n, variant), right), variant


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 2**32 - 1))
def test_ordered_product_is_the_sequential_sum(size, seed):
    p, o, k = size
    draws = np.random.default_rng(seed)
    a, w = (draws.standard_normal(s).astype(np.float32) for s in ((p, k), (k, o)))
    right = np.zeros((p, o), np.float32)
    for t in range(k):
        right = (right + (a[:, t, None] * w[None, t]).astype(np.float32)).astype(np.float32)
    assert ordered_matmul(a, w, native=True).tobytes() == right.tobytes()
    assert ordered_matmul(a, w, native=False).tobytes() == right.tobytes()


def test_known_product_and_zero_counts_as_plus_one():
    a, w = pack_signs(np.array([[0.0, -0.0, -3.0]])), pack_signs(np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]))
    assert binary_matmul(a, w, 3).tolist() == [[1, -1]]


def test_tail_never_counts_and_layout_is_lowest_bit_first():
    packed = pack_signs(np.concatenate([np.ones(64), [-1.0, 1.0]])[None])
    assert packed.tolist() == [[2**64 - 1, 2]]


def test_misfits_are_refused():
    words = np.zeros((1, 2), np.uint64)
    for a, bits in ((words[:, :1], 64), (words, 129), (words, -1)):
        with pytest.raises(ConfigError, match="do not fit"):
            binary_matmul(a, words, bits)
    with pytest.raises(ConfigError, match="unknown popcount variant"):
        binary_matmul(words, words, 128, "sse9")
    with pytest.raises(ConfigError, match="do not fit"):
        ordered_matmul(np.zeros((1, 2), np.float32), np.zeros((3, 1), np.float32))


def compiler():
    found = find_compiler()
    if found is None:
        pytest.skip("no C compiler on this machine")
    return found[0]


def test_kernels_compile_without_a_warning(tmp_path):
    assert compile_kernels(compiler(), tmp_path / "k.so", extra=("-Wall", "-Wextra", "-Werror")) == ""
    assert [p.name for p in tmp_path.iterdir()] == ["k.so"]


def test_sanitised_kernels_touch_nothing_outside(tmp_path):
    """Compile with address and undefined-behaviour checks and run odd sizes in a process of its own."""
    flags = ("-fsanitize=undefined", "-fno-sanitize-recover=undefined", "-g")
    if compile_kernels(compiler(), tmp_path / "k.so", extra=flags):
        pytest.skip("the compiler has no sanitiser")
    code = (
        "import ctypes, itertools, numpy as np\n"
        "from edgeward.native.build import declare\n"
        f"lib = declare(ctypes.CDLL({str(tmp_path / 'k.so')!r}))\n"
        "guard = np.uint64(0xDEADBEEF)\n"
        "for v in range(5):\n"
        "  for p, o, k in [(1,1,1), (3,7,2), (5,17,3), (4,16,1), (7,33,5)]:\n"
        "    if not lib.edgeward_popcount_supports(v): continue\n"
        "    a, w = np.zeros((p, k), np.uint64), np.zeros((o, k), np.uint64)\n"
        "    size = -(-o // 8) * 8 * k\n"
        "    tiles, out = np.full(size + 1, guard), np.full(p * o + 1, 77, np.int32)\n"
        "    lib.edgeward_binary_matmul(v, *[x.ctypes.data for x in (a, w, tiles, out)], p, o, k, 64 * k)\n"
        "    assert tiles[-1] == guard and out[-1] == 77 and (out[:-1] == 64 * k).all()\n"
        "  if not lib.edgeward_ring_supports(v): continue\n"
        "  for t, (m, k, n) in itertools.product((np.int32, np.int64), [(1,3,9), (7,65,3), (35,130,41), (9,2,1100)]):\n"
        "    a, b, out = np.full((m, k), -3, t), np.full((k, n), 2**31 - 1, t), np.full(m * n + 1, 77, t)\n"
        "    bits = 8 * out.itemsize\n"
        "    assert lib.edgeward_ring_matmul(v, bits, *[x.ctypes.data for x in (a, b, out)], 1, m, k, n) == 0\n"
        "    assert out[-1] == 77 and (out[:-1].reshape(m, n) == a @ b + np.asarray(77, t)).all()\n"
        "    x, w, out = np.ones((2, 6, 5, 7), t), np.ones((12, 3, 3, 2), t), np.full(2 * 12 * 12 + 1, 77, t)\n"
        "    shape = np.array([2, 2, 3, 5, 7, 6, 3, 2, 2, 3, 2, 1, 1, 1, 4, 3])\n"
        "    assert lib.edgeward_ring_conv2d(v, bits, *[x.ctypes.data for x in (x, w, out, shape)]) == 0\n"
        "    assert out[-1] == 77 and 0 < out.max() <= 77 and out.min() >= 3\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 0, run.stderr


def test_cache_that_others_can_write_is_refused(tmp_path):
    root = tmp_path / "c" / "edgeward" / "native"
    assert open_cache(root) == ""
    assert root.stat().st_mode & 0o777 == 0o700
    root.chmod(0o777)
    assert "written by other users" in open_cache(root)
    assert load_from(root).library is None
    root.chmod(0o700)
    root.parent.chmod(0o770)
    assert "written by other users" in open_cache(root)


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can give files away")
def test_cache_of_another_user_is_refused(tmp_path):
    root = tmp_path / "c" / "edgeward" / "native"
    assert open_cache(root) == ""
    os.chown(root, 12345, 12345)
    assert "belongs to user 12345" in open_cache(root)
    assert "belongs to user 12345" in distrust(root)


def test_damaged_library_falls_back(tmp_path):
    compiler()
    root = tmp_path / "c" / "edgeward" / "native"
    loaded = load_from(root)
    assert loaded.library is not None
    (file,) = root.iterdir()
    other = tmp_path / "d" / "edgeward" / "native"
    assert open_cache(other) == ""
    (other / file.name).write_bytes(b"not a library")
    assert "cannot be loaded" in load_from(other).reason


def test_missing_compiler_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C compiler" in load_from(tmp_path / "c" / "edgeward" / "native").reason


def test_environment_switches_native_off():
    code = "from edgeward.native import status, variants; assert variants() == ('portable',), variants(); s = status()"
    code += "; assert not s.compiled and s.variant == 'portable' and s.reason == 'EDGEWARD_NATIVE=off'"
    environment = {**os.environ, "EDGEWARD_NATIVE": "off"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=PATIENCE)


def _load(root: str) -> bool:
    return load_from(Path(root)).library is not None


def test_concurrent_builds_leave_one_library(tmp_path):
    compiler()
    root = tmp_path / "c" / "edgeward" / "native"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert all(pool.map(_load, [str(root)] * 3))
    assert [p.suffix for p in root.iterdir()] == [".so"]


def test_status_names_the_fastest_variant():
    assert status().variant == variants()[0]
    assert status().compiled == (len(variants()) > 1)
    assert "/" not in status().reason
