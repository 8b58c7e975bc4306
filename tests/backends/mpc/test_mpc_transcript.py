"""What a party of an inference receives, over many fresh deals: uniform bytes, whatever the input and the model."""

import numpy as np
import pytest
from scipy import stats
from torch import nn

from edgeward import mpc
from edgeward.backends.mpc.inference.plan import RESULT
from edgeward.backends.mpc.inference.session import Session
from edgeward.backends.mpc.offline.tuples import Dealer
from edgeward.backends.mpc.rehearsal import run_two

RUNS, RECORDS = 16, 8
NET = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)).eval()
LOWERED = mpc.lowered(NET, (1, 6, 6), RECORDS)
INPUTS = {
    "zeros": np.zeros((RECORDS, 1, 6, 6)),
    "ones": np.ones((RECORDS, 1, 6, 6)),
    "large": np.full((RECORDS, 1, 6, 6), -37.25),
}
MODELS = {"given": LOWERED.model, "zeros": {name: np.zeros_like(w) for name, w in LOWERED.model.items()}}


def views(x, model):
    """Return the bytes each party receives in every message, over `RUNS` runs on one input with fresh material."""
    plan, seen = LOWERED.plan, ({}, {})
    for _ in range(RUNS):
        supplies = Dealer(plan.ring).supplies([*plan.setup, *plan.demands])

        def program(party, supplies=supplies):
            session = Session(party, plan, supplies[party.number], None if party.first else model)
            return session.run(session.prepare(), x if party.first else None)

        outcome = run_two(plan.ring, program)
        for view, messages in zip(seen, outcome.received, strict=True):
            for message in messages:
                view[message.label] = view.get(message.label, b"") + message.array.tobytes()
    return seen


@pytest.fixture(scope="module")
def all_views():
    given = {(name, "given"): views(x, MODELS["given"]) for name, x in INPUTS.items()}
    return given | {("ones", "zeros"): views(INPUTS["ones"], MODELS["zeros"])}


def counted(data):
    return np.bincount(np.frombuffer(data, np.uint8), minlength=256)


def test_every_message_is_uniform(all_views):
    tested = 0
    for seen in all_views.values():
        for number, view in enumerate(seen):
            for label, data in view.items():
                # The owner of the model is sent zeros where the other learns the answer.
                if label == RESULT and number == 1:
                    assert not any(data)
                elif len(data) >= 1280:
                    tested += 1
                    assert stats.chisquare(counted(data)).pvalue > 1e-9, label
    assert tested > 60


def test_what_a_party_receives_does_not_tell_inputs_or_models_apart(all_views):
    first = all_views["zeros", "given"]
    for other in (key for key in all_views if key != ("zeros", "given")):
        for number in (0, 1):
            for label, data in first[number].items():
                if label != RESULT and len(data) >= 1280:
                    table = np.stack([counted(data), counted(all_views[other][number][label])])
                    assert stats.chi2_contingency(table[:, table.any(0)]).pvalue > 1e-9, label


def test_the_shares_of_the_answer_are_uniform_and_the_answer_is_not(all_views):
    """The test can fail: the value that the client computes from a uniform share repeats in every run."""
    shares = np.frombuffer(all_views["ones", "given"][0][RESULT], np.uint64)
    assert len(set(shares.tolist())) == len(shares)
