"""The source tree as the laws see it: files, their syntax trees, and the modules they import."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "edgeward"

FLOORS = {
    "core": 0,
    "graph": 1,
    "data": 1,
    "devices": 1,
    "native": 1,
    "nets": 2,
    "train": 2,
    "codegen": 2,
    "transforms": 3,
    "defenses": 3,
    "attacks": 3,
    "backends": 3,
    "measure": 4,
    "search": 4,
    "recipes": 5,
    "deploy": 5,
    "report": 6,
    "front": 6,
    "cli": 7,
}
"""Rooms and their floors; `front` is the doors: protect, audit, and what they are made of."""

FRONT = ("load", "job")
"""The packages that belong to the doors, beside the modules that lie directly in the package."""


@cache
def files() -> tuple[Path, ...]:
    return tuple(sorted(p for p in SOURCE.rglob("*.py") if "__pycache__" not in p.parts))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def room(dotted: str) -> str:
    """Return the room of a module of edgeward: its first name, or 'front' for the doors."""
    parts = dotted.split(".")
    first = parts[1] if len(parts) > 1 else "__init__"
    return "front" if first in FRONT or (SOURCE / f"{first}.py").is_file() else first


def dotted(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted module) of every import of a file, also those inside functions, not those for types only."""
    for_types = {id(n) for block in _type_blocks(parsed(path)) for n in ast.walk(block)}
    for node in ast.walk(parsed(path)):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def _type_blocks(tree: ast.Module) -> Iterator[ast.If]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield node


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files of the repository: those git knows or would add; all but ignored folders without git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=PATIENCE).stdout.decode()
        found = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.SubprocessError):
        found = [p for p in ROOT.rglob("*") if not any(q.startswith(".") for q in p.relative_to(ROOT).parts)]
    return tuple(sorted(p for p in found if p.is_file()))
