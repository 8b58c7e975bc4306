"""Rows of the split tables meet targets by records of their own; the holdout only says whether that holds."""

from benchmarks.tee_cases import Case, Settings
from benchmarks.tee_targets import targets


def row(name, *, choosing, holdout, ratio=1.0, ratio_choosing=1.0, overhead=0.2):
    budget = {"ratio_to_black_box": {"value": ratio}, "choosing": {"value": ratio_choosing}}
    return {
        "strategy": f"mirrornet-{name}",
        "accuracy_choosing": choosing,
        "accuracy": holdout,
        "overhead_batch": overhead,
        "stealing": [budget],
        "audit": {"gap": None, "standing": "confidential"},
    }


VICTIM = {"choosing": 0.92, "holdout": 0.91}


def test_the_least_overhead_among_those_that_the_choosing_records_allow():
    rows = [
        row("cheap", choosing=0.88, holdout=0.92, overhead=0.1),
        row("stolen", choosing=0.92, holdout=0.92, ratio_choosing=1.3, overhead=0.15),
        row("sound", choosing=0.91, holdout=0.90, overhead=0.2),
        row("dear", choosing=0.92, holdout=0.92, overhead=0.3),
    ]
    assert targets(rows, VICTIM)["black_box_level"] == {
        "row": "mirrornet-sound",
        "met": True,
        "shown": "confidential",
    }


def test_a_row_that_was_lucky_where_it_was_chosen_does_not_meet_the_target():
    for lucky in (row("lucky", choosing=0.92, holdout=0.88), row("lucky", choosing=0.92, holdout=0.92, ratio=1.2)):
        found = targets([lucky, row("honest", choosing=0.89, holdout=0.92)], VICTIM)["black_box_level"]
        assert found["row"] == "mirrornet-lucky"
        assert not found["met"]
    assert targets([], VICTIM)["black_box_level"] == {"row": None, "met": False, "shown": None}


def test_the_records_that_choose_are_no_judges():
    resnet = Settings().resnet
    assert isinstance(resnet, Case)
    assert 0 < resnet.choosing < resnet.holdout
