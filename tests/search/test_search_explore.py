"""Explore: failures are recorded, interrupts keep what is measured, broken budgets are not trained."""

import pytest

from edgeward.core import Budget, Cost, Silent
from edgeward.core.errors import ModelError
from edgeward.search import Proposal, Store, explore
from search.search_fixture import candidate, measurement


class Plan:
    """Proposals over a real store, with a list of what was measured."""

    def __init__(self, folder):
        self.store = Store(folder)
        self.trained = []

    def propose(self, recipe, *, size=1000.0, outcome=None, foresee=None, **config):
        one = candidate(recipe, **config)

        def measure():
            self.trained.append((recipe, *config.values()))
            if isinstance(outcome, BaseException):
                raise outcome
            found = measurement(size=size)
            self.store.put(one, found, lambda folder: None)
            return found

        def cost():
            if foresee is not None:
                raise foresee
            return Cost().adding("declared", file_bytes=size)

        return Proposal(one, cost, measure, lambda: self.store.get(one))


def run(proposals, budget=None, on_measured=lambda frontier: None):
    frontier, failures = explore(proposals, budget or Budget(), Silent(), on_measured)
    return [m.candidate.recipe for m in frontier.measured], failures


def test_a_failure_is_recorded_and_the_rest_goes_on(tmp_path):
    plan = Plan(tmp_path)
    broken = ModelError("the loss is not finite", fix="lower the rate")
    uncapturable = ModelError("no place in the graph")
    measured, failures = run(
        [plan.propose("a", outcome=broken), plan.propose("b"), plan.propose("c", foresee=uncapturable)]
    )
    assert measured == ["b"]
    assert [failure.recipe for failure in failures] == ["a", "c"]
    assert "lower the rate" in failures[0].reason
    assert failures[1].to_json()["reason"] == "no place in the graph"


def test_an_error_that_nobody_foresaw_is_not_swallowed(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run([Plan(tmp_path).propose("a", outcome=ZeroDivisionError())])


def test_an_interrupt_keeps_what_is_measured_and_the_rerun_measures_the_rest(tmp_path):
    first = Plan(tmp_path)
    seen = []
    with pytest.raises(KeyboardInterrupt):
        run(
            [first.propose("a"), first.propose("b", outcome=KeyboardInterrupt()), first.propose("c")],
            on_measured=lambda frontier: seen.append(len(frontier.measured)),
        )
    assert seen == [1]
    second = Plan(tmp_path)
    measured, failures = run([second.propose("a"), second.propose("b"), second.propose("c")])
    assert measured == ["a", "b", "c"]
    assert second.trained == [("b",), ("c",)]
    assert not failures


def test_a_declared_violation_is_not_trained(tmp_path):
    plan = Plan(tmp_path)
    measured, failures = run([plan.propose("big", size=5000), plan.propose("small")], Budget(file_bytes=2000))
    assert measured == ["small"]
    assert plan.trained == [("small",)]
    assert "file_bytes at most" in failures[0].reason


def test_when_nothing_fits_the_nearest_is_measured(tmp_path):
    plan = Plan(tmp_path)
    proposals = [plan.propose("prune", size=s, step=s) for s in (9000, 4000, 7000)]
    measured, failures = run(proposals, Budget(file_bytes=2000))
    assert measured == ["prune"]
    assert plan.trained == [("prune", 4000)]
    assert len(failures) == 2, "the variants that were not measured are still named"


def test_a_failing_nearest_is_recorded_too(tmp_path):
    plan = Plan(tmp_path)
    measured, failures = run(
        [plan.propose("big", size=9000), plan.propose("less", size=3000, outcome=ModelError("cannot be built"))],
        Budget(file_bytes=2000),
    )
    assert not measured
    assert [failure.recipe for failure in failures] == ["big", "less"]
    assert failures[1].reason == "cannot be built"


def test_a_measured_candidate_is_recalled_even_against_the_budget(tmp_path):
    run([Plan(tmp_path).propose("big", size=5000)])
    plan = Plan(tmp_path)
    measured, failures = run([plan.propose("big", size=5000), plan.propose("small")], Budget(file_bytes=2000))
    assert measured == ["big", "small"]
    assert not failures
    assert plan.trained == [("small",)]


def test_no_proposals_measure_nothing(tmp_path):
    assert run([]) == ([], ())
