"""Frontier, hyper-volume, choice and the nearest miss."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.core import Budget, Frontier, Measured
from edgeward.core.errors import NoFeasibleCandidate
from edgeward.core.frontier import dominates, hypervolume, non_dominated
from search.search_fixture import candidate, measurement


def points(dimensions, low=0, high=5, most=7):
    return st.lists(st.tuples(*[st.integers(low, high)] * dimensions), max_size=most)


@given(data=st.data(), dimensions=st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_hypervolume_counts_the_cells_of_the_grid(data, dimensions):
    found = data.draw(points(dimensions))
    cells = itertools.product(range(4), repeat=dimensions)
    count = sum(any(all(p[d] <= cell[d] for d in range(dimensions)) for p in found) for cell in cells)
    assert hypervolume(found, (4,) * dimensions) == count


@given(first=points(3), more=points(3))
@settings(max_examples=100, deadline=None)
def test_hypervolume_never_falls_when_points_are_added(first, more):
    before, after = hypervolume(first, (4, 4, 4)), hypervolume([*first, *more], (4, 4, 4))
    assert before <= after <= 64
    front = [first[i] for i in non_dominated(first)]
    assert hypervolume(front, (4, 4, 4)) == before


@given(found=points(3, most=12))
@settings(max_examples=100, deadline=None)
def test_non_dominated_is_what_no_other_point_beats(found):
    kept = non_dominated(found)
    for i, p in enumerate(found):
        beaten = any(all(q[d] <= p[d] for d in range(3)) and q != p for q in found)
        assert (i in kept) == (not beaten)
    assert bool(kept) == bool(found)
    assert not any(dominates(found[i], found[j]) for i in kept for j in kept)


def frontier(*rows, budget=None):
    return Frontier(tuple(Measured(candidate(name), made) for name, made in rows), budget or Budget())


def names(measured):
    return [m.candidate.recipe for m in measured]


def test_members_are_feasible_and_not_dominated():
    made = frontier(
        ("accurate", measurement(0.95, 4000, 0.5)),
        ("small", measurement(0.90, 500, 0.4)),
        ("worse", measurement(0.89, 600, 0.4)),
        ("private", measurement(0.80, 4000, 0.0)),
        ("huge", measurement(0.99, 90_000, 0.0)),
        budget=Budget(file_bytes=5000),
    )
    assert names(made.feasible()) == ["accurate", "small", "worse", "private"]
    assert names(made.members()) == ["accurate", "small", "private"]
    assert made.on_frontier(candidate("small"))
    assert not made.on_frontier(candidate("worse"))
    assert not made.on_frontier(candidate("huge"))
    assert 0 < made.hypervolume() < 1
    assert frontier().hypervolume() == 0.0


def test_the_choice_looks_at_validation_and_not_at_the_holdout():
    """The holdout's winner loses when validation disagrees: the holdout only reports."""
    made = frontier(
        ("holdout-winner", measurement(0.99, 1000, 0.1, validation=0.80)),
        ("validation-winner", measurement(0.85, 1000, 0.3, validation=0.90)),
        ("close-and-private", measurement(0.70, 2000, 0.2, validation=0.895)),
    )
    assert made.choose().candidate.recipe == "close-and-private"


def test_equal_leakage_is_decided_by_size():
    made = frontier(("large", measurement(0.9, 2000, 0.1)), ("small", measurement(0.9, 1000, 0.1)))
    assert made.choose().candidate.recipe == "small"


def test_no_feasible_candidate_names_the_binding_limit_and_the_nearest_miss():
    made = frontier(
        ("far", measurement(0.95, 4000, 0.5)),
        ("near", measurement(0.95, 1000, 0.12)),
        budget=Budget(file_bytes=2000, tpr_at_1pct="10%"),
    )
    with pytest.raises(NoFeasibleCandidate) as caught:
        made.choose()
    error = caught.value
    assert error.exit_code == 2
    assert error.expected == "tpr_at_1pct at most 10.00%"
    assert "near with tpr_at_1pct = 12.00% (20% off)" in error.came
    assert "relax tpr_at_1pct" in error.fix
    assert not made.members()


def test_nothing_measured_is_said_so():
    with pytest.raises(NoFeasibleCandidate, match="nothing was measured"):
        frontier().choose()


def test_what_was_not_measured_meets_no_limit():
    unaudited = frontier(("a", measurement(0.9, 100, None)), budget=Budget(tpr_at_1pct=1.0))
    without_latency = frontier(("a", measurement(0.9, 100, 0.0)), budget=Budget(latency="1000s"))
    for made in (unaudited, without_latency):
        assert not made.feasible()
        with pytest.raises(NoFeasibleCandidate):
            made.choose()
    measured = frontier(("a", measurement(0.9, 100, 0.0, device_latency_seconds=0.01)), budget=Budget(latency="20ms"))
    assert names(measured.feasible()) == ["a"]
    assert math.isnan(measurement(leakage=None).value("auc"))
