"""The commit of the sources: what counts as a change of them, and what does not."""

import os
import subprocess

import pytest

from edgeward.measure.fingerprint import source_commit


def git(folder, *arguments):
    author = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *author, "-C", folder, *arguments], env=own, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path):
    """A checkout with a source, a stored result, and runs/ ignored."""
    git(tmp_path, "init", "-q")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "one.json").write_text("{}")
    (tmp_path / "source.py").write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("/runs/\n*.pyc\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def write(path, text="y = 2\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def rewritten(path):
    """Write the same content anew: git's index then has another time for it."""
    path.write_text(path.read_text())
    os.utime(path, (1, 1))


CHANGES = {
    "an edited source": lambda tree: write(tree / "source.py"),
    "a staged edit": lambda tree: (write(tree / "source.py"), git(tree, "add", "-A")),
    "a deleted source": lambda tree: (tree / "source.py").unlink(),
    "a new source": lambda tree: write(tree / "new.py"),
    "a new source in a new folder": lambda tree: write(tree / "room" / "new.py"),
    "a new benchmark": lambda tree: write(tree / "benchmarks" / "new.py"),
}
NONE = {
    "nothing": lambda tree: None,
    "a file of the same content": lambda tree: rewritten(tree / "source.py"),
    "an ignored file": lambda tree: write(tree / "runs" / "demo" / "report.json"),
    "an ignored kind of file": lambda tree: write(tree / "source.pyc"),
    "a stored result measured again": lambda tree: write(tree / "benchmarks" / "results" / "one.json"),
    "a new stored result": lambda tree: write(tree / "benchmarks" / "results" / "two.json"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_changes_are_told(tree, kind):
    CHANGES[kind](tree)
    assert source_commit(tree) == git(tree, "rev-parse", "HEAD") + "+changed"


@pytest.mark.parametrize("kind", NONE)
def test_what_is_no_change_is_not(tree, kind):
    NONE[kind](tree)
    assert source_commit(tree) == git(tree, "rev-parse", "HEAD")


def test_the_variables_of_another_repository_do_not_matter(tree, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path_factory.mktemp("other")))
    assert source_commit(tree) is not None


def test_an_installed_package_has_no_commit(tmp_path):
    assert source_commit(tmp_path) is None
