"""A bundle's folder as it lies on the disk: plain files only, read once, hashed as read."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from edgeward.core.errors import VerificationFailed
from edgeward.deploy.manifest import MANIFEST, MAX_FILES, SEAL, FileEntry, Manifest


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def seal_line(manifest: bytes) -> bytes:
    """Return the contents of `manifest.sha256`, in the form `sha256sum --check` reads."""
    return f"{sha256(manifest)}  {MANIFEST}\n".encode()


def failed(what: str, *, expected: str = "", came: str = "") -> VerificationFailed:
    """Build the error every check of a bundle ends in."""
    fix = "do not run this bundle; fetch it again from whoever made it"
    return VerificationFailed(what, expected=expected, came=came, fix=fix)


def read_file(root: Path, path: str, most: int) -> bytes:
    """Return the bytes of a plain file of at most `most` bytes; links and other kinds are refused."""
    try:
        descriptor = os.open(root / path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise failed(f"{path} cannot be opened", came=str(error.strerror)) from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise failed(f"{path} is not a plain file")
        if found.st_size > most:
            raise failed(f"{path} is too large", expected=f"at most {most} bytes", came=f"{found.st_size} bytes")
        # One byte more than allowed tells a file that grows while it is read.
        data = file.read(most + 1)
    if len(data) > most:
        raise failed(f"{path} grew while it was read", expected=f"at most {most} bytes")
    return data


def listing(root: Path) -> list[str]:
    """Return every file below `root`, and every empty folder with a slash; links and special files are refused."""
    found: list[str] = []
    pending = [root]
    while pending:
        folder = pending.pop()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        if not entries and folder != root:
            found.append(f"{folder.relative_to(root).as_posix()}/")
        for entry in entries:
            name = Path(entry.path).relative_to(root).as_posix()
            if entry.is_symlink() or not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
                raise failed(f"{name} is a link or a special file", expected="plain files and folders")
            if entry.is_file(follow_symlinks=False):
                found.append(name)
            elif name.count("/") >= 4:
                raise failed(f"{name} lies too deep")
            else:
                pending.append(Path(entry.path))
            if len(found) > 4 * MAX_FILES:
                raise failed("the folder holds too many files", expected=f"at most {MAX_FILES}")
    return found


def read_listed(root: Path, manifest: Manifest) -> dict[str, bytes]:
    """Return the bytes of every listed file, after comparing all of them with the manifest.

    Raises: `VerificationFailed` naming every file that is missing, extra or changed.
    """
    there, listed = set(listing(root)), {entry.path: entry for entry in manifest.files}
    problems = [f"{path} is missing" for path in sorted(set(listed) - there)]
    problems += [f"{path[:200]} is not in the manifest" for path in sorted(there - set(listed) - {MANIFEST, SEAL})]
    contents: dict[str, bytes] = {}
    for path in sorted(set(listed) & there):
        contents[path] = b""
        problem = _compare(root, listed[path], contents)
        problems += [problem] if problem else []
    if problems:
        raise failed(
            f"{len(problems)} file{'s are' if len(problems) > 1 else ' is'} not what the manifest says",
            expected="every listed file unchanged, and no other",
            came="; ".join(problems[:20]),
        )
    return contents


def _compare(root: Path, entry: FileEntry, contents: dict[str, bytes]) -> str:
    size = (root / entry.path).lstat().st_size
    if size != entry.bytes:
        return f"{entry.path} has {size} bytes instead of {entry.bytes}"
    data = read_file(root, entry.path, entry.bytes)
    if sha256(data) != entry.sha256:
        return f"{entry.path} is changed (another SHA-256)"
    contents[entry.path] = data
    return ""
