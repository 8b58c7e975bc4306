"""Utility: exact counts and intervals, and every unusable answer or label refused."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from edgeward.backends.executable import Executable
from edgeward.core.errors import DataError, ModelError
from edgeward.measure.utility import accuracy, confusion, logits, per_class_accuracy


class Identity(Executable):
    """Answers with its input."""

    runtime: ClassVar[str] = "identity"

    def run(self, records):
        return records


def one_hot(predictions, classes):
    return np.eye(classes, dtype=np.float32)[predictions]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_agrees_with_reference_implementations(pairs):
    labels, predictions = (np.array(column) for column in zip(*pairs, strict=True))
    answers = one_hot(predictions, 4)
    correct = int((labels == predictions).sum())
    estimate = accuracy(Identity(), answers, labels)
    assert (estimate.value, estimate.n) == (correct / len(pairs), len(pairs))
    reference = binomtest(correct, len(pairs)).proportion_ci(0.95, "exact")
    assert (estimate.low, estimate.high) == pytest.approx((reference.low, reference.high), abs=1e-9)
    counts = confusion(Identity(), answers, labels)
    assert (counts == confusion_matrix(labels, predictions, labels=range(4))).all()
    for label, own in enumerate(per_class_accuracy(counts)):
        assert (own is None) == (label not in labels)
        if own is not None:
            assert own.value == (predictions[labels == label] == label).mean()


def test_tensors_chunks_and_plain_functions_give_the_same():
    x = torch.randn(25, 3, generator=torch.Generator().manual_seed(0))
    y = torch.arange(25) % 3
    assert accuracy(Identity(), x, y) == accuracy(lambda records: records, x.numpy(), y.numpy())
    assert (logits(Identity(), x, chunk=4) == x.numpy()).all()


@pytest.mark.parametrize("poison", [[np.nan, 0, 0], [np.inf, 0, 0], [-np.inf] * 3])
def test_unusable_logits_name_the_record(poison):
    x = np.zeros((5, 3), dtype=np.float32)
    x[3] = poison
    with pytest.raises(ModelError, match=r"1 of 1 records[\s\S]*record 3"):
        logits(Identity(), x, chunk=1)
    with pytest.raises(ModelError, match="1 of 5 records"):
        accuracy(Identity(), x, np.zeros(5, dtype=int))


def test_a_class_that_never_answers_is_allowed():
    x = np.array([[0.0, -np.inf], [1.0, -np.inf]], dtype=np.float32)
    assert accuracy(Identity(), x, np.zeros(2, dtype=int)).value == 1.0


@pytest.mark.parametrize("wrong", [lambda r: r[:, 0], lambda r: r[:-1], lambda r: r.sum(), lambda r: r[:, :0]])
def test_answers_of_the_wrong_shape(wrong):
    with pytest.raises(ModelError, match="one row of logits per record"):
        accuracy(wrong, np.zeros((4, 3), dtype=np.float32), np.zeros(4, dtype=int))


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 1, -1, 2], [0, 1, 2], [0.0, 1.0, 2.0, 0.0], [[0], [1], [2], [0]]])
def test_labels_that_do_not_fit(labels):
    with pytest.raises(DataError, match="labels do not fit"):
        accuracy(Identity(), np.zeros((4, 3), dtype=np.float32), np.array(labels))


def test_no_records():
    with pytest.raises(DataError, match="no records"):
        accuracy(Identity(), np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=int))
