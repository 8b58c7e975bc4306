"""Three parties: every place of every key is drawn from once, alike at both holders; what comes looks uniform."""

import threading
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from backends.mpc.test_mpc_replicated import boundaries, joined, three
from backends.mpc.test_mpc_replicated import ran as ran_three
from edgeward.backends.mpc.protocols.coarse_maximum import CoarseMaximum
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.curve import FUNCTIONS, Curve
from edgeward.backends.mpc.protocols.exponential import Exponential
from edgeward.backends.mpc.protocols.inverse import Inverse
from edgeward.backends.mpc.protocols.presets import tailed
from edgeward.backends.mpc.protocols.softmax import Softmax
from edgeward.backends.mpc.protocols.standardize import Standardization
from edgeward.backends.mpc.protocols.window import Window
from edgeward.backends.mpc.replicated import member as members
from edgeward.backends.mpc.replicated.activation import relu, sign
from edgeward.backends.mpc.replicated.coarse_maximum import below_maximum
from edgeward.backends.mpc.replicated.curves import activate, curve_value, exponential_value
from edgeward.backends.mpc.replicated.exponential import exponential
from edgeward.backends.mpc.replicated.inverse import inverse
from edgeward.backends.mpc.replicated.member import Member
from edgeward.backends.mpc.replicated.neighbours import run_three
from edgeward.backends.mpc.replicated.pooling import clip, max_pool
from edgeward.backends.mpc.replicated.products import matrix_multiply, multiply, square_sums
from edgeward.backends.mpc.replicated.softmax import softmax
from edgeward.backends.mpc.replicated.standardize import standardize
from edgeward.backends.mpc.replicated.truncation import truncate
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.tensor.curves import exponential_demand

ROWS, COLUMNS, F = 40, 40, 14
COUNT = ROWS * COLUMNS
# What has fewer bits than the ring or a byte.
SHORT = {
    "max/split/choice": 7,
    "softmax/max/split/choice": 7,
    "softmax/rows/split/top": 38,
    "standardize/rows/split/top": 2,
}


def near_one(ring):
    """Return 1 / x for 0.75 < x < 64 as a curve."""
    return Curve("reciprocal", ring.fraction, 6, 8, 8, 2, 1, ring.bits, 40)


def everything(member, x):
    """Run every protocol on values of [ROWS, COLUMNS] between 1 and 9."""
    ring, layout, image = member.ring, Layout(36), members.Replicated
    images = image(x.own.reshape(1, 1, ROWS, COLUMNS), x.next.reshape(1, 1, ROWS, COLUMNS), F)
    long = multiply(member, x, x, "square")
    truncate(member, long, F, "truncate")
    relu(member, long, F, layout, "relu")
    relu(member, x, 0, layout, "short")
    sign(member, x, 0, layout, "sign")
    matrix_multiply(member, x, x, "matmul")
    for name in ("sigmoid", "gelu"):
        activate(member, x, tailed(name, ring), layout, name)
    curve_value(member, x, near_one(ring), "reciprocal")
    exponential_value(member, x, exponential_demand(ring, COUNT), "exp")
    low = below_maximum(member, x, CoarseMaximum(ROWS, COLUMNS, 0, F + 1, 5, F + 8), "max")
    exponential(member, low, Exponential(COUNT, F, F + 8, 4, 1, 38, 17), "terms")
    for function in ("reciprocal", "logarithm"):
        inverse(member, x, Inverse(function, COUNT, F, F - 1, F + 4, F, 4, 30), function)
    square_sums(member, x, "squares")
    if ring.bits == 64:
        softmax(member, x, Softmax(ROWS, COLUMNS, 0, F), "softmax")
        standardize(member, x, Standardization(ROWS, COLUMNS, F, 1e-5), "standardize")
    clip(member, long, (0.0, 6.0), F, layout, "clip")
    return max_pool(member, images, Window((3, 3), (2, 2), (1, 1)), layout, "pool")


def ran(ring, numbers, owner=0):
    """Return what each party received on the encoded `numbers` of party `owner`."""
    x = ring.encode(numbers)

    def party(number, link):
        member = Member(number, ring, link)
        everything(member, member.enter(x if number == owner else None, x.shape, F, owner, "input"))
        return link.received[1:]

    return run_three(party, keep=True)


@pytest.mark.parametrize("bits", [63, 64])
def test_no_place_of_a_key_is_drawn_from_twice(bits, monkeypatch):
    drawn, real = [], members.expand_fields

    def watched(key, place, fields):
        drawn.append((threading.current_thread().name, key.reveal(), place, tuple((f.shape, f.bits) for f in fields)))
        return real(key, place, fields)

    monkeypatch.setattr(members, "expand_fields", watched)
    ran(Ring(bits, F), np.full((ROWS, COLUMNS), 3.0))
    assert max(Counter(draw[:3] for draw in drawn).values()) == 1
    # The other holder of a key drew the same there, and nobody else drew from it.
    assert set(Counter(draw[1:] for draw in drawn).values()) == {2}
    assert len({draw[1:3] for draw in drawn}) == len({draw[1:] for draw in drawn})
    assert len({draw[1] for draw in drawn}) == 3


@pytest.mark.parametrize(("bits", "number"), [(63, 1.0), (64, None)])
def test_what_each_party_receives_is_uniform_and_inside_the_ring(bits, number):
    """One value everywhere, or random ones; a ring of 63 bits would show a carry."""
    numbers = np.random.default_rng(0).uniform(1, 9, (ROWS, COLUMNS)) if number is None else np.full((ROWS, COLUMNS), 1)
    for messages in ran(Ring(bits, F), numbers):
        assert len(messages) > 40
        for message in messages:
            data = message.array.reshape(-1)
            width = SHORT.get(message.label, {"uint8": 8, "uint64": bits}.get(data.dtype.name, 0))
            if not width:
                continue
            assert int(data.max()) < 2**width, message.label
            size = min(1 << width, 256)
            for place in {0, max(0, width - 8)}:
                content = (data >> data.dtype.type(place)) & data.dtype.type(size - 1)
                if len(content) >= 1280:
                    counts = np.bincount(content.astype(np.int64), minlength=size)
                    assert stats.chisquare(counts).pvalue > 1e-9, message.label


@pytest.mark.parametrize("owner", [0, 1, 2])
def test_entered_values_are_rounded_up_or_down_and_by_party_0_always_up(owner):
    """What nobody shared anew has no mask at parties 1 and 2 when party 0 entered it."""
    ring, x = Ring(64, 16), np.full(2000, 0.25)

    def party(number, link):
        member = Member(number, ring, link)
        shared = member.enter(ring.encode(x) if number == owner else None, x.shape, 32, owner, "input")
        return member.open(truncate(member, shared, 16))

    signed = ring.signed(run_three(party)[0])
    assert set(signed.tolist()) == ({1} if owner == 0 else {0, 1})
    assert owner == 0 or abs(signed.mean() - 0.25) < 0.06


SHARES = np.array([0, 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)


@pytest.mark.parametrize("name", ["gelu", "sigmoid", "hard_swish"])
def test_activations_at_the_ends_of_the_comparison_with_boundary_shares(name):
    ring, limit = Ring(64, 16), 2**31
    what = tailed(name, ring)
    candidates = {*boundaries(limit).tolist(), *(b + step for b in (what.low, what.high) for step in (-1, 0, 1))}
    inside = [v for v in sorted(candidates) if all(-limit <= v - b < limit for b in (what.low, what.high))]
    t, v = np.repeat(np.array(inside), len(SHARES)), np.tile(SHARES, len(inside))
    shares = three(ring, ring.from_integers(t), np.random.default_rng(0), v, 16)
    results, _, _ = ran_three(ring, lambda member, x: activate(member, x, what, Layout(32), "curve"), shares)
    got = ring.signed(joined(ring, results))
    assert (got[t < what.low] == what.below).all()
    np.testing.assert_array_equal(got[t >= what.high], t[t >= what.high] if what.above is None else what.above)
    between = (t >= what.low) & (t < what.high)
    x = t[between] / 2.0**16
    assert np.abs(got[between] / 2.0**16 - FUNCTIONS[name](x)).max() < 2.0**-12


def test_exp_and_reciprocal_at_the_ends_of_their_range_with_boundary_shares():
    ring = Ring(64, 16)
    for low, high, curve, right in ((-20.5, 11, None, np.exp), (0.75, 64, near_one(ring), lambda x: 1 / x)):
        ends = np.array([low, low + 2.0**-16, 1, high - 2.0**-16])
        t, v = np.repeat(ring.encode(ends), len(SHARES)), np.tile(SHARES, len(ends))
        shares = three(ring, t, np.random.default_rng(0), v, 16)

        def program(member, x, curve=curve):
            if curve is None:
                return exponential_value(member, x, exponential_demand(ring, x.own.size))
            return curve_value(member, x, curve)

        results, _, _ = ran_three(ring, program, shares)
        got = ring.decode(joined(ring, results), results[0].fraction)
        wanted = right(ring.decode(t))
        assert (np.abs(got - wanted) / np.maximum(1, wanted)).max() < 2.0**-12
