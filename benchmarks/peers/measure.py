"""One task at one peer: its program runs in its environment, two processes, one thread each."""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mpc_task import Task
from benchmarks.peers.environments import PEERS, Peer

_SECONDS = 600
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def measured(task: Task) -> dict[str, dict[str, Any]]:
    """Return every peer's figures on `task`; a peer that is not installed or fails gives its reason instead."""
    return {name: at(chosen, task) for name, chosen in PEERS.items()}


def at(chosen: Peer, task: Task) -> dict[str, Any]:
    """Return seconds (best, median, all), bytes that each party sends, rounds and the largest error of one peer."""
    told = {"peer": chosen.title}
    if not chosen.installed:
        return {**told, "missing": f"python -m benchmarks.peers {chosen.name} --install"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task.write(folder)
        done = subprocess.run(
            _command(chosen, folder),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
        )
        if done.returncode:
            return {**told, "failed": (done.stderr.strip().splitlines() or ["no reason given"])[-1][:300]}
        found = json.loads(done.stdout.strip().splitlines()[-1])
        error = task.error(np.load(folder / "answer.npy", allow_pickle=False))
    seconds = found.pop("seconds")
    return {
        **told,
        **found,
        "seconds": min(seconds),
        "seconds_median": statistics.median(seconds),
        "seconds_all": seconds,
        "max_error": error,
    }


def _command(chosen: Peer, folder: Path) -> list[str]:
    program = [str(chosen.python), str(Path(__file__).with_name(chosen.program)), str(folder), str(_free_port())]
    if not chosen.alone:
        return program
    unshare = shutil.which("unshare")
    able = unshare and not subprocess.run([unshare, "-n", "true"], capture_output=True, check=False).returncode
    return [str(unshare), "-n", *program, "alone"] if able else [*program, "shared"]


def _free_port() -> int:
    """Return a port whose successor is free as well."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
