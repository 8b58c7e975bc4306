"""The estimate of the time left: nothing before the first candidate, in proportion to passes after it."""

from itertools import chain, repeat

import pytest

from edgeward.core import Budget, Watcher
from edgeward.core.errors import ModelError
from edgeward.search import Proposal, Store, explore
from edgeward.search.estimate import Pace, about
from search.search_fixture import candidate, measurement


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Notes(Watcher):
    """Remembers what is said of each step of the candidates."""

    def __init__(self):
        self.notes = []

    def step(self, task, done, total, note=""):
        self.notes.append(note)

    def event(self, name, fields):
        pass


def ran(folder, *plans):
    """Explore candidates of (recipe, passes, seconds, error) on a clock that only they move; return the notes."""
    clock, notes, store = Clock(), Notes(), Store(folder)

    def proposal(recipe, passes, seconds, error=None):
        one = candidate(recipe)

        def measure():
            clock.now += seconds
            if error:
                raise error
            found = measurement(size=1000.0)
            store.put(one, found, lambda place: None)
            return found

        return Proposal(one, lambda: measurement(size=1000.0).cost, measure, lambda: store.get(one), passes)

    explore([proposal(*plan) for plan in plans], Budget(), notes, lambda frontier: None, clock)
    return notes.notes


def test_after_each_candidate_the_rest_is_told_by_its_passes(tmp_path):
    notes = ran(tmp_path, ("a", 60.0, 30.0), ("b", 60.0, 90.0), ("c", 360.0, 5.0), ("d", 40.0, 1.0))
    # 460 passes at 0.5 s; 400 at 1 s, of 120 in 120 s; 40 at 125/480 s
    assert notes == ["a", "b, about 4 min left", "c, about 7 min left", "d, about 10 s left", "done"]


def test_what_is_recalled_neither_counts_nor_is_waited_for(tmp_path):
    ran(tmp_path, ("a", 60.0, 30.0), ("c", 600.0, 5.0))
    assert ran(tmp_path, ("a", 60.0, 0.0), ("b", 60.0, 60.0), ("c", 600.0, 0.0), ("d", 30.0, 9.0)) == [
        "a",
        "b",
        "c, about 30 s left",
        "d, about 30 s left",
        "done",
    ]


def test_a_failure_says_nothing_about_the_pace(tmp_path):
    failed = ModelError("no", fix="none")
    notes = ran(tmp_path, ("a", 60.0, 500.0, failed), ("b", 60.0, 60.0), ("c", 60.0, 500.0, failed), ("d", 60.0, 0.0))
    assert notes == ["a", "b", "c, about 2 min left", "d, about 60 s left", "done"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "about 10 s"),
        (94.9, "about 90 s"),
        (95.0, "about 2 min"),
        (5699.0, "about 95 min"),
        (5700.0, "about 1.5 h"),
    ],
)
def test_estimates_are_as_coarse_as_they_are_sure(seconds, text):
    assert about(seconds) == text


def test_a_pace_without_a_candidate_is_silent():
    pace = Pace(chain([0.0], repeat(5.0)).__next__)
    assert pace.left([1.0]) == ""
    pace.start()
    pace.finish(0.0)
    assert pace.left([1.0]) == ""
