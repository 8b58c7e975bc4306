"""Running many benchmarks: one that fails does not end the run, slow ones are asked for, dirty trees store nothing."""

import json

import benchmarks.__main__ as running
import pytest
from benchmarks.__main__ import main
from benchmarks.harness import Benchmark, find

from benchmarks import storing
from edgeward.core.errors import UserError

GOOD = 'return {"ratio": 2.0, "ours": 1.0, "peer": 2.0, "unit": "s"}'
BODIES = {
    "first": GOOD,
    "raises": 'raise LookupError("no such thing")',
    "asserts": "assert 1 == 2",
    "leaves": 'raise SystemExit("left")',
    "told": 'from edgeward.core.errors import UserError; raise UserError("a peer lacks", fix="install it")',
    "shape": 'return {"ratio": 2.0, "ours": {"exp": 1.0}, "peer": {}, "unit": "s"}',
    "last": GOOD,
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def several(tmp_path, monkeypatch):
    """Benchmarks of which all but the first and the last fail, each in its way, in a clean tree of its own."""
    for name, body in BODIES.items():
        (tmp_path / f"several_{name}.py").write_text(f"def run():\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    known = {name: Benchmark(name, "", f"several_{name}") for name in BODIES}
    monkeypatch.setattr(running, "find", lambda: known)
    monkeypatch.setattr(running, "ASIDE", tmp_path / "aside")
    monkeypatch.setattr(storing.save, "__defaults__", (tmp_path / "results",))
    return known


@pytest.fixture
def tree(monkeypatch):
    """Set what the sources are said to be: at each look the next of the given, then the last for ever."""

    def given(*commits):
        left = list(commits)
        monkeypatch.setattr(
            "edgeward.measure.fingerprint.source_commit", lambda root=None: left.pop(0) if len(left) > 1 else left[0]
        )

    given(COMMIT)
    return given


def test_failures_are_told_at_the_end_and_the_others_run(several, capsys):
    assert main(["--all"]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [f"{name}: ratio 2 (ours 1 s, peer 2 s)" for name in ("first", "last")]
    told = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert [line.split("'")[1] for line in told] == list(BODIES)[1:-1]
    assert "LookupError: no such thing" in told[0]
    assert captured.err.splitlines()[-1] == "2 of 7 benchmarks ran through"
    assert "Traceback" in captured.err


def test_one_document_tells_results_and_failures(several, capsys):
    assert main(["--all", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(BODIES)
    assert [row["name"] for row in rows if "failed" in row] == list(BODIES)[1:-1]
    assert main(["raises", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == "LookupError: no such thing"


def test_what_ran_through_is_stored_though_others_fail(several, tree, tmp_path):
    assert main(["--all", "--save"]) == 1
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["first.json", "last.json"]
    assert main(["first", "last", "--save"]) == 0


def test_an_interrupt_ends_the_run_and_keeps_what_was_stored(several, tree, tmp_path, monkeypatch, capsys):
    def interrupted(self):
        raise KeyboardInterrupt

    assert main(["first", "--save"]) == 0
    monkeypatch.setattr(Benchmark, "run", interrupted)
    assert main(["--all", "--save"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["first.json"]


@pytest.mark.parametrize("commit", [f"{COMMIT}+changed", None])
def test_nothing_runs_in_a_changed_tree_that_would_be_stored(several, tree, tmp_path, monkeypatch, capsys, commit):
    def early(self):
        raise AssertionError("it ran before the tree was looked at")

    tree(commit)
    monkeypatch.setattr(Benchmark, "run", early)
    assert main(["first", "--save"]) == 1
    assert "may not be stored" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_changed_tree_may_be_allowed_and_marks_the_result(several, tree, tmp_path):
    tree(f"{COMMIT}+changed")
    assert main(["first", "--save", "--allow-dirty"]) == 0
    stored = json.loads((tmp_path / "results" / "first.json").read_text())
    assert stored["environment"]["commit"] == f"{COMMIT}+changed"


def test_without_save_a_changed_tree_is_no_matter(several, tree):
    tree(f"{COMMIT}+changed")
    assert main(["first"]) == 0


def test_sources_that_change_while_it_runs_put_the_result_aside(several, tree, tmp_path, capsys):
    tree(COMMIT, f"{COMMIT}+changed")
    assert main(["first", "--save"]) == 1
    assert "were changed while it ran" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
    assert json.loads((tmp_path / "aside" / "first.json").read_text())["ratio"] == 2.0


def test_slow_ones_run_when_asked_for_by_name_or_all_together(several, monkeypatch, capsys):
    known = {"first": several["first"], "last": Benchmark("last", "", "several_last", slow="trains for hours")}
    monkeypatch.setattr(running, "find", lambda: known)
    assert main(["--all"]) == 0
    captured = capsys.readouterr()
    assert "last" not in captured.out
    assert "left out" in captured.err
    assert "last: trains for hours" in captured.err
    for asked in (["last"], ["--slow"], ["--all", "--slow"]):
        assert main(asked) == 0
        captured = capsys.readouterr()
        assert "last: ratio 2" in captured.out
        assert "left out" not in captured.err


def test_the_list_says_which_are_slow(capsys):
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    slow = {line.split(":")[0] for line in out.splitlines() if "(slow: " in line}
    assert slow == {name for name, one in find().items() if one.slow}
    assert {"gecko-seeds", "mpc-xray", "tee-splits", "tee-splits-blocks"} <= slow
    assert "rmia" not in slow


def test_a_claim_is_refused_in_a_changed_tree_before_it_runs(tree, monkeypatch, capsys):
    from benchmarks import reproduce

    def early(name, workdir):
        raise AssertionError("it ran before the tree was looked at")

    tree(f"{COMMIT}+changed")
    monkeypatch.setattr(reproduce, "reproduce", early)
    monkeypatch.setattr("sys.argv", ["reproduce", "gecko", "--save"])
    assert reproduce.main() == 1
    assert "may not be stored" in capsys.readouterr().err


def test_the_curves_run_through_and_are_told_in_one_line(monkeypatch, capsys):
    from benchmarks import mpc_curves

    for name, size in (("_COUNT", 50), ("_ROWS", 3), ("_COLUMNS", 4)):
        monkeypatch.setattr(mpc_curves, name, size)
    assert main(["mpc-curves"]) == 0
    assert capsys.readouterr().out.startswith("mpc-curves: ratio ")


def test_require_clean_names_what_to_do(tree):
    tree(f"{COMMIT}+changed")
    with pytest.raises(UserError, match="--allow-dirty"):
        storing.require_clean(allow_dirty=False)
