"""The oracle: access, counting, and answers that are not answers; statistics against their formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeward.attacks.oracle import LOG_FLOOR, Oracle, log_softmax, offers
from edgeward.attacks.statistics import STATISTICS, evaluate
from edgeward.core.errors import AccessViolation, ConfigError, ModelError

RECORDS = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_answers_and_counts():
    oracle = Oracle(lambda x: x @ np.eye(3, dtype=np.float32), "confidence")
    assert oracle.labels(RECORDS).tolist() == [2, 2]
    log_p = oracle.log_confidences(RECORDS)
    assert log_p.dtype == torch.float64
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(2).double())
    assert oracle.queries == 4


def test_label_access_hides_confidences_before_asking():
    asked = []
    oracle = Oracle(lambda x: asked.append(x) or x, "label")
    with pytest.raises(AccessViolation, match="'confidence'"):
        oracle.log_confidences(RECORDS)
    assert not asked
    assert oracle.queries == 0
    assert oracle.labels(RECORDS).shape == (2,)


def test_unknown_access_is_named():
    with pytest.raises(ConfigError, match="everything"):
        offers("everything", "label")


@pytest.mark.parametrize("answer", [np.zeros((3, 2)), np.zeros(2), np.zeros((2, 1)), np.zeros((2, 3, 1))])
def test_wrong_shapes_are_refused(answer):
    with pytest.raises(ModelError, match="wrong shape"):
        Oracle(lambda x: answer, "label").labels(RECORDS)


@pytest.mark.parametrize("row", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
def test_answers_that_are_not_numbers_are_refused(row):
    with pytest.raises(ModelError, match="not numbers"):
        Oracle(lambda x: np.array([row, [0.0, 1.0]]), "confidence").log_confidences(RECORDS)


def test_impossible_classes_stay_finite():
    assert log_softmax(torch.tensor([[0.0, -math.inf]]).double()).tolist() == [[0.0, LOG_FLOOR]]


logits = st.lists(st.floats(-12, 12), min_size=3, max_size=6)


@given(logits, st.integers(0, 2))
def test_statistics_are_their_formulas(values, label):
    z = np.array(values)
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    rest = np.delete(p, label)
    expected = {
        "correctness": float(np.argmax(p) == label),
        "loss": np.log(p[label]),
        "entropy": (p * np.log(p)).sum(),
        "modified-entropy": (1 - p[label]) * np.log(p[label]) + (rest * np.log1p(-rest)).sum(),
        "hinge": z[label] - np.delete(z, label).max(),
        "logit": np.log(p[label]) - np.log(rest.sum()),
    }
    log_p = log_softmax(torch.from_numpy(z)[None])
    for name in STATISTICS:
        found = float(evaluate(name, log_p, torch.tensor([label]))[0])
        assert found == pytest.approx(expected[name], rel=1e-6, abs=1e-6), name


def test_logit_does_not_saturate_where_the_probability_does():
    log_p = log_softmax(torch.tensor([[60.0, 0.0, 0.0], [80.0, 0.0, 0.0]]).double())
    labels = torch.zeros(2, dtype=torch.long)
    assert evaluate("loss", log_p, labels).tolist() == [0.0, 0.0]
    assert evaluate("logit", log_p, labels).tolist() == pytest.approx([60 - math.log(2), 80 - math.log(2)])


def test_temperature_softens():
    log_p = log_softmax(torch.tensor([[3.0, 1.0]]).double())
    found = evaluate("loss", log_p, torch.tensor([0]), temperature=2.0)
    assert float(found) == pytest.approx(-math.log1p(math.exp(-1)))


def test_unknown_statistic_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'hinge'"):
        evaluate("hinges", torch.zeros(1, 2).double(), torch.tensor([0]))
