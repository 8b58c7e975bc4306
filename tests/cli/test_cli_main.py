"""Exit codes and messages: whatever happens, no traceback unless asked for, and one JSON document with --json."""

import contextlib
import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.cli_runner import run
from edgeward.cli import main
from edgeward.cli.audit import excesses, parse_bound
from edgeward.cli.entry import describe
from edgeward.cli.options import parse_shape
from edgeward.cli.reply import Reply, finite, show, table
from edgeward.cli.summary import candidate_table
from edgeward.core.errors import ClaimFailed, ConfigError, NoFeasibleCandidate, VerificationFailed


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["protect", "--no-such-flag"],
        ["protect"],
        ["protect", "absent.toml"],
        ["protect", "--demo", "x.toml"],
        ["protect", "--demo", "--seed", "many"],
        ["cost"],
        ["cost", "net:mlp", "--input", "0x3"],
        ["cost", "net:mpl", "--input", "64"],
        ["cost", "net:mlp?features=64", "--input", "64", "--device", "cortex-m77"],
        ["cost", "absent.pt2", "--input", "64"],
        ["audit", "--demo", "--fail-above", "tpr@5%=0.1"],
        ["audit", "--demo", "--fail-above", "auc"],
        ["devices", "show", "cortex"],
        ["devices", "lst"],
        ["recipes", "show", "gekco"],
        ["report", "absent"],
        ["report", "a", "--open", "maybe"],
        ["verify"],
    ],
)
def test_what_cannot_be_used_is_1_with_a_message(arguments):
    done = run(*arguments, "--json")
    assert done.code == 1
    assert done.json["error"]["exit_code"] == 1
    assert done.json["error"]["fix"]
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err
    assert run(*arguments).out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 1),
        (NoFeasibleCandidate("x"), 2),
        (VerificationFailed("x"), 3),
        (ClaimFailed("x"), 3),
        (RuntimeError("a\nlong\nstory"), 4),
    ],
)
def test_errors_have_their_codes(error, code):
    found, fields = describe(error)
    assert found == code
    assert ("--traceback" in fields["message"]) == (code == 4)
    assert "long" not in fields["message"]


def failing(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("edgeward.cli.entry._run", fail)


def test_an_internal_error_shows_its_traceback_only_when_asked(monkeypatch):
    failing(monkeypatch, RuntimeError("bug"))
    quiet, loud = run("doctor"), run("doctor", "--traceback")
    assert (quiet.code, loud.code) == (4, 4)
    assert "Traceback" not in quiet.err
    assert "Traceback" in loud.err


def test_an_interrupt_keeps_what_is_measured(monkeypatch):
    failing(monkeypatch, KeyboardInterrupt())
    done = run("protect", "--demo")
    assert done.code == 130
    assert "run again to resume" in done.err


def test_what_libraries_print_stays_off_stdout_with_json(monkeypatch):
    def noisy(_):
        sys.stdout.write("chatter\n")
        return Reply({"a": float("nan")})

    monkeypatch.setattr("edgeward.cli.entry._run", noisy)
    done = run("doctor", "--json")
    assert done.json == {"a": None}
    assert "chatter" in done.err


def test_a_closed_pipe_is_no_error(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert main(["--version"]) == 0


def test_untrusted_text_cannot_drive_the_terminal():
    stream = io.StringIO()
    hostile = "[bold]x\x1b[2J\x07\x9b31m"
    show(Reply({}, [table(("name",), [(hostile,)]), hostile]), as_json=False, stream=stream)
    text = stream.getvalue()
    assert "[bold]x" in text
    assert not set(text) & {"\x1b", "\x07", "\x9b"}


def test_long_lines_stay_whole():
    stream = io.StringIO()
    show(Reply({}, ["x" * 500]), as_json=False, stream=stream)
    assert stream.getvalue() == "x" * 500 + "\n"


@given(
    st.recursive(
        st.none() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_every_document_is_json(value):
    json.dumps(finite(value), allow_nan=False)


@given(st.text(max_size=20))
def test_shapes_are_read_or_refused(text):
    with contextlib.suppress(ConfigError):
        assert all(extent > 0 for extent in parse_shape(text))


@given(st.text(max_size=20) | st.tuples(st.sampled_from(["auc=", "tpr@1%="]), st.text(max_size=6)).map("".join))
def test_bounds_are_read_or_refused(text):
    with contextlib.suppress(ConfigError):
        assert 0 <= parse_bound(text)[1] <= 1


def candidate(rate, recipe="none"):
    attack = {"name": "lira", "kind": "mislabelled", "negatives": 800, "auc": {"value": 0.7, "interval": [0.6, 0.8]}}
    attack["tpr_at_1pct"] = {"value": rate, "interval": [0.0, 1.0]}
    attack["tpr_at_0_1pct"] = {"value": 0.0, "interval": [0.0, 1.0]}
    return {"recipe": recipe, "attacks": [attack], "strongest_attack": attack, "test_accuracy": 0.9, "cost": {}}


@pytest.mark.parametrize(
    ("rate", "bound", "above"), [(0.2, "tpr@1%=0.1", True), (0.1, "tpr@1%=0.1", False), (0.2, "auc=0.7", False)]
)
def test_a_bound_is_exceeded_strictly(rate, bound, above):
    assert bool(excesses({"candidates": [candidate(rate)]}, [parse_bound(bound)])) == above


def test_what_was_not_measured_does_not_pass():
    bound = [parse_bound("auc=1")]
    assert excesses({"candidates": []}, bound)
    assert excesses({"candidates": [candidate(0.0)], "failed": [{"recipe": "dp_sgd", "reason": "no"}]}, bound)
    assert not excesses({"candidates": [candidate(0.0)], "failed": [{"recipe": "dp_sgd", "reason": "no"}]}, [])
    assert excesses({"candidates": [{"recipe": "none", "attacks": []}]}, bound)
    assert excesses({"candidates": [candidate(float("nan"))]}, [parse_bound("tpr@1%=1")])


def test_the_table_shows_failures_and_violations():
    rows = [{**candidate(0.1), "feasible": False, "violations": ["file_bytes at most 1 B"]}]
    report = {"candidates": rows, "failed": [{"recipe": "dp_sgd", "reason": "BatchNorm"}]}
    stream = io.StringIO()
    show(Reply({}, [candidate_table(report)]), as_json=False, stream=stream)
    assert "over budget: file_bytes" in stream.getvalue()
    assert "failed: BatchNorm" in stream.getvalue()
