"""The strongest attack: what choosing adds in hindsight is taken out again, over attacks and over kinds of records."""

import numpy as np
import pytest
import torch

from attacks.drawn_scores import membership
from edgeward.attacks.scored import Scored
from edgeward.attacks.strongest import strongest, worst
from edgeward.core.errors import DataError
from edgeward.core.measurement import Strongest
from edgeward.core.randomness import Seed


def scored(generator, shifts, models=16, records=100, shared=0.7, groups=None, numbers=None):
    """Attacks that see `shifts` of membership through noise, of which they share a part."""
    truth = membership(generator, models, records)
    common = shared * generator.normal(size=(models, records))
    noise = [common + (1 - shared**2) ** 0.5 * generator.normal(size=(models, records)) for _ in shifts]
    scores = {f"a{k}": torch.from_numpy(noise[k] + shift * truth) for k, shift in enumerate(shifts)}
    return Scored(scores, torch.from_numpy(truth), groups, numbers)


def test_the_luckiest_of_22_blind_attacks_is_no_attack():
    generator = np.random.default_rng(1)
    found = [strongest(scored(generator, [0.0] * 22, records=50, models=8), halvings=1) for _ in range(60)]
    assert np.mean([f.hindsight for f in found]) > 0.018
    corrected = [f.corrected.value for f in found]
    assert np.mean(corrected) == pytest.approx(0.01, abs=3 * np.std(corrected) / 60**0.5)
    # 60 draws at 95 %: five misses or more once in 6,000.
    assert sum(not f.corrected.low <= 0.01 <= f.corrected.high for f in found) <= 8


def test_one_attack_that_sees_is_found_and_loses_nothing():
    generator = np.random.default_rng(2)
    case = scored(generator, [0.0] * 10 + [2.0])
    found = strongest(case)
    alone = strongest(Scored({"a10": case.scores["a10"]}, case.truth))
    assert (found.name, found.attacks) == ("a10", 11)
    assert found.corrected.value == pytest.approx(alone.corrected.value, abs=0.02)
    assert found.corrected.low < found.hindsight < found.corrected.high


def test_worst_kind_is_the_strongest_of_the_strongest():
    generator = np.random.default_rng(3)
    kinds = {name: scored(generator, [shift, 0.0]) for name, shift in (("quiet", 0.0), ("loud", 2.5), ("dull", 1.0))}
    by_kind, found = worst(kinds)
    assert set(by_kind) == set(kinds)
    assert (found.kind, found.name, found.attacks) == ("loud", "a0", 6)
    assert found.corrected == by_kind["loud"].corrected
    assert [by_kind[k].kind for k in kinds] == list(kinds)


def test_four_kinds_without_a_leak_stay_at_chance():
    generator = np.random.default_rng(4)
    found = [
        worst({str(k): scored(generator, [0.0] * 4, models=8, records=50) for k in range(6)}, halvings=3)[1]
        for _ in range(40)
    ]
    corrected = [f.corrected.value for f in found]
    assert np.mean([f.hindsight for f in found]) > 0.02
    assert np.mean(corrected) == pytest.approx(0.01, abs=3 * np.std(corrected) / 40**0.5)
    assert sum(not f.corrected.low <= 0.01 <= f.corrected.high for f in found) <= 7


def test_the_order_of_records_and_models_does_not_matter():
    generator = np.random.default_rng(5)
    groups = torch.arange(60) // 2
    truth = torch.from_numpy(membership(generator, 8, 30))[:, groups]
    scores = {f"a{k}": torch.randn(8, 60, generator=Seed(k).torch()).double() + truth for k in range(4)}
    order, models = torch.from_numpy(generator.permutation(60)), torch.from_numpy(generator.permutation(8))
    moved = {name: s[models][:, order] for name, s in scores.items()}
    first = strongest(Scored(scores, truth, groups))
    again = strongest(Scored(moved, truth[models][:, order], groups[order]))
    assert again.name == first.name
    assert again.corrected.value == pytest.approx(first.corrected.value)
    assert again.corrected.low == pytest.approx(first.corrected.low)


def test_records_of_one_group_are_never_on_both_sides():
    # Two copies of every record: an attack that is lucky on one is lucky on its copy, and the choice must not see it.
    generator = np.random.default_rng(6)
    values = []
    for _ in range(30):
        case = scored(generator, [0.0] * 8, models=8, records=60, shared=0.0)
        twice = {name: torch.cat([s, s], 1) for name, s in case.scores.items()}
        truth = torch.cat([case.truth, case.truth], 1)
        groups = torch.arange(60).repeat(2)
        values.append(
            [strongest(Scored(twice, truth, g), halvings=1).corrected.value for g in (groups, torch.arange(120))]
        )
    together, apart = np.mean(values, axis=0)
    assert together < 0.014 < apart


def test_the_same_records_in_two_kinds_are_one_group():
    generator = np.random.default_rng(7)
    case = scored(generator, [1.5], groups=torch.arange(100), numbers=torch.arange(16))
    again = {"a0": case.scores["a0"] + 0.2 * torch.from_numpy(generator.normal(size=(16, 100)))}
    together = worst({"one": case, "two": Scored(again, case.truth, case.groups, case.models)})[1].corrected
    apart = worst({"one": case, "two": Scored(again, case.truth)})[1].corrected
    alone = strongest(case).corrected
    # A second look at the same records carries no news: the interval must not shrink as if there were more of them.
    width = {name: e.high - e.low for name, e in (("together", together), ("apart", apart), ("alone", alone))}
    assert width["together"] == pytest.approx(width["alone"], rel=0.1)
    assert width["apart"] < 0.9 * width["together"]


def test_the_seed_decides_the_halves():
    case = scored(np.random.default_rng(8), [0.5] * 4, models=8, records=30)
    assert strongest(case, seed=Seed(1)) == strongest(case, seed=Seed(1))
    assert strongest(case, seed=Seed(1)).corrected != strongest(case, seed=Seed(2)).corrected


def test_what_cannot_be_compared_is_refused():
    case = scored(np.random.default_rng(9), [0.5], models=8, records=30)
    with pytest.raises(DataError, match="shape"):
        Scored({"a": case.scores["a0"][:, :3]}, case.truth)
    with pytest.raises(DataError, match="groups are neither in nor out"):
        Scored(case.scores, case.truth, torch.zeros(30, dtype=torch.int64))
    with pytest.raises(DataError, match="different models"):
        Scored(case.scores, case.truth, None, torch.zeros(8, dtype=torch.int64))
    with pytest.raises(DataError, match="no attack"):
        Scored({}, case.truth)
    with pytest.raises(DataError, match="too few groups in: a"):
        worst({"a": Scored({"x": case.scores["a0"][:, :1]}, case.truth[:, :1])})


def test_round_trip():
    found = strongest(scored(np.random.default_rng(10), [0.5, 1.0], models=8, records=30))
    assert Strongest.from_json(found.to_json()) == found
