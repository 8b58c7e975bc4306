"""The per-user folder that holds compiled kernels; refused when anybody else could put a file there."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def cache_root(environment: dict[str, str]) -> Path | None:
    """Return the folder for compiled kernels, or None where the user has no home.

    `XDG_CACHE_HOME` is taken only when absolute, as its specification demands.

    >>> cache_root({"XDG_CACHE_HOME": "/var/tmp/me"}).as_posix()
    '/var/tmp/me/edgeward/native'
    >>> cache_root({"XDG_CACHE_HOME": "here", "HOME": "/home/me"}).as_posix()
    '/home/me/.cache/edgeward/native'
    """
    chosen = environment.get("XDG_CACHE_HOME", "")
    if os.path.isabs(chosen):
        return Path(chosen) / "edgeward" / "native"
    home = environment.get("HOME", "")
    return Path(home) / ".cache" / "edgeward" / "native" if os.path.isabs(home) else None


def open_cache(root: Path) -> str:
    """Create `root` with mode 0700 and return why it cannot be trusted, or an empty string.

    Guarantee: only this user (or root) can write to the folder or replace it, judged by owner and mode of every folder
    above it; access-control lists are not read. Checked once, before loading.
    """
    try:
        root.parent.parent.mkdir(parents=True, exist_ok=True)
        for folder in (root.parent, root):
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        return f"the cache folder cannot be made ({error.strerror})"
    return next((reason for reason in map(distrust, (root, *root.parents)) if reason), "")


def distrust(path: Path) -> str:
    """Return why other users could change `path`, or an empty string."""
    try:
        found = path.lstat()
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    if stat.S_ISLNK(found.st_mode):
        owner = found.st_uid
        return "" if owner in (0, os.getuid()) else f"{path.name} is a link of user {owner}"
    if found.st_uid not in (0, os.getuid()):
        return f"{path.name} belongs to user {found.st_uid}"
    # A sticky folder such as /tmp lets others add files but not replace ours.
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        return f"{path.name} can be written by other users (mode {stat.S_IMODE(found.st_mode):o})"
    return ""
