"""Explore: failures are recorded, interrupts keep what is measured, broken budgets are not trained."""

import dataclasses
import gc
import weakref

import pytest

from edgeward.core import Budget, Cost, Silent
from edgeward.core.errors import EdgewardError, ModelError
from edgeward.search import Failure, Proposal, Store, explore
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


class Odd(Exception):
    """An error whose message cannot be had."""

    def __str__(self):
        raise ValueError("no words")


CRASHES = [
    ZeroDivisionError("division by zero"),
    MemoryError(),
    RecursionError("maximum recursion depth exceeded"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    AssertionError(),
    KeyError("weight"),
    StopIteration(),
    OSError(28, "No space left on device"),
    EdgewardError("a fault of our own"),
    Odd(),
]


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: type(crash).__name__)
@pytest.mark.parametrize("where", ["outcome", "foresee"])
def test_whatever_a_recipe_raises_the_others_go_on(crash, where, tmp_path):
    plan = Plan(tmp_path)
    seen = []
    measured, failures = run(
        [plan.propose("a"), plan.propose("b", **{where: crash}), plan.propose("c")],
        on_measured=lambda frontier: seen.append(len(frontier.measured)),
    )
    assert measured == ["a", "c"]
    assert seen == [1, 2]
    (failure,) = failures
    assert failure.recipe == "b"
    assert failure.internal
    assert type(crash).__name__ in failure.reason
    assert "test_search_explore.py" in failure.trace
    assert failure.to_json() == {"recipe": "b", "reason": failure.reason}


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_ends_the_run(ending, tmp_path):
    plan = Plan(tmp_path)
    with pytest.raises(ending):
        run([plan.propose("a", outcome=ending()), plan.propose("b")])
    assert plan.trained == [("a",)]


def test_a_refusal_is_no_internal_error(tmp_path):
    _, (failure,) = run([Plan(tmp_path).propose("a", outcome=ModelError("no place", fix="change it"))])
    assert not failure.internal
    assert not failure.trace


def test_a_report_that_cannot_be_written_is_no_recipes_failure(tmp_path):
    def full(frontier):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        run([Plan(tmp_path).propose("a")], on_measured=full)


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("expected [1, 16, 1, 1] elements", "expected [1, 16, 1, 1] elements"),
        ("bad row [0.25, 1.5]", "bad row [...]"),
        ("bad row tensor([[0.25, 1.5], [2.0, 3.0]]) here", "bad row [...] here"),
        ("bad row array([1, 2, 3, 4, 5, 6, 7, 8, 9])", "bad row [...]"),
        ("bad row tensor([[0.25, 1.5,", "bad row [...]"),
        ("bad row (nan, -1e-5)", "bad row [...]"),
        ("no file /home/me/secret/net.py or C:\\Users\\me\\x.pt", "no file net.py or x.pt"),
        ("first\nsecond tensor(3.5)", "first"),
        ("", "no message"),
        ("x" * 1000, "x" * 300),
        ("\x1b[31mred", "[31mred"),
    ],
)
def test_unforeseen_messages_hold_no_values_and_no_paths(message, kept):
    assert Failure.of("a", ValueError(message)).reason == f"internal error: ValueError: {kept}"


def test_a_failure_keeps_no_tensor_alive(tmp_path):
    class Large:
        pass

    kept = []

    def measure():
        large = Large()
        kept.append(weakref.ref(large))
        raise MemoryError

    plan = Plan(tmp_path)
    proposal = dataclasses.replace(plan.propose("a"), measure=measure)
    run([proposal])
    gc.collect()
    assert kept[0]() is None


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
