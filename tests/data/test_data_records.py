"""Records: digests, row hashes, subsets, and what is never shown."""

import hashlib

import numpy as np
import pytest
import torch
from data_fixtures import toy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeward.core.errors import DataError
from edgeward.data.records import Records

SECRET = 12345.678


def test_row_hashes_are_blake2b_of_the_row_bytes():
    records = Records.of([[1.5, -2.0], [0.0, 3.0]], [0, 1], "a")
    expected = tuple(
        hashlib.blake2b(np.array(row, dtype="<f4").tobytes(), digest_size=16).digest() for row in ([1.5, -2], [0, 3])
    )
    assert records.row_hashes == expected


def test_row_hashes_ignore_labels_and_the_sign_of_zero():
    first, second = Records.of([[0.0, 1.0]], [0], "a"), Records.of([[-0.0, 1.0]], [1], "b")
    assert first.row_hashes == second.row_hashes


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 12), st.integers(0, 3)), elements=st.sampled_from([0.0, 1.0])))
def test_row_hashes_are_equal_exactly_for_equal_rows(x):
    records = Records.of(x, np.zeros(len(x), dtype=np.int64), "bits")
    for i, a in enumerate(records.row_hashes):
        for j, b in enumerate(records.row_hashes):
            assert (a == b) == np.array_equal(x[i], x[j])


def test_digest_depends_on_everything_but_the_name():
    base = toy(5, 0)
    assert base.digest == base.named("other").digest == Records(base.x.clone(), base.y.clone(), "c").digest
    label = base.y.clone()
    label[0] += 1
    value = base.x.clone()
    value[4, 5] = torch.nextafter(value[4, 5], torch.tensor(9.0))
    others = [Records(base.x, label, "a"), Records(value, base.y, "a"), Records(base.x.reshape(5, 2, 3), base.y, "a")]
    assert len({base.digest, *(o.digest for o in others)}) == 4


def test_digest_of_a_known_set():
    expected = hashlib.sha256(b"(1, 2) float32 (1,) int64\n" + np.array([1, 2], "<f4").tobytes() + b"\x03" + b"\0" * 7)
    assert Records.of([[1, 2]], [3], "known").digest == expected.hexdigest()


def test_a_digest_ignores_the_memory_layout():
    x = torch.arange(12.0).reshape(3, 4)
    strided = Records(x.t().contiguous().t(), torch.zeros(3, dtype=torch.int64), "a")
    assert not strided.x.is_contiguous()
    plain = Records(x, torch.zeros(3, dtype=torch.int64), "a")
    assert (strided.digest, strided.row_hashes) == (plain.digest, plain.row_hashes)


def test_subset_copies_in_order():
    records = toy(10, 0)
    part = records.subset([7, 2], "part")
    assert torch.equal(part.x, records.x[[7, 2]])
    assert torch.equal(part.y, records.y[[7, 2]])
    part.x.zero_()
    assert not torch.equal(records.x[7], part.x[0])
    assert len(records.subset([])) == 0
    with pytest.raises(DataError, match="0 to 9"):
        records.subset([10])
    with pytest.raises(DataError, match="-1"):
        records.subset(np.array([-1]))


def test_repr_shows_no_value():
    records = Records.of(np.full((3, 2), SECRET), [0, 1, 2], "secret")
    assert "12345" not in repr(records)
    assert "n=3" in repr(records)


@pytest.mark.parametrize(
    ("x", "y", "part"),
    [
        (np.full((3, 2), SECRET), [0, 1], "3 records"),
        (np.full((3, 2), SECRET), [[0, 1], [1, 1], [1, 1]], "one axis"),
        (np.array(["12345.678"] * 3), [0, 1, 1], "numbers"),
        (np.full((3, 2), SECRET), [0.5, 1, 1], "classes"),
        (np.full((3, 2), SECRET), [np.nan, 1, 1], "classes"),
        ([[SECRET], [SECRET, 1.0]], [0, 1], "numbers"),
        (SECRET, 0, "numbers"),
    ],
)
def test_malformed_records_are_refused_without_showing_them(x, y, part):
    with pytest.raises(DataError, match=part) as caught:
        Records.of(x, y, "secret")
    assert "12345" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
