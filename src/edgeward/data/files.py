"""Files of data sets: found in the data folder, size-bounded, checked against SHA-256 before they are read."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, final

from edgeward.core.errors import DataError

VARIABLE: Final = "EDGEWARD_DATA"
LIMIT: Final = 2**30
"""No file is read, and nothing is decompressed, beyond this many bytes."""


@final
@dataclass(frozen=True)
class SourceFile:
    """One file of a public data set.

    `paths` are where it may lie under the data folder, the usual one first; `sha256` the accepted digests of the file
    itself or, for a .gz, of its content (a re-compressed copy is as good); empty where none is published;
    `origin` names the official source.
    """

    paths: tuple[str, ...]
    sha256: tuple[str, ...]
    origin: str


def data_folder(root: Path | None, wanted: str, origin: str) -> Path:
    """Return `root` or the folder EDGEWARD_DATA names; raise `DataError` where there is none."""
    named = os.environ.get(VARIABLE, "")
    if root is None and not named:
        raise DataError(
            "the folder of the data sets is not known",
            expected=f"${VARIABLE}/{wanted}",
            came=f"{VARIABLE} is not set and no root was given",
            fix=f"get the file from {origin} and set {VARIABLE} to the folder that holds {wanted}",
        )
    return root if root is not None else Path(named)


def locate(root: Path | None, file: SourceFile) -> Path | None:
    """Return where `file` lies under the data folder, or None."""
    folder = data_folder(root, file.paths[0], file.origin)
    return next((folder / path for path in file.paths if is_file(folder / path)), None)


def is_file(path: Path) -> bool:
    """Return whether `path` names a file; a path the system refuses (too long, a null byte) names none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Return whether `path` names a folder; a path the system refuses names none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def read_source(root: Path | None, file: SourceFile) -> bytes:
    """Return the checked content of `file`, decompressed where its name ends in .gz.

    Raises `DataError` where the file is missing, too large, damaged or not the published one.
    """
    path = locate(root, file)
    if path is None:
        folder = data_folder(root, file.paths[0], file.origin)
        raise DataError(
            f"a data file is missing: {folder / file.paths[0]}",
            expected=f"{file.paths[0]} under the folder that {VARIABLE} (or root=) names",
            came="no such file" if is_folder(folder) else f"the folder {folder} does not exist",
            fix=f"get it from {file.origin}, or set {VARIABLE} to the folder that holds it",
        )
    data = read_bounded(path)
    accepted = not file.sha256 or _sha256(data) in file.sha256
    if not path.name.endswith(".gz"):
        return data if accepted else _refuse(path, data, file)
    if accepted:
        return gunzip(data, str(path))
    try:
        content = gunzip(data, str(path))
    except DataError:
        _refuse(path, data, file)
    return content if _sha256(content) in file.sha256 else _refuse(path, data, file)


def read_bounded(path: Path, limit: int = LIMIT) -> bytes:
    """Return the bytes of a regular file; raise `DataError` where it cannot be read or exceeds `limit` bytes."""
    try:
        if not path.is_file():  # a pipe or a device may never end
            raise FileNotFoundError
        with path.open("rb") as stream:
            data = _read_at_most(stream, limit + 1)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the file {str(path)!r} cannot be read",
            expected="a regular file with read permission",
            came=type(error).__name__,
            fix="check the path and its permissions",
        ) from None
    if len(data) > limit:
        raise DataError(
            f"the file {str(path)!r} is too large",
            expected=f"at most {limit} bytes",
            came="more",
            fix="split the data set or draw a sample of it",
        )
    return data


def gunzip(data: bytes, name: str, limit: int = LIMIT) -> bytes:
    """Return the content of a gzip file, or raise `DataError` where it is damaged or unpacks beyond `limit` bytes."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            content = _read_at_most(stream, limit + 1)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise damaged(name, "a complete gzip file", type(error).__name__) from None
    if len(content) > limit:
        raise damaged(name, f"a gzip file of at most {limit} bytes of content", "more (a decompression bomb?)")
    return content


def tar_member(archive: bytes, members: Sequence[str], name: str, limit: int = LIMIT) -> bytes:
    """Return the content of the first of `members` in a .tgz; nothing is written to disk, links are not followed."""
    content = gunzip(archive, name, limit)
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            found = next((m for m in tar if m.name.removeprefix("./") in members), None)
            # A sparse member may declare any size; a link may name any path.
            plain = found is not None and found.isreg() and not found.issparse() and found.size <= len(content)
            stream = tar.extractfile(found) if found is not None and plain else None
            data = stream.read() if stream is not None else None
    except Exception as error:  # hostile headers fail in many ways
        raise damaged(name, "a tar archive", type(error).__name__) from None
    if data is None:
        raise damaged(name, f"a regular member '{members[0]}'", "no such regular member")
    return data


def damaged(name: str, expected: str, came: str) -> DataError:
    """Build the error for a file whose content cannot be decoded; `came` must not quote the content."""
    return DataError(
        f"the file {name!r} is damaged or of another kind",
        expected=expected,
        came=came,
        fix="get the file again and compare its checksum",
    )


def _read_at_most(stream: io.BufferedIOBase, limit: int) -> bytes:
    """Read up to `limit` bytes piece by piece: one large read would reserve `limit` bytes at once."""
    pieces, left = [], limit
    while left and (piece := stream.read(min(left, 2**24))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refuse(path: Path, data: bytes, file: SourceFile) -> NoReturn:
    raise DataError(
        f"the checksum of {str(path)!r} is wrong",
        expected=f"SHA-256 {' or '.join(file.sha256)}",
        came=f"SHA-256 {_sha256(data)}, {len(data)} bytes",
        fix=f"the file is damaged, altered or of another release: get it again from {file.origin}",
    )
