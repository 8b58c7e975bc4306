"""The look after every test at what it left in its process finds each kind, and nothing where nothing was left."""

import contextlib
import os
import signal
import sys
import threading

import pytest
import torch

from left_behind import differences, state


def leaves_an_exception_being_handled():
    """Interrupt, by a trace function, the line that leaves an `except` clause."""

    def clause():
        try:
            raise LookupError("left")
        except LookupError:
            return 0

    def trace(frame, event, argument):
        if frame.f_code is not clause.__code__:
            return None
        if event == "line" and frame.f_lineno == clause.__code__.co_firstlineno + 4:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    with contextlib.suppress(KeyboardInterrupt):
        clause()


def hear(number):
    signal.signal(number, lambda *_: None)


KINDS = {
    "working directory": (lambda: os.chdir("/"), os.chdir),
    "environment": (
        lambda: os.environ.update(EDGEWARD_LEFT="1"),
        lambda _: os.environ.pop("EDGEWARD_LEFT"),
    ),
    "signal handlers": (
        lambda: hear(signal.SIGTERM),
        lambda was: signal.signal(signal.SIGTERM, was[signal.SIGTERM]),
    ),
    "trace function": (lambda: sys.settrace(lambda *_: None), sys.settrace),
    "torch threads": (lambda: torch.set_num_threads(torch.get_num_threads() + 1), torch.set_num_threads),
    "torch default type": (lambda: torch.set_default_dtype(torch.float64), torch.set_default_dtype),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_and_named(kind):
    leave, restore = KINDS[kind]
    before = state()
    leave()
    try:
        found = differences(before, state())
    finally:
        restore(before[kind])
    assert [line.split(":")[0] for line in found] == [kind]
    assert differences(before, state()) == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="before 3.11 the clause's exception is always taken off")
def test_an_exception_that_stays_being_handled_is_found():
    found = []

    def run():
        before = state()
        leaves_an_exception_being_handled()
        found.extend(differences(before, state()))
        try:
            raise ValueError("later")
        except ValueError as error:
            found.append(error.__context__)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert [type(one) for one in found] == [str, LookupError]
    assert found[0].startswith("exception being handled: None before, LookupError('left')")
    assert sys.exc_info() == (None, None, None)


def test_values_of_the_environment_are_not_shown(monkeypatch):
    before = state()
    monkeypatch.setenv("EDGEWARD_LEFT", "a secret")
    assert differences(before, state()) == ["environment: EDGEWARD_LEFT"]


def test_a_variable_changed_or_taken_away_is_found_and_one_that_a_library_sets_is_not(monkeypatch):
    monkeypatch.setenv("SOME_LIBRARY", "1")
    before = state()
    monkeypatch.setenv("ANOTHER_LIBRARY", "1")
    assert differences(before, state()) == []
    for change in (lambda: monkeypatch.setenv("SOME_LIBRARY", "2"), lambda: monkeypatch.delenv("SOME_LIBRARY")):
        change()
        assert differences(before, state()) == ["environment: SOME_LIBRARY"]
