"""Ring products: every form equals Python's integers modulo 2^bits, on edge values, odd shapes and any layout."""

import ctypes
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.core.errors import ConfigError
from edgeward.native import ring
from edgeward.native.build import compile_kernels, declare, find_compiler

SIGNED = {32: np.int32, 64: np.int64}
ALL = ("amx", "ifma", "avx512", "avx2", "c", "portable")
EDGES = {
    bits: [
        0,
        1,
        -1,
        2 ** (bits - 1) - 1,
        -(2 ** (bits - 1)),
        0x7F,
        0x80,
        0x7FFF,
        0x8000,
        -0x8000,
        2**24,
        2 ** (bits - 12),
    ]
    for bits in (32, 64)
}
bit_counts = st.sampled_from([32, 64])
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(params=ALL)
def variant(request):
    if request.param not in ring.variants():
        pytest.skip(f"this processor or build does not offer '{request.param}'")
    return request.param


def wrapped(number, bits):
    """The signed word of an integer modulo 2^bits."""
    number %= 2**bits
    return number - 2**bits if number >= 2 ** (bits - 1) else number


def draw(rng, shape, bits):
    """Uniform words, a third of them edge values."""
    info = np.iinfo(SIGNED[bits])
    words = rng.integers(info.min, info.max, shape, SIGNED[bits], endpoint=True)
    edges = np.array([wrapped(e, bits) for e in EDGES[bits]], SIGNED[bits])
    return np.where(rng.random(shape) < 1 / 3, rng.choice(edges, shape), words).astype(SIGNED[bits])


def python_product(a, b, bits):
    columns = list(zip(*b.tolist(), strict=True))
    rows = a.tolist()
    out = [[wrapped(sum(x * y for x, y in zip(row, c, strict=True)), bits) for c in columns] for row in rows]
    return np.array(out, SIGNED[bits]).reshape(len(rows), len(columns))


def python_conv(x, w, stride, padding, dilation, groups, bits):
    (n, _, height, width), (outputs, depth, kh, kw) = x.shape, w.shape
    oh = (height + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    out = np.zeros((n, outputs, oh, ow), SIGNED[bits])
    for i, o, y, z in itertools.product(range(n), range(outputs), range(oh), range(ow)):
        total = 0
        for c, p, q in itertools.product(range(depth), range(kh), range(kw)):
            row, column = y * stride[0] + p * dilation[0] - padding[0], z * stride[1] + q * dilation[1] - padding[1]
            if 0 <= row < height and 0 <= column < width:
                channel = o // (outputs // groups) * depth + c
                total += int(x[i, channel, row, column]) * int(w[o, c, p, q])
        out[i, o, y, z] = wrapped(total, bits)
    return out


@settings(max_examples=60, deadline=None)
@given(bit_counts, st.integers(1, 14), st.integers(1, 12), st.integers(1, 40), seeds)
def test_every_form_equals_python_integers(bits, m, k, n, seed):
    rng = np.random.default_rng(seed)
    a, b = draw(rng, (m, k), bits), draw(rng, (k, n), bits)
    right = python_product(a, b, bits)
    for name in ring.variants():
        assert np.array_equal(ring.matmul(a, b, bits, name), right), name


@pytest.mark.parametrize("bits", [32, 64])
def test_every_pair_of_edge_values(variant, bits):
    edges = np.array([wrapped(e, bits) for e in EDGES[bits]], SIGNED[bits])
    right = python_product(edges[:, None], edges[None], bits)
    assert np.array_equal(ring.matmul(edges[:, None], edges[None], bits, variant), right)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("value", ["least", "greatest", "minus one", "every digit least"])
def test_longest_sums_of_extreme_values(variant, bits, value):
    """Sums that wrap thousands of times, past every block of k."""
    info, k = np.iinfo(SIGNED[bits]), 2500
    number = {
        "least": info.min,
        "greatest": info.max,
        "minus one": -1,
        "every digit least": wrapped(int("80" * (bits // 8), 16), bits),
    }[value]
    a, b = np.full((9, k), number, SIGNED[bits]), np.full((k, 35), number, SIGNED[bits])
    assert (ring.matmul(a, b, bits, variant) == wrapped(k * int(number) ** 2, bits)).all()


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    "shape", [(70, 300, 1100), (129, 65, 33), (1, 700, 600), (2, 5, 513), (300, 1025, 1), (64, 1, 64)]
)
def test_blocks_and_remainders(variant, bits, shape):
    """Shapes past every block size and one beyond every tile, against numbers that Python computes for some cells."""
    m, k, n = shape
    rng = np.random.default_rng(m)
    a, b = draw(rng, (m, k), bits), draw(rng, (k, n), bits)
    out = ring.matmul(a, b, bits, variant)
    assert np.array_equal(out, a @ b)  # NumPy's integers wrap too
    for i, j in ((0, 0), (m - 1, n - 1), (m // 2, n // 3)):
        assert out[i, j] == python_product(a[i : i + 1], b[:, j : j + 1], bits)[0, 0]


convolutions = st.fixed_dictionaries(
    {
        "bits": bit_counts,
        "n": st.integers(1, 2),
        "groups": st.integers(1, 3),
        "depth": st.integers(1, 3),
        "outputs": st.integers(1, 4),
        "size": st.tuples(st.integers(1, 7), st.integers(1, 9)),
        "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "padding": st.tuples(st.integers(0, 4), st.integers(0, 4)),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "seed": seeds,
    }
)


@settings(max_examples=60, deadline=None)
@given(convolutions)
def test_every_convolution_equals_python_integers(case):
    bits, groups = case["bits"], case["groups"]
    reach = [d * (k - 1) + 1 for d, k in zip(case["dilation"], case["kernel"], strict=True)]
    size = [max(s, r - 2 * p) for s, r, p in zip(case["size"], reach, case["padding"], strict=True)]
    rng = np.random.default_rng(case["seed"])
    x = draw(rng, (case["n"], groups * case["depth"], *size), bits)
    w = draw(rng, (groups * case["outputs"], case["depth"], *case["kernel"]), bits)
    settings_ = (case["stride"], case["padding"], case["dilation"], groups, bits)
    right = python_conv(x, w, *settings_)
    for name in ring.variants():
        assert np.array_equal(ring.conv2d(x, w, *settings_, name), right), name


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    ("channels", "outputs", "side", "kernel", "stride", "padding", "groups"),
    [
        (16, 40, 33, 3, 1, 1, 1),
        (3, 24, 40, 7, 2, 3, 1),
        (32, 32, 28, 3, 1, 1, 32),
        (24, 48, 20, 1, 1, 0, 4),
        (64, 8, 9, 3, 2, 1, 1),
        (4, 5, 70, 3, 1, 1, 1),
        (6, 9, 67, 1, 2, 0, 1),
        (4, 2, 71, 5, 3, 4, 2),
    ],
)
def test_convolution_layers_of_networks(variant, bits, channels, outputs, side, kernel, stride, padding, groups):
    rng = np.random.default_rng(side)
    x = draw(rng, (2, channels, side, side), bits)
    w = draw(rng, (outputs, channels // groups, kernel, kernel), bits)
    out = ring.conv2d(torch.from_numpy(x), torch.from_numpy(w), stride, padding, 1, groups, bits, variant)
    right = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), None, stride, padding, 1, groups)
    assert torch.equal(out, right)


def test_leading_dimensions_broadcast_and_kinds_are_kept(variant):
    rng = np.random.default_rng(1)
    a, b = draw(rng, (3, 1, 5, 7), 64), draw(rng, (4, 7, 6), 64)
    out = ring.matmul(a, b, 64, variant)
    assert out.shape == (3, 4, 5, 6)
    assert np.array_equal(out, a @ b)
    shared = ring.matmul(torch.from_numpy(a), torch.from_numpy(b[0]), 64, variant)
    assert torch.equal(shared, torch.from_numpy(a @ b[0]))
    unsigned = ring.matmul(a.view(np.uint64), b.view(np.uint64), 64, variant)
    assert unsigned.dtype == np.uint64
    assert np.array_equal(unsigned.view(np.int64), out)


def test_any_layout_and_no_operand_is_written(variant):
    rng = np.random.default_rng(2)
    a, b = draw(rng, (40, 30), 32), draw(rng, (60, 30), 32)
    before = a.copy(), b.copy()
    out = ring.matmul(a[::2, ::-1], b.T[::-1], 32, variant)
    assert np.array_equal(out, a[::2, ::-1] @ b.T[::-1])
    assert np.array_equal(a, before[0])
    assert np.array_equal(b, before[1])
    frozen = a.copy()
    frozen.setflags(write=False)
    assert np.array_equal(ring.matmul(frozen, b.T, 32, variant), a @ b.T)


def test_empty_operands(variant):
    for m, k, n in ((0, 3, 2), (2, 0, 3), (2, 3, 0)):
        out = ring.matmul(np.ones((m, k), np.int64), np.ones((k, n), np.int64), 64, variant)
        assert out.tolist() == np.zeros((m, n)).tolist()
    assert ring.conv2d(np.ones((0, 2, 4, 4), np.int64), np.ones((3, 2, 3, 3), np.int64), variant=variant).size == 0


def test_ring_laws(variant):
    """Sharing works: products of the shares sum to the product; a wrong carry between digits breaks this."""
    rng = np.random.default_rng(3)
    for bits in (32, 64):
        x, w, r = (draw(rng, (33, 33), bits) for _ in range(3))
        whole = ring.matmul(x, w, bits, variant)
        assert np.array_equal(ring.matmul(x - r, w, bits, variant) + ring.matmul(r, w, bits, variant), whole)


def test_misfits_are_refused():
    words = np.ones((2, 3), np.int64)
    with pytest.raises(ConfigError, match="do not fit"):
        ring.matmul(words, words, 64)
    with pytest.raises(ConfigError, match="not words of this ring"):
        ring.matmul(words, words.T, 32)
    with pytest.raises(ConfigError, match="not words of this ring"):
        ring.matmul(words.astype(np.float64), words.T, 64)
    with pytest.raises(ConfigError, match="not words of this ring"):
        ring.matmul(torch.ones(2, 3), torch.ones(3, 2), 64)
    with pytest.raises(ConfigError, match="no such ring"):
        ring.matmul(words, words.T, 48)
    with pytest.raises(ConfigError, match="leading dimensions"):
        ring.matmul(np.ones((2, 2, 3), np.int64), np.ones((3, 3, 2), np.int64), 64)
    with pytest.raises(ConfigError, match="unknown ring variant"):
        ring.matmul(words, words.T, 64, "sse9")


def test_convolution_misfits_are_refused():
    x, w = np.ones((1, 4, 5, 5), np.int64), np.ones((6, 2, 3, 3), np.int64)
    for changed, match in (
        ({"groups": 1}, "do not fit"),
        ({"groups": 4}, "takes images"),
        ({"groups": 0}, "takes images"),
        ({"groups": 2, "dilation": 3}, "do not fit"),
        ({"groups": 2, "stride": 0}, "stride out of range"),
        ({"groups": 2, "padding": -1}, "padding out of range"),
        ({"groups": 2, "padding": (1, 2, 3)}, "padding out of range"),
    ):
        with pytest.raises(ConfigError, match=match):
            ring.conv2d(x, w, **changed)
    with pytest.raises(ConfigError, match="takes images"):
        ring.conv2d(x[0], w, groups=2)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The kernels with the six AMX tile instructions replaced by C: the same packing, digits and blocks."""
    found = find_compiler()
    target = tmp_path_factory.mktemp("amx") / "k.so"
    if found is None or "ifma" not in ring.variants():
        pytest.skip("needs a compiler and AVX-512")
    assert compile_kernels(found[0], target, extra=("-DEDGEWARD_AMX_EMULATED",)) == ""
    return declare(ctypes.CDLL(str(target)))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    "shape", [(3, 1, 1), (33, 65, 31), (70, 130, 40), (5, 2100, 35), (32, 64, 32), (140, 3, 1030), (140, 9, 40)]
)
def test_amx_form_with_emulated_tiles(emulated, bits, shape):
    m, k, n = shape
    rng = np.random.default_rng(k)
    a, b = draw(rng, (m, k), bits), draw(rng, (k, n), bits)
    out = np.full((m, n), 7, a.dtype)
    assert not emulated.edgeward_ring_matmul(4, bits, a.ctypes.data, b.ctypes.data, out.ctypes.data, 1, m, k, n)
    assert np.array_equal(out, a @ b + np.asarray(7, a.dtype))


@pytest.mark.parametrize("bits", [32, 64])
def test_amx_form_at_the_least_digits(emulated, bits):
    """Every digit -128 over a whole block of k: the largest sum an int32 tile meets."""
    word = np.array([wrapped(int("80" * (bits // 8), 16), bits)], SIGNED[bits])
    a, b = np.full((32, 1024), word), np.full((1024, 32), word)
    out = np.zeros((32, 32), a.dtype)
    emulated.edgeward_ring_matmul(4, bits, a.ctypes.data, b.ctypes.data, out.ctypes.data, 1, 32, 1024, 32)
    assert (out == wrapped(1024 * int(word[0]) ** 2, bits)).all()


@settings(max_examples=40, deadline=None)
@given(bit_counts, st.integers(1, 3), st.integers(1, 40), st.integers(1, 9), st.integers(1, 40), seeds)
def test_products_are_added_in_place(bits, count, m, k, n, seed):
    rng = np.random.default_rng(seed)
    a, b, onto = (draw(rng, shape, bits) for shape in ((count, m, k), (count, k, n), (count, m, n)))
    for name in ring.variants():
        right, into = onto + ring.matmul(a, b, bits, name), onto.copy()
        assert np.shares_memory(ring.matmul(a, b, bits, name, onto=into), into)
        np.testing.assert_array_equal(into, right)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("shape", [(129, 2, 65), (300, 260, 5), (97, 513, 1023), (65, 5, 1025), (17, 300, 2060)])
def test_products_of_more_rows_than_are_packed_at_once(variant, bits, shape):
    """Past every block of rows, columns and k, where A is packed afresh and where it is not."""
    m, k, n = shape
    rng = np.random.default_rng(m)
    a, b, onto = (draw(rng, size, bits) for size in ((m, k), (k, n), (m, n)))
    right = onto + a @ b
    np.testing.assert_array_equal(ring.matmul(a, b, bits, variant, onto=onto), right)


def test_nothing_is_added_to_what_does_not_fit():
    a = np.ones((2, 2), np.int64)
    frozen = np.zeros((2, 2), np.int64)
    frozen.flags.writeable = False
    for onto in (np.zeros((2, 3), np.int64), np.zeros((4, 4), np.int64)[::2, ::2], frozen):
        with pytest.raises(ConfigError, match="cannot be added"):
            ring.matmul(a, a, 64, onto=onto)
    with pytest.raises(ConfigError, match="not words"):
        ring.matmul(a, a, 64, onto=np.zeros((2, 2), np.int32))
