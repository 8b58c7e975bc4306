"""Every protocol's openings, looked at with an attacker's eyes: uniform, inside the ring, and no mask used twice.

What is opened is a value less its mask. Two runs on equal secrets open the same values under fresh masks, so that the
difference of the runs shows masks alone: where two places differ by the same, they share a mask.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.protocols.activation import Relu, Sign, relu, sign
from edgeward.backends.mpc.protocols.comparison_layout import VARIANTS, variant
from edgeward.backends.mpc.protocols.curved import Curved, curved
from edgeward.backends.mpc.protocols.exponential import exponential, exponential_between
from edgeward.backends.mpc.protocols.inverse import Inverse, inverse
from edgeward.backends.mpc.protocols.iterations import Iterated, iterate
from edgeward.backends.mpc.protocols.linear import Linear, Use, WeightMask, linear, mask_all_weights
from edgeward.backends.mpc.protocols.linear_map import Convolution, Dense
from edgeward.backends.mpc.protocols.lookup import Lookup, lookup
from edgeward.backends.mpc.protocols.matrices import MatrixProduct, matrix_multiply
from edgeward.backends.mpc.protocols.multiplication import (
    Product,
    SpreadProduct,
    Square,
    multiply,
    multiply_spread,
    square,
)
from edgeward.backends.mpc.protocols.pooling import max_pool, max_pool_demands
from edgeward.backends.mpc.protocols.presets import tailed
from edgeward.backends.mpc.protocols.softmax import Softmax, softmax
from edgeward.backends.mpc.protocols.standardize import Standardization, standardize
from edgeward.backends.mpc.protocols.truncation import Truncation, truncate
from edgeward.backends.mpc.protocols.window import Window
from edgeward.backends.mpc.rehearsal import rehearse
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.backends.mpc.tensor.bilinear import Bilinear, bilinear

ROWS, COLUMNS = 8, 8
COUNT = ROWS * COLUMNS
RUNS = 20
F = 12
CURVES = ("gelu", "sigmoid", "hard_swish")


def one(demand, protocol):
    return lambda ring: ([demand(ring)], lambda party, x, materials: protocol(party, x, materials[0]))


def whole(what, protocol):
    return lambda ring: (what(ring).demands(ring), lambda party, x, m: protocol(party, x, what(ring), m))


def _layers(ring):
    """Two layers on one input, for two batches; the weights are masked once."""
    map_ = Convolution(padding=(1, 1))
    uses = tuple(Use(name, map_, (2, 1, 3, 3)) for name in ("u", "v"))
    demands = [*(WeightMask(use.name, use.weights) for use in uses), *[Linear((1, 1, ROWS, COLUMNS), uses)] * 2]

    def program(party, x, materials):
        weights = [Shared(np.tile(x.elements.reshape(-1)[:18], 1).reshape(2, 1, 3, 3), F)] * 2
        held = mask_all_weights(party, weights, materials[:2])
        image = Shared(x.elements.reshape(1, 1, ROWS, COLUMNS), F)
        return [linear(party, image, held, material, label=f"batch{i}") for i, material in enumerate(materials[2:])]

    return demands, program


def _pool(ring):
    window = Window((3, 3), (1, 1), (1, 1))
    demands = max_pool_demands((1, 1, ROWS, COLUMNS), window, variant("lookup", 40))
    return demands, lambda party, x, m: max_pool(party, Shared(x.elements.reshape(1, 1, ROWS, COLUMNS), F), window, m)


def _shaped(demand, protocol, first, second):
    def program(party, x, materials):
        flat = x.elements.reshape(-1)
        left, right = (Shared(flat[: int(np.prod(shape))].reshape(shape), F) for shape in (first, second))
        return protocol(party, left, right, materials[0])

    return lambda ring: ([demand], program)


SQUARE_SHAPE = (ROWS, COLUMNS)
PIECES = {
    "truncation": one(lambda ring: Truncation(COUNT, 9), truncate),
    **{f"relu {n}": one(lambda ring, n=n: Relu(COUNT, 9, variant(n, 40)), relu) for n in VARIANTS},
    **{f"sign {n}": one(lambda ring, n=n: Sign(COUNT, 0, variant(n, 40)), sign) for n in VARIANTS},
    **{n: one(lambda ring, n=n: Curved(COUNT, 9, tailed(n, ring), variant("lookup", 40)), curved) for n in CURVES},
    "silu by keys": one(lambda ring: Curved(COUNT, 9, tailed("silu", ring), variant("fss", 40)), curved),
    "lookup": one(lambda ring: Lookup(COUNT, tailed("silu", ring).curve), lookup),
    "exp": one(lambda ring: exponential_between(ring, COUNT, -8, 1, 16), lambda p, x, m: exponential(p, x.elements, m)),
    "square": one(lambda ring: Square(COUNT), square),
    "product": _shaped(Product(COUNT), multiply, SQUARE_SHAPE, SQUARE_SHAPE),
    "spread": _shaped(SpreadProduct(SQUARE_SHAPE, (1, COLUMNS)), multiply_spread, SQUARE_SHAPE, (1, COLUMNS)),
    "matrices": _shaped(MatrixProduct(ROWS, COLUMNS, ROWS), matrix_multiply, SQUARE_SHAPE, SQUARE_SHAPE),
    "bilinear": _shaped(Bilinear(Dense(), SQUARE_SHAPE, SQUARE_SHAPE), bilinear, SQUARE_SHAPE, SQUARE_SHAPE),
    "iterations": whole(lambda ring: Iterated("exp", COUNT), iterate),
    "layers": _layers,
    "pool": _pool,
    **{
        n: whole(lambda ring, n=n: Inverse(n, COUNT, F, 3, 20, F, 8, 30), inverse)
        for n in ("reciprocal", "inverse_root", "logarithm")
    },
}
WHOLE_RING = {
    "softmax": whole(lambda ring: Softmax(ROWS, COLUMNS, 9, F), softmax),
    "standardized": whole(lambda ring: Standardization(ROWS, COLUMNS, F, 1e-5), standardize),
}
CASES = [*((name, 61) for name in PIECES), *((name, 64) for name in WHOLE_RING)]


def openings(name, ring, x):
    """Return (label, received by 0, received by 1) of every opening of one run with fresh material.

    The first party's share is the value itself, as for the owner of an input.
    """
    demands, run = (PIECES | WHOLE_RING)[name](ring)
    shares = [Shared(ring.from_integers(part).reshape(ROWS, COLUMNS), F) for part in (x, 0 * x)]

    def play(party, supply):
        return run(party, shares[party.number], [supply.draw(demand) for demand in demands])

    ours, theirs = rehearse(ring, demands, play).received
    assert [(m.label, m.array.shape) for m in ours] == [(m.label, m.array.shape) for m in theirs]
    return [(a.label, a.array, b.array) for a, b in zip(ours, theirs, strict=True)]


def opened(a, b):
    """Return what two messages make together: elements, or bits in planes."""
    return a ^ b if a.dtype == np.uint8 else a + b


def words(run, kind):
    """Return the opened elements, or the rows of planes in pieces of 64 bits, of one run."""
    made = [opened(a, b) for _, a, b in run if a.dtype == kind and a.shape[-1] * a.itemsize % 8 == 0]
    return np.concatenate([np.zeros(0, np.uint64), *(part.view(np.uint64).reshape(-1) for part in made)])


def reused(runs, bits):
    """Return whether two runs on equal secrets show that a mask of elements or of a row of bits was used twice."""
    first, second = (words(run, np.uint64) for run in runs)
    apart = (first - second) & np.uint64(2**bits - 1)
    both = np.sort(np.concatenate([apart, (np.uint64(0) - apart) & np.uint64(2**bits - 1)]))
    # Values differ by their rounding between the runs, by far less than this; 300 uniform words come as close to each
    # other once in 10^5 tests.
    near = bool((np.diff(both) < 2 ** (bits - 36)).any())
    first, second = (words(run, np.uint8) for run in runs)
    return near or any((a ^ b).bit_count() <= 4 for a, b in itertools.combinations((first ^ second).tolist(), 2))


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_no_mask_is_used_twice(name, bits):
    assert not reused([openings(name, Ring(bits, F), np.arange(COUNT) * 37 + 5000) for _ in range(2)], bits)


def _again(material, count=2):
    """Return the material as often as wanted, which `Material` does not allow."""
    _, arrays = material.take(type(material.demand))
    return [Material(material.demand, 0, dict(arrays)) for _ in range(count)]


TWICE = {
    "elements": (Truncation(COUNT, 9), lambda party, x, m: [truncate(party, x, one_, "t") for one_ in _again(m)]),
    "bits": (Sign(COUNT, 0, variant("tree", 40)), lambda party, x, m: [sign(party, x, one_) for one_ in _again(m)]),
}


@pytest.mark.parametrize("name", TWICE)
@pytest.mark.parametrize("bits", [61, 64])
def test_a_mask_that_is_used_twice_is_noticed(monkeypatch, name, bits):
    demand, program = TWICE[name]
    monkeypatch.setitem(PIECES, "twice", lambda ring: ([demand], lambda party, x, m: program(party, x, m[0])))
    assert reused([openings("twice", Ring(bits, F), np.arange(COUNT) * 37 + 5000) for _ in range(2)], bits)


@pytest.mark.parametrize(("name", "bits"), CASES)
@pytest.mark.parametrize(
    "secrets", ["fixed", *(pytest.param(s, marks=pytest.mark.slow) for s in ("random", "outside"))]
)
def test_what_is_received_and_opened_is_uniform_and_inside_the_ring(name, bits, secrets):
    """Secrets are equal in every run and place, or random, or outside every range; a carry would show in 61 bits."""
    ring, draws, seen = Ring(bits, F), np.random.default_rng(bits), {}
    for _ in range(RUNS):
        x = np.full(COUNT, -(2**58) - 12345 if secrets == "outside" else 5000)
        x = draws.integers(1000, 200_000, COUNT) if secrets == "random" else x
        for i, (label, a, b) in enumerate(openings(name, ring, x)):
            for side, part in (("to 0", a), ("to 1", b), ("together", opened(a, b))):
                seen.setdefault((i, label, side), []).append(part.reshape(-1))
    for (_, label, side), parts in seen.items():
        data = np.concatenate(parts)
        contents = [data] if data.dtype == np.uint8 and "counts" not in label else []
        if data.dtype == np.uint64:
            assert side == "together" or int(data.max()) < 2**bits, label
            # The lowest byte and the highest whole one: carries and top bits show there.
            contents = [(data >> np.uint64(place)) & np.uint64(255) for place in (0, bits - 8)]
        for content in contents:
            if len(content) >= 1280:
                counts = np.bincount(content.astype(np.int64), minlength=256)
                assert stats.chisquare(counts).pvalue > 1e-9, (label, side)


def rank(rows):
    """Return the rank modulo 2 of rows of bits, given as integers."""
    basis = {}
    for row in rows:
        left = row
        while left and left.bit_length() in basis:
            left ^= basis[left.bit_length()]
        if left:
            basis[left.bit_length()] = left
    return len(basis)


@pytest.mark.parametrize("name", ["relu lookup", "relu lookup8", "sign lookup", "silu by keys"])
def test_no_mask_is_a_combination_of_others(name):
    """Over 64 values, the lowest bits of masks and all masks of bits are independent (fails once in 2^40 tests)."""
    runs = [openings(name, Ring(64, F), np.arange(COUNT) * 37 + 5000) for _ in range(2)]
    (first, second), (low, other) = ([words(run, kind) for run in runs] for kind in (np.uint8, np.uint64))
    rows = (first ^ second).tolist()
    rows += [
        int.from_bytes(np.packbits(bits).tobytes(), "big") for bits in ((low ^ other) & np.uint64(1)).reshape(-1, 64)
    ]
    assert 4 <= rank(rows) == len(rows) <= 24
    assert rank([*rows, rows[0] ^ rows[1]]) == len(rows)
