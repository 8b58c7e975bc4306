"""Planted records: their sources, labels, groups and nearness, for every mix of kinds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.core.errors import ConfigError
from edgeward.core.randomness import Seed
from edgeward.core.record_kind import KINDS, kinds_of
from edgeward.data.making import make_splits
from edgeward.data.planting import NEARNESS, plant
from edgeward.data.records import Records

PLANTED = [slug for slug, kind in KINDS.items() if kind.planted]


def records(count, seed, name, labels=(1, 4, 5)):
    rng = np.random.default_rng(seed)
    return Records.of(rng.normal(size=(count, 2, 6)) + 3, rng.choice(labels, count), name)


@pytest.fixture(scope="module")
def splits():
    members = records(400, 1, "train")
    return make_splits(members, records(80, 2, "others"), canaries=90, classes=8, seed=Seed(4), name="planting")


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(PLANTED), min_size=1), st.integers(0, 2**40))
def test_kinds_share_the_sources_equally_and_never_two_use_one(splits, slugs, seed):
    found = plant(splits, kinds_of(slugs), Seed(seed))
    assert {p.kind.slug for p in found} == slugs
    assert len({len(p) for p in found}) == 1
    assert sum(len(p) * p.kind.sources for p in found) <= len(splits.canary_sources)
    known = set(splits.train.y.tolist())
    hashes = [h for p in found if p.kind.sources for h in p.records.row_hashes[:: p.kind.group]]
    assert len(set(hashes)) == len(hashes)
    assert set(hashes) <= set(splits.canaries.row_hashes)
    for p in found:
        assert set(p.records.y.tolist()) <= known
        assert torch.equal(torch.bincount(p.group), torch.full((len(p) // p.kind.group,), p.kind.group))


def test_labels_of_each_kind(splits):
    right = dict(zip(splits.canaries.row_hashes, splits.train.y[splits.canary_sources].tolist(), strict=True))
    planted = {p.kind.slug: p.records for p in plant(splits, kinds_of(PLANTED), Seed(0))}
    true = {slug: torch.tensor([right.get(h, -1) for h in r.row_hashes]) for slug, r in planted.items()}
    assert bool((planted["mislabelled"].y != true["mislabelled"]).all())
    twins, halves = planted["twins"], planted["half-wrong-twins"]
    assert torch.equal(twins.y[::2], twins.y[1::2])
    assert bool((twins.y[::2] != true["twins"][::2]).all())
    assert bool((halves.y[::2] != true["half-wrong-twins"][::2]).all())
    assert torch.equal(halves.y[1::2], true["half-wrong-twins"][::2])
    assert not set(planted["out-of-distribution"].row_hashes) & set(splits.train.row_hashes)


def test_twins_are_near_and_stay_in_the_range_of_the_records(splits):
    x = next(p.records.x for p in plant(splits, kinds_of(["twins"]), Seed(0)))
    away = (x[1::2] - x[::2]) / splits.train.x.std(0, correction=0)
    # Clipping only brings them nearer.
    assert 0.7 * NEARNESS < float(away.std()) <= 1.1 * NEARNESS
    assert bool((x >= splits.train.x.amin(0)).all() & (x <= splits.train.x.amax(0)).all())


def test_constant_features_stay_constant():
    members = records(60, 1, "train")
    flat = Records(members.x.clone(), members.y, "train")
    flat.x[:, 0, 0] = 2.5
    splits = make_splits(flat, records(30, 2, "others"), canaries=16, classes=8, seed=Seed(4), name="flat")
    for p in plant(splits, kinds_of(PLANTED), Seed(0)):
        assert bool((p.records.x[:, 0, 0] == 2.5).all())


def test_equal_seeds_give_equal_records_and_one_kind_does_not_move_another(splits):
    def digests(slugs, seed):
        return {p.kind.slug: p.records.digest for p in plant(splits, kinds_of(slugs), Seed(seed))}

    assert digests(PLANTED, 3) == digests(PLANTED, 3)
    assert digests(["out-of-distribution"], 3) != digests(["out-of-distribution"], 4)


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(ConfigError, match="mislabelled"):
        kinds_of(["mislabeled"])
