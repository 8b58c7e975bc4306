"""`Claim`: a place on disk that one process uses at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

from edgeward.backends.mpc.offline.sealing import StoreError, explained


@final
class Claim:
    """Holds `path`, a file made for this, until `close` or the end of the process, however it ends.

    On POSIX systems; elsewhere two processes are told apart by what one of them misses.
    """

    def __init__(self, path: Path) -> None:
        """Take hold of `path`. Raises: `StoreError` where another process has it."""
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._file)
        except OSError:
            os.close(self._file)
            raise StoreError(
                f"'{path.parent}' is in use",
                expected="one process per party and store",
                came="another one that works with it",
                fix="wait until it has ended, or name another folder",
            ) from None

    def close(self) -> None:
        """Let go."""
        os.close(self._file)


def _lock(file: int) -> None:
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
