"""One-time material: dealt right, given out once, never shown; and what a party receives is uniform."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from scipy import stats

from edgeward.backends.mpc.offline import tuples
from edgeward.backends.mpc.offline.tuples import Dealer, Entry, Supply, SupplyError, TupleReusedError
from edgeward.backends.mpc.party import Party, ProtocolError
from edgeward.backends.mpc.protocols.activation import Relu, Sign, relu, sign
from edgeward.backends.mpc.protocols.comparison_layout import Layout, Merge
from edgeward.backends.mpc.protocols.linear import Linear, Use, WeightMask, linear, mask_weights
from edgeward.backends.mpc.protocols.linear_map import Dense
from edgeward.backends.mpc.protocols.matrices import MatrixProduct, matrix_multiply
from edgeward.backends.mpc.protocols.multiplication import (
    Product,
    Square,
    multiply,
    square,
)
from edgeward.backends.mpc.protocols.truncation import Truncation, truncate
from edgeward.backends.mpc.rehearsal import rehearse
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared, SharedBits, share
from edgeward.core.errors import ConfigError

RING = Ring(64, 16)
WEIGHTS = WeightMask("w", (3, 4))
DEMANDS = [
    Truncation(9, 16),
    Sign(5, 0, Layout(64, 4, 4)),
    Relu(17, 16, Layout(32, 3, 3)),
    Product(3),
    Square(4),
    MatrixProduct(2, 3, 4),
    WEIGHTS,
    Linear((2, 4), (Use("w", Dense(), (3, 4)),)),
]


def test_both_shares_make_what_the_demand_defines():
    first, second = Dealer(RING).supplies(DEMANDS)
    kept = {}
    for demand in DEMANDS:
        (_, a), (_, b) = (supply.draw(demand).take(type(demand)) for supply in (first, second))
        fields = demand.fields(RING)
        clear = {f.name: f.combine(a[f.name], b[f.name]) for f in fields}
        made = demand.complete(RING, clear, kept)
        for field in fields:
            if field.dependent:
                np.testing.assert_array_equal(clear[field.name], made[field.name], err_msg=f"{demand} {field.name}")
        kept |= demand.keep(clear)
    assert len(first) == len(second) == 0


def test_the_second_party_receives_the_declared_corrections_and_the_first_none():
    dealer = Dealer(RING)
    for demand in DEMANDS:
        first, second = dealer.deal(demand)
        assert first.corrections == b""
        assert len(second.corrections) == demand.offline_bytes(RING)
    assert Product(3).offline_bytes(RING) == 24
    assert Truncation(9, 16).offline_bytes(RING) == 9 * (8 + 2)


def test_no_tuple_is_used_twice():
    demand, shares = Product(3), share(RING, RING.encode(np.ones(3)))

    def twice(party, supply):
        material, mine = supply.draw(demand), shares[party.number]
        multiply(party, mine, mine, material)
        before = party.link.meter.reading().sent
        with pytest.raises(TupleReusedError, match="already used"):
            multiply(party, mine, mine, material)
        return party.link.meter.reading().sent - before

    assert rehearse(RING, [demand], twice).results == (0, 0)


def test_every_place_of_the_stream_is_expanded_once(monkeypatch):
    """Over a run of every protocol, no (party, place) is asked for twice, and the places' streams all differ."""
    dealer, seen = Dealer(RING), []
    supplies = dealer.supplies([*DEMANDS[:6] * 3, *DEMANDS[6:]])
    real = tuples.stream

    def watched(seed, nonce):
        seen.append((seed.reveal(), nonce, real(seed, nonce).draw(64).tobytes()))
        return real(seed, nonce)

    monkeypatch.setattr(tuples, "stream", watched)
    for supply in supplies:
        while len(supply):
            supply.draw(supply._waiting[0].demand)
    places, streams = [(key, index) for key, index, _ in seen], [stream for _, _, stream in seen]
    assert len(set(places)) == len(places) == 2 * 20
    assert len(set(streams)) == len(streams)


def test_an_entry_that_comes_twice_or_damaged_is_refused():
    dealer = Dealer(RING)
    one, two = dealer.deal(Product(3))[1], dealer.deal(Product(3))[1]
    supply = Supply(RING, 1, dealer.seeds[1])
    with pytest.raises(SupplyError, match="incomplete"):
        supply.add(two)
    with pytest.raises(SupplyError, match="incomplete"):
        supply.add(Entry(0, one.demand, one.corrections[:-1]))
    supply.add(one)
    with pytest.raises(TupleReusedError, match="came twice"):
        supply.add(one)
    supply.add(two)
    with pytest.raises(SupplyError, match="something else"):
        supply.draw(Product(4))
    supply.draw(Product(3))
    supply.draw(Product(3))
    with pytest.raises(SupplyError, match="nothing more"):
        supply.draw(Product(3))


def test_material_for_another_use_is_refused_and_stays_fresh():
    material = Dealer(RING).supplies([Product(3)])[0].draw(Product(3))
    with pytest.raises(SupplyError):
        material.take(Square)
    with pytest.raises(SupplyError):
        material.take(Product, 4)
    with pytest.raises(ConfigError):
        material.renewed({})
    material.take(Product, 3)


@pytest.mark.parametrize("copying", [copy.copy, copy.deepcopy, pickle.dumps])
def test_material_cannot_be_copied(copying):
    dealer = Dealer(RING)
    supply = dealer.supplies([Product(3)])[0]
    for one in (dealer, supply, supply.draw(Product(3))):
        with pytest.raises(TypeError, match="not copied"):
            copying(one)


def test_no_text_shows_a_share():
    elements = np.array([1234567890123456789], np.uint64)
    material = Dealer(RING).supplies([Product(1)])[0].draw(Product(1))
    texts = [repr(Shared(elements, 16)), repr(SharedBits(np.full((1, 1), 173, np.uint8), 8)), repr(material)]
    assert not any(secret in text for text in texts for secret in ("1234567890", "173", "array"))
    assert "secret" not in repr(Entry(0, Product(1), b"secret"))


def test_parties_at_different_places_stop():
    shares = share(RING, RING.encode(np.ones(4)))
    with pytest.raises(ProtocolError, match="another place"):
        rehearse(
            RING,
            [Truncation(4, 16)],
            lambda p, s: truncate(p, shares[p.number], s.draw(Truncation(4, 16)), f"step{p.number}"),
        )


STEPS = 2 + 4 + 7 + 3 + 6 + 1
"""Weights, input, two ReLUs (4 and 7), product, square, truncation, sign (6), matrices."""


def views(x, count=4000):
    """Return all bytes each party receives in a run of every kind of opening on one constant input."""
    elements = RING.encode(np.full(count, x))
    xs, ws = share(RING, elements), share(RING, RING.encode(np.full((4, 4), x)))
    mask, layer = WeightMask("w", (4, 4)), Linear((count // 4, 4), (Use("w", Dense(), (4, 4)),))
    acts = [Relu(count, 16, Layout(32, 4, 4)), Relu(count, 16, Layout(32, 1, 2)), Product(count), Square(count)]
    acts += [Truncation(count, 16), Sign(count, 0, Layout(64, 2, 3)), MatrixProduct(40, count // 40, 40)]

    def program(party, supply):
        me = party.number
        held = mask_weights(party, ws[me], supply.draw(mask))
        z = linear(party, Shared(xs[me].elements.reshape(-1, 4), 16), [held], supply.draw(layer))[0]
        for i, act in enumerate(acts[:2]):
            relu(party, Shared(z.elements.reshape(-1), 32), supply.draw(act), f"relu{i}")
        multiply(party, xs[me], xs[me], supply.draw(acts[2]))
        square(party, xs[me], supply.draw(acts[3]))
        truncate(party, xs[me], supply.draw(acts[4]))
        sign(party, xs[me], supply.draw(acts[5]))
        tall, wide = (Shared(xs[me].elements.reshape(shape), 16) for shape in ((40, -1), (-1, 40)))
        matrix_multiply(party, tall, wide, supply.draw(acts[6]))

    return rehearse(RING, [mask, layer, *acts], program).received


def uniform(data):
    """Return the p-value of "these bytes are uniform" (chi-square)."""
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    return stats.chisquare(counts).pvalue


@pytest.mark.parametrize("x", [0.0, -1.0, 37.5])
def test_what_a_party_receives_is_uniform_whatever_the_input(x):
    for received in views(x):
        steps = {}
        for message in received:
            steps[message.label] = steps.get(message.label, b"") + message.array.tobytes()
        assert len(steps) == STEPS
        # 23 steps, 2 parties, 3 inputs: 138 tests; one false alarm in about 10^7 runs.
        assert all(uniform(data) > 1e-9 for data in steps.values() if len(data) >= 1280)
        assert uniform(b"".join(steps.values())) > 1e-9


@pytest.mark.parametrize("x", [0.0, 37.5])
def test_what_is_opened_is_uniform_too(monkeypatch, x):
    """A party knows its own shares: what they make together with the received ones must not show the input either."""
    made = {}

    def watching(real):
        def opening(party, mine, label):
            result = real(party, mine, label)
            labels, results = (label, result) if isinstance(label, list) else ([label], [result])
            for name, one in zip(labels if party.first else (), results, strict=False):
                # Some add the two shares on their way.
                one = party.ring.wrap(one[0] + one[1]) if isinstance(one, tuple) else one
                made[name] = made.get(name, b"") + one.tobytes()
            return result

        return opening

    for name in ("open_elements", "swap_all", "open_planes"):
        monkeypatch.setattr(Party, name, watching(getattr(Party, name)))
    views(x)
    assert len(made) == STEPS
    assert all(uniform(data) > 1e-9 for data in made.values() if len(data) >= 1280)


def test_the_transcript_test_sees_a_mask_that_is_missing(monkeypatch):
    """With masks of zero, what is opened shows the input: the chi-square test must notice."""

    class Broken:
        def draw(self, count):
            return np.zeros(count, np.uint8)

    monkeypatch.setattr(tuples, "stream", lambda seed, nonce: Broken())
    received = views(1.0)
    joined = [b"".join(m.array.tobytes() for m in messages if "compare" in m.label) for messages in received]
    assert min(uniform(data) for data in joined) < 1e-9


def test_two_dealers_never_deal_the_same():
    a, b = Dealer(RING), Dealer(RING)
    assert len({seed.reveal() for dealer in (a, b) for seed in dealer.seeds}) == 4
    assert repr(a.seeds[0]) == "SecretBytes(32 bytes)"


@pytest.mark.parametrize("size", range(1, 9))
def test_a_merge_declares_its_masks_and_products(size):
    """Masks: one per opened bit; products: every set of two or more masks that the merge's polynomial can meet."""
    for merge in (Merge(size, False), Merge(size, True)):
        terms = set()
        for j in range(size - 1):
            above = range(j + 1, size)
            for count in range(len(above) + 1):
                for chosen in itertools.combinations(above, count):
                    terms |= {(("less", j), *chosen), chosen}
        if merge.whole and size > 1:
            terms |= {c for count in range(size + 1) for c in itertools.combinations(range(size), count)}
        assert merge.opened == sum(len(term) == 1 for term in terms)
        assert merge.products == sum(len(term) > 1 for term in terms)
