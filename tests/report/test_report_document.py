"""The document: it conforms to its schema, holds no records, and is written whole or not at all."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from report_fixture import NEGATIVES, RUNS, attack, frontier, make_report, strongest

from edgeward.core import Budget
from edgeward.core.errors import ConfigError, DataError
from edgeward.core.frontier import Frontier
from edgeward.core.measurement import Measurement
from edgeward.report import build_report, read_report, report_json, schema, write_report
from edgeward.report import document as document_module
from edgeward.report.curves import with_kept_curves


def small(**changes: Any) -> dict[str, Any]:
    return make_report(frontier=frontier(runs=RUNS[5:6]), **changes)


def test_a_report_conforms_to_its_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.Draft202012Validator(schema()).validate(json.loads(report_json(make_report())))


def test_a_report_says_what_the_frontier_says() -> None:
    report, reference = make_report(), frontier()
    assert report["chosen"] == reference.choose().candidate.digest
    assert [c["recipe"] for c in report["candidates"] if c["feasible"]] == ["gecko:paper", "gecko:crossfit", "dp_sgd"]
    assert {c["id"] for c in report["candidates"] if c["on_frontier"]} == {
        m.candidate.digest for m in reference.members()
    }
    assert report["hypervolume"] == pytest.approx(reference.hypervolume())
    assert report["candidates"][0]["violations"] == ["TPR at 1 % FPR at most 5.0 %: came 31.2 %"]
    assert report["mode"] == "host"


def test_every_measurement_can_be_read_back() -> None:
    for entry, run in zip(make_report()["candidates"], frontier().measured, strict=True):
        bare = tuple(replace(attack, roc=()) for attack in run.measurement.attacks)
        back = Measurement.from_json({**entry, "attacks": [{**a, "roc": []} for a in entry["attacks"]]})
        assert back == replace(run.measurement, attacks=bare)
        assert entry["strongest_attack"]["negatives"] == NEGATIVES


def test_an_infeasible_budget_chooses_nothing() -> None:
    report = make_report(Budget(file_bytes=10))
    assert report["chosen"] is None
    assert not any(c["feasible"] or c["chosen"] for c in report["candidates"])
    assert all(c["violations"] for c in report["candidates"])


def test_an_empty_run_is_still_a_report() -> None:
    report = make_report(frontier=Frontier((), Budget()), finished=False)
    assert (report["chosen"], report["mode"], report["hypervolume"]) == (None, "none", 0.0)


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    report = small(job={"seed": 0, "learning_rate": float("nan"), "limit": float("inf")})
    write_report(tmp_path, report)
    text = (tmp_path / "report.json").read_text()
    assert json.loads(text)["job"] == {"seed": 0, "learning_rate": None, "limit": None}
    assert "NaN" not in text
    assert "Infinity" not in text


@pytest.mark.parametrize(
    "smuggled",
    [
        torch.zeros(3),
        np.zeros((2, 2)),
        b"record",
        {1, 2},
        [0.5] * 129,
        "x" * 20_001,
        Path("x"),
        {"deep": {"deeper": [torch.zeros(1)]}},
        {3: "a key that is no text"},
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_could_hold_records_is_refused(smuggled: object) -> None:
    with pytest.raises(DataError, match=r"data\.sample") as caught:
        make_report(data={"name": "digits", "sample": smuggled})
    assert caught.value.fix


def test_every_refused_place_is_named_at_once() -> None:
    with pytest.raises(DataError, match="2 values") as caught:
        make_report(job={"a": torch.zeros(1), "b": b"x", "fine": np.float32(1.5)})
    assert "report.job.a" in str(caught.value)
    assert "report.job.b" in str(caught.value)


def test_the_three_files_are_written_and_repeat_byte_for_byte(tmp_path: Path) -> None:
    first = write_report(tmp_path / "a" / "b", small())
    second = write_report(tmp_path / "c", small())
    assert [p.name for p in first] == ["report.json", "report.html", "CARD.md"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["CARD.md", "report.html", "report.json"]
    assert read_report(tmp_path / "c") == json.loads(report_json(small()))


def test_only_the_best_curve_of_each_family_is_kept() -> None:
    names = ("lira-online", "lira-offline", "rmia", "loss", "hinge-per-class", "gap")
    long = tuple((i / 200, min(1.0, i / 190)) for i in range(201))
    attacks = [replace(attack(name, 0.3 - 0.01 * i, 0.8), roc=long) for i, name in enumerate(names)]
    attacks += [replace(attack(name, 0.1, 0.6, "natural"), roc=long) for name in ("rmia", "gap")]
    measurement = replace(
        frontier().measured[0].measurement,
        attacks=tuple(attacks),
        kinds=(),
        worst=strongest("mislabelled", "lira-online", 0.3),
    )
    entry = with_kept_curves(measurement.to_json())
    assert [len(a["roc"]) for a in entry["attacks"]] == [201, 0, 64, 64, 0, 64, 64, 0]
    assert entry["strongest_attack"]["roc"] == entry["attacks"][0]["roc"]
    assert entry["attacks"][2]["roc"][0] == [0.0, 0.0]
    assert entry["attacks"][2]["roc"][-1] == [1.0, 1.0]
    assert entry["attacks"][0]["roc"][1] == [0.005, 0.00526316]


def test_pairs_stand_on_one_line_and_text_is_left_alone() -> None:
    job = {"seed": 0, "note": "[\n 1,\n 2\n]", "shape": [1, 2, 3]}
    text = report_json(small(job=job))
    assert json.loads(text)["job"] == job
    assert "[0.0, 0.0]" in text


def test_keys_are_sorted(tmp_path: Path) -> None:
    parsed = json.loads(report_json(make_report()))
    assert list(parsed) == sorted(parsed)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(tmp_path, small())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(document_module.Path, "replace", full)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(tmp_path, small(finished=False))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_invalid_report_touches_no_file(tmp_path: Path) -> None:
    report = make_report()
    del report["candidates"][0]["cost"]
    with pytest.raises(DataError, match="'cost' is missing"):
        write_report(tmp_path / "run", report)
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(tmp_path / "run", small())


def test_build_needs_no_report_text_from_the_caller() -> None:
    assert set(build_report.__kwdefaults__ or {}) == set()
    assert len(make_report()["candidates"]) == len(RUNS)
