"""Splits: roles are disjoint, canaries are wrong, and every problem is reported at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from data_fixtures import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.core.errors import ConfigError, DataError
from edgeward.core.randomness import Seed
from edgeward.data.making import make_splits
from edgeward.data.records import Records


def small(seed=0, **options):
    return make_splits(toy(90, 1), toy(60, 2), canaries=20, seed=Seed(seed), name="small", **options)


def rows(records):
    return {tuple(row) for row in records.x.tolist()}


def test_default_sizes():
    assert small().counts() == {"train": 81, "validation": 9, "holdout": 42, "shadow": 18, "canaries": 20}


@settings(max_examples=40, deadline=None)
@given(st.integers(12, 80), st.integers(2, 60), st.integers(2, 6), st.integers(0, 2**40), st.data())
def test_roles_are_disjoint_and_complete_and_canaries_are_wrong(n, m, classes, seed, data):
    train, holdout = toy(n, 1, classes), toy(m, 2, classes)
    canaries = data.draw(st.integers(0, (n - max(-(-n // 10), min(classes, n // 4), 1)) // 3))
    splits = make_splits(train, holdout, canaries=canaries, seed=Seed(seed), name="p", classes=classes)
    roles = [rows(r) for r in splits.roles.values()]
    assert sum(map(len, roles)) == len(set.union(*roles)) == n + m
    assert rows(splits.train) | rows(splits.validation) == rows(train)
    assert rows(splits.holdout) | rows(splits.shadow) == rows(holdout)
    assert len(splits.canaries) == len(splits.canary_sources.unique()) == canaries
    assert torch.equal(splits.canaries.x, splits.train.x[splits.canary_sources])
    assert bool((splits.canaries.y != splits.train.y[splits.canary_sources]).all())
    assert bool(((splits.canaries.y >= 0) & (splits.canaries.y < classes)).all())


def labelled(classes, count=9000):
    x = np.arange(float(count))[:, None]
    return Records.of(x, np.asarray(classes)[np.arange(count) % len(classes)], "train")


def test_canary_labels_are_uniform_over_the_other_classes_that_occur():
    splits = make_splits(
        labelled([0, 2, 3, 7]), toy(10, 2, features=1), classes=9, canaries=2400, seed=Seed(3), name="u"
    )
    own = splits.train.y[splits.canary_sources] == 0
    counts = torch.bincount(splits.canaries.y[own], minlength=9).tolist()
    assert [label for label, count in enumerate(counts) if count] == [2, 3, 7]
    total = sum(counts)
    # Six standard deviations of a binomial with p = 1/3.
    assert all(abs(counts[label] - total / 3) < 6 * (total * 2 / 9) ** 0.5 for label in (2, 3, 7))


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 60), min_size=2, max_size=7), st.integers(0, 2**40))
def test_no_canary_carries_a_label_that_no_record_has(classes, seed):
    members = labelled(sorted(classes), 90)
    splits = make_splits(members, toy(30, 2, features=1), classes=70, canaries=20, seed=Seed(seed), name="gaps")
    assert set(splits.canaries.y.tolist()) <= set(splits.train.y.tolist())
    number = torch.randperm(200, generator=Seed(seed).torch())
    renamed = Records(members.x, number[members.y], members.name)
    again = make_splits(renamed, toy(30, 2, features=1), classes=200, canaries=20, seed=Seed(seed), name="gaps")
    assert torch.equal(again.canary_sources, splits.canary_sources)
    assert torch.equal(again.canaries.y, number[splits.canaries.y])


def test_records_of_one_class_cannot_be_mislabelled():
    with pytest.raises(ConfigError, match="at least two classes"):
        make_splits(labelled([4], 90), toy(30, 2, features=1), classes=9, canaries=20, seed=Seed(0), name="one")


def test_equal_seeds_equal_splits_and_other_seeds_other_splits():
    assert small(5).digest == small(5).digest
    assert small(5).digest != small(6).digest
    assert not torch.equal(small(5).canary_sources, small(6).canary_sources)


def test_digest_sees_every_part():
    splits = small()
    changed = [
        replace(splits, classes=9),
        replace(splits, canary_sources=splits.canary_sources.flip(0)),
        replace(splits, canaries=Records(splits.canaries.x, (splits.canaries.y + 1) % 4, "c")),
        *(replace(splits, **{role: toy(7, 77)}) for role in splits.roles),
    ]
    assert len({splits.digest, *(c.digest for c in changed)}) == len(changed) + 1
    assert replace(splits, name="other", notes=("x",)).digest == splits.digest


@pytest.mark.parametrize("overlap", [1, 7, 42])
def test_overlap_is_counted_exactly(overlap):
    splits = small()
    x = splits.holdout.x.clone()
    x[:overlap] = splits.train.x[:overlap]
    with pytest.raises(DataError, match=f"{overlap} of the 42 holdout records are also in train"):
        replace(splits, holdout=Records(x, splits.holdout.y, "holdout")).check()


@pytest.mark.parametrize(
    ("first", "second"),
    [("train", "validation"), ("train", "shadow"), ("validation", "holdout"), ("holdout", "shadow")],
)
def test_every_pair_of_roles_is_compared(first, second):
    splits = small()
    x = splits.roles[second].x.clone()
    x[3] = splits.roles[first].x[2]
    with pytest.raises(DataError, match=f"1 of the {len(x)} {second} records are also in {first}"):
        replace(splits, **{second: Records(x, splits.roles[second].y, second)}).check()


def test_the_users_overlap_is_an_error_and_deduplicate_resolves_it():
    train, holdout = toy(90, 1), toy(60, 2)
    mixed = Records(torch.cat([holdout.x, train.x[:5]]), torch.cat([holdout.y, train.y[:5]]), "holdout")
    doubled = Records(torch.cat([train.x, train.x[:7]]), torch.cat([train.y, train.y[:7]]), "train")
    with pytest.raises(DataError, match="are also in train"):
        make_splits(train, mixed, canaries=5, seed=Seed(0), name="mixed")
    splits = make_splits(doubled, mixed, canaries=5, seed=Seed(0), name="mixed", deduplicate=True)
    assert sum(splits.counts().values()) == 90 + 60 + 5
    assert splits.notes == ("12 repeated records dropped before splitting",)


def test_repeated_records_of_one_role_stay_together():
    train = toy(41, 1)
    tripled = Records(train.x.repeat(3, 1), train.y.repeat(3), "train")
    for seed in range(10):
        splits = make_splits(tripled, toy(30, 2), canaries=5, seed=Seed(seed), name="tripled")
        # 110 and 13 were asked for: the record that straddles the border goes to train with its copies.
        assert (len(splits.train), len(splits.validation)) == (111, 12)
        assert len(rows(splits.canaries)) == 5


def test_check_lists_every_problem_at_once():
    splits = small()
    x = splits.train.x.clone()
    x[4, 1], x[6, 0] = float("nan"), float("inf")
    y = splits.train.y.clone()
    y[:3] = torch.tensor([4, 9, -1])
    empty = splits.holdout.subset([])
    shadow = Records(splits.shadow.x[:, :5], splits.shadow.y, "shadow")
    with pytest.raises(DataError) as caught:
        replace(splits, train=Records(x, y, "train"), holdout=empty, shadow=shadow).check()
    text = str(caught.value)
    for part in (
        "holdout is empty: expected at least one non-member record",
        "train: 3 labels outside 0 .. 3 (labels -1, 4, 9)",
        "train: 2 records hold NaN or infinity (first at index 4)",
        "differ in shape",
    ):
        assert part in text


def test_tampered_canaries_are_found():
    splits = small()
    right = splits.train.y[splits.canary_sources]
    with pytest.raises(DataError, match="20 canaries carry the right label"):
        replace(splits, canaries=Records(splits.canaries.x, right, "c")).check()
    with pytest.raises(DataError, match="canaries are not copies"):
        replace(splits, canary_sources=splits.canary_sources.roll(1)).check()
    with pytest.raises(DataError, match="outside train"):
        replace(splits, canary_sources=splits.canary_sources + 1000).check()
    with pytest.raises(DataError, match="20 canaries have 3 sources"):
        replace(splits, canary_sources=splits.canary_sources[:3]).check()


@pytest.mark.parametrize("canaries", [28, 1000, -1])
def test_too_many_canaries_are_refused(canaries):
    with pytest.raises(ConfigError, match="0 to 27: at most a third of the 81"):
        make_splits(toy(90, 1), toy(60, 2), canaries=canaries, seed=Seed(0), name="few")


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 5), (5, 0), (1, 1), (5, 1), (1, 5)])
def test_tiny_sets_are_refused_with_the_role_that_lacks_records(n, m):
    with pytest.raises(DataError, match="is empty"):
        make_splits(toy(n, 1), toy(m, 2), canaries=0, seed=Seed(0), name="tiny")


def test_sizes_are_exact_or_refused():
    splits = small(train_size=60, holdout_size=14)
    assert splits.counts() == {"train": 60, "validation": 7, "holdout": 14, "shadow": 6, "canaries": 20}
    for size in (0, -3, 90, 10**9):
        with pytest.raises(ConfigError, match=f"train = {size} does not fit 'small'"):
            small(train_size=size)
    with pytest.raises(ConfigError, match="holdout = 60 does not fit"):
        small(holdout_size=60)


def test_given_roles_are_kept():
    splits = small(validation=toy(11, 3), shadow=toy(13, 4), holdout_size=25)
    assert splits.counts() == {"train": 90, "validation": 11, "holdout": 25, "shadow": 13, "canaries": 20}
    assert rows(splits.shadow) == rows(toy(13, 4))


@pytest.mark.parametrize("label", [2**40, 2**63 - 1, -5])
def test_absurd_labels_are_refused(label):
    train = toy(90, 1)
    train.y[3] = label
    with pytest.raises(DataError, match=r"classes = |labels outside"):
        make_splits(train, toy(60, 2), canaries=20, seed=Seed(0), name="absurd")


def test_repr_and_errors_show_no_value():
    secret = Records.of(np.full((30, 2), 12345.678), np.zeros(30), "secret")
    with pytest.raises(DataError) as caught:
        make_splits(secret, secret, canaries=0, seed=Seed(0), name="secret")
    assert "12345" not in str(caught.value)
    assert "12345" not in repr(small())
