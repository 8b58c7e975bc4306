"""`.pt2` archives: exported programs from disk, vetted first, because PyTorch's reader may unpickle and evaluate."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from edgeward.core.errors import ModelError

_OPERATORS = re.compile(r"torch\.ops\.(aten|edgeward)\.\w+(\.\w+)?|_operator\.(getitem|add|sub|mul|floordiv|ge|le|eq)")
_EXPRESSION = re.compile(
    r"Symbol\('[su]\d+'(, (positive|integer|nonnegative)=True)*\)|[su]\d+|\d+|\*(?!\*)|[-+/(), <>=]"
    r"|Max|Min|Mod|FloorDiv|CeilDiv|Eq|Ne|Ge|Le|int_oo|oo"
)
_MODEL = re.compile(r"models/\w+\.json")
_KNOWN = re.compile(
    r"models/\w+\.json|data/(weights|constants)/\w+|data/(weights|constants)/\w+\.json|data/sample_inputs/\w+\.pt"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)|version"
)
_LARGEST = 2 << 30


def read_archive(path: Path) -> ExportedProgram:
    """Read one exported program, in its functional form.

    PyTorch's own reader falls back to unrestricted unpickling, evaluates size expressions and looks operators up by
    name. So the archive is taken apart first; anything but raw tensors, plain sizes and known operators is refused;
    and a fresh archive of the vetted parts is what PyTorch reads.

    Guarantee: no object of the file is unpickled without restriction and no name outside `torch.ops.aten` and
    `torch.ops.edgeward` is called (measured by tests; the format is PyTorch's and may grow other doors).
    Raises `ModelError` with every reason together.
    """
    parts = _parts(path)
    problems = [*_problems(parts)]
    if problems:
        raise ModelError(
            f"'{path.name}' is refused:\n    " + "\n    ".join(sorted(set(problems))[:12]),
            expected="an exported program of raw tensors, plain sizes and aten or edgeward operators",
            came=f"{len(problems)} parts outside that",
            fix="export again with torch.export.save in the pinned PyTorch, or give the model as path.py:function",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: ExportedProgram = torch.export.load(
                io.BytesIO(_repack({n: _cleaned(n, c) for n, c in parts.items()}))
            )
            functional: ExportedProgram = program.run_decompositions({})
    except Exception as error:
        raise _broken(path, error) from error
    return functional


def _broken(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"'{path.name}' is not a whole .pt2 archive",
        expected="a file written by torch.export.save",
        came=(str(error).splitlines() or [type(error).__name__])[0][:200],
        fix="copy the file again, or export it again with the pinned PyTorch",
    )


def _parts(path: Path) -> dict[str, bytes]:
    if not path.is_file():
        raise ModelError(
            f"there is no file '{path.name}'", expected="a .pt2 archive", came=str(path), fix="check the path"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > _LARGEST:
                raise ValueError("the archive unpacks to more than 2 GiB")
            names = [entry.filename.split("/", 1)[-1] for entry in entries]
            if len(set(names)) != len(names):
                raise ValueError("the archive holds one name twice")
            return {name: archive.read(entry) for name, entry in zip(names, entries, strict=True)}
    except Exception as error:
        raise _broken(path, error) from error


def _repack(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return buffer.getvalue()


def _problems(parts: dict[str, bytes]) -> Iterator[str]:
    yield from (f"part '{name}' is unknown" for name in parts if not _KNOWN.fullmatch(name))
    if not any(_MODEL.fullmatch(name) for name in parts):
        yield "there is no program in it"
    for name, content in parts.items():
        if name.endswith(".pt"):
            yield from _restricted(name, content)
        elif name.endswith(".json"):
            yield from _document(name, content)


def _restricted(name: str, content: bytes) -> Iterator[str]:
    try:
        torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception:
        yield f"'{name}' holds pickled objects that are no plain tensors"


def _document(name: str, content: bytes) -> Iterator[str]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        yield f"'{name}' is not JSON"
        return
    for key, value in _entries(document):
        if key == "use_pickle" and value:
            yield f"'{name}' asks for an unrestricted pickle"
        elif key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", str(value)):
            yield f"'{name}' names the payload '{str(value)[:40]}', which is no raw tensor"
        elif key == "name" and not re.fullmatch(r"[\w.]*", str(value)):
            yield f"the name '{str(value)[:40]}' is no identifier"
        elif key in ("target", "as_operator") and isinstance(value, str) and not _OPERATORS.fullmatch(value):
            yield f"operator '{value[:60]}' is outside aten and edgeward"
        elif key == "expr_str" and _EXPRESSION.sub("", str(value)):
            yield f"size expression '{str(value)[:60]}' is not plain arithmetic"


def _cleaned(name: str, content: bytes) -> bytes:
    """Drop what PyTorch would turn into code or look up: guards, and node notes other than the layer's name."""
    if not _MODEL.fullmatch(name):
        return content
    document = json.loads(content)
    document["guards_code"] = []
    for key, value in [*_entries(document)]:
        if key == "metadata" and isinstance(value, dict):
            for note in [note for note in value if note != "nn_module_stack"]:
                del value[note]
    return json.dumps(document).encode()


def _entries(document: Any) -> Iterator[tuple[str, Any]]:
    pending = [document]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
