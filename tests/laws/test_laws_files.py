"""The shape of the tree: sizes, names, and nothing that belongs to one machine."""

import re
from collections import Counter

from laws.laws_tree import ROOT, SOURCE, files, tracked

FORBIDDEN_NAMES = {
    "utils",
    "util",
    "helper",
    "helpers",
    "manager",
    "managers",
    "handler",
    "handlers",
    "engine",
    "misc",
    "common",
}
LONGEST, LONGEST_TEST = 400, 600
TEXT = {".py", ".md", ".toml", ".c", ".h", ".j2", ".json", ".yml", ".yaml", ".txt", ".cfg", ""}
PATHS = re.compile(r"(?<![\w.])/(home/(?!me\b|you\b)|root/|Users/|work/|mnt/|opt/(pypi|wheels))\w")
HOSTS = re.compile(
    r"(download\.py[t]orch\.org|py[p]i\.org|python[h]osted|huggingface\.co|conda\.anaconda|ghcr\.io|docker\.io)"
)


def relative(path):
    return path.relative_to(ROOT).as_posix()


def lines(path):
    return path.read_text(encoding="utf-8").count("\n")


def test_no_file_is_too_long():
    ours = [p for p in tracked() if p.suffix == ".py"]
    limit = {p: LONGEST_TEST if p.is_relative_to(ROOT / "tests") else LONGEST for p in ours}
    wrong = [f"{relative(p)}: {lines(p)} lines, at most {limit[p]}" for p in ours if lines(p) > limit[p]]
    assert not wrong, "\n".join(wrong)


def test_files_are_named_for_their_concept():
    wrong = [relative(p) for p in files() if set(re.split(r"[_.]", p.stem)) & FORBIDDEN_NAMES]
    wrong += [relative(p.parent) for p in files() if p.parent.name in FORBIDDEN_NAMES]
    assert not wrong, "\n".join(wrong)


def test_test_files_have_names_of_their_own():
    names = Counter(p.name for p in tracked() if p.is_relative_to(ROOT / "tests") and p.suffix == ".py")
    assert not [name for name, count in names.items() if count > 1]


def test_every_room_says_what_it_is():
    folders = {p.parent for p in files()}
    wrong = [relative(f) for f in folders if not (f / "__init__.py").is_file()]
    wrong += [relative(p) for p in files() if not p.read_text(encoding="utf-8").lstrip().startswith(('"""', 'r"""'))]
    assert not wrong, "\n".join(wrong)


def test_nothing_of_one_machine_is_tracked():
    wrong = []
    for path in tracked():
        if path.suffix not in TEXT or path.name == "LICENSE" or path.name == "test_laws_files.py":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if PATHS.search(line) or HOSTS.search(line):
                wrong.append(f"{relative(path)}:{number}: {line.strip()[:100]}")
    assert not wrong, "\n".join(wrong)


def test_no_built_or_private_file_is_tracked():
    private = {".pem", ".key", ".pt", ".pth", ".ckpt", ".so", ".pyc", ".pkl", ".whl"}
    assert not [relative(p) for p in tracked() if p.suffix in private]


def test_the_package_is_typed():
    assert (SOURCE / "py.typed").is_file()
