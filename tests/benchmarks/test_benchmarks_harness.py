"""The benchmark harness: found by source, complete results, and names that exist."""

import json
import math

import numpy as np
import pytest
from benchmarks.__main__ import main
from benchmarks.harness import FOLDER, Benchmark, faults, find, named
from benchmarks.storing import save

from edgeward.core.errors import UserError


def test_benchmarks_are_found_without_running_them(tmp_path):
    (tmp_path / "quick.py").write_text('NAME = "quick"\nDESCRIPTION: str = "fast"\nraise SystemExit("imported")\n')
    (tmp_path / "other.py").write_text("x = 1\n")
    assert find(tmp_path) == {"quick": Benchmark("quick", "fast", f"{tmp_path.name}.quick")}


def test_every_benchmark_here_has_a_description():
    known = find()
    assert "rmia" in known
    assert all(benchmark.description for benchmark in known.values())
    assert "harness" not in known


def test_an_unknown_name_is_1_with_a_suggestion(capsys):
    assert main(["rmai"]) == 1
    assert "did you mean 'rmia'?" in capsys.readouterr().err
    assert main(["--no-such-flag"]) == 1


def test_the_list(capsys):
    assert main(["--list"]) == 0
    assert "rmia: " in capsys.readouterr().out
    assert main(["--list", "--json"]) == 0
    assert {entry["name"] for entry in json.loads(capsys.readouterr().out)} == set(find())


@pytest.fixture
def quick(tmp_path, monkeypatch):
    (tmp_path / "quick_benchmark.py").write_text(
        'NAME = "quick"\n'
        "def run():\n"
        "    print('chatter')\n"
        '    return {"ratio": 2.0, "ours": 1.0, "peer": 2.0, "unit": "s"}\n'
    )
    (tmp_path / "lacking_benchmark.py").write_text("def run():\n    return {'ratio': 1.0}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return Benchmark("quick", "", "quick_benchmark")


def test_a_result_says_where_and_when(quick, tmp_path):
    result = quick.run()
    assert result["name"] == "quick"
    assert result["environment"]["python"]
    assert len(result["date"]) == 10
    path = save(result, tmp_path / "results")
    assert json.loads(path.read_text())["ratio"] == 2.0
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["quick.json"]


def test_an_incomplete_result_is_refused(quick):
    with pytest.raises(UserError, match="no ours, no peer, no unit"):
        Benchmark("lacking", "", "lacking_benchmark").run()


SOUND = {"ratio": 2, "ours": np.float32(1.5), "peer": 3.0, "unit": "s"}


@pytest.mark.parametrize("wrong", [{}, {"a": 1}, [1.0], "1.0", True, math.nan, math.inf, None])
@pytest.mark.parametrize("key", ["ratio", "ours", "peer"])
def test_figures_are_one_finite_number_each(key, wrong):
    assert faults(SOUND) == []
    (fault,) = faults({**SOUND, key: wrong})
    assert key in fault


@pytest.mark.parametrize("wrong", [None, "", 3, {"s": 1}])
def test_a_unit_is_a_text(wrong):
    (fault,) = faults({**SOUND, "unit": wrong})
    assert "unit" in fault


def test_every_stored_result_has_that_shape():
    stored = {path.stem: json.loads(path.read_text()) for path in (FOLDER / "results").glob("*.json")}
    wrong = {name: faults(one) for name, one in stored.items() if not name.startswith("claims-")}
    assert not {name: found for name, found in wrong.items() if found}


def test_json_is_one_document(quick, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.__main__.find", lambda: {"quick": quick})
    assert main(["quick", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["ratio"] == 2.0
    assert json.loads(captured.out)["seconds_of_the_run"] >= 0
    assert "chatter" in captured.err
    assert main(["--all"]) == 0
    assert "quick: ratio 2" in capsys.readouterr().out


def test_stored_results_name_their_machine():
    for path in (FOLDER / "results").glob("*.json"):
        stored = json.loads(path.read_text())
        assert stored["name"] == path.stem
        assert stored["environment"]
        claim = stored["name"].removeprefix("claims-")
        if claim != stored["name"]:
            assert (FOLDER / "claims" / f"{claim}.toml").exists()
        else:
            assert named(stored["name"], find())
