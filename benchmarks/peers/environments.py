"""The peers' own environments: a folder each under `runs/peers`, made on request, never part of the project's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from edgeward.core.errors import UserError, unknown_name

ROOT = Path(__file__).parents[2] / "runs" / "peers"
_MINUTES = 60


@final
@dataclass(frozen=True)
class Peer:
    """One peer: what its environment holds, and the program of ours that runs in it.

    `shares_torch`: the environment also sees the packages of the one that runs the benchmark, so that both sides
    compute with the same PyTorch. `alone`: the program counts bytes on the loopback interface, so it wants a network
    namespace of its own.
    """

    name: str
    title: str
    steps: tuple[tuple[str, ...], ...]
    program: str
    modules: tuple[str, ...]
    shares_torch: bool = False
    alone: bool = False

    @property
    def folder(self) -> Path:
        """Return the folder of the environment."""
        return Path(os.environ.get("EDGEWARD_PEERS") or ROOT) / self.name

    @property
    def python(self) -> Path:
        """Return the environment's interpreter."""
        return self.folder / "bin" / "python"

    @property
    def installed(self) -> bool:
        """Return whether the environment was made whole."""
        return (self.folder / "complete").exists()


PEERS = {
    "crypten": Peer(
        "crypten",
        "CrypTen 0.4.1, two parties, trusted first party",
        (("--no-deps", "crypten==0.4.1"), ("omegaconf", "pyyaml")),
        "crypten_program.py",
        ("crypten",),
        shares_torch=True,
    ),
    "spu": Peer(
        "spu",
        "SPU 0.9.5, SEMI2K, two parties, trusted first party, 64-bit field",
        (("spu==0.9.5", "jax==0.4.34", "jaxlib==0.4.34", "numpy==1.26.4"),),
        "spu_program.py",
        ("spu", "jax"),
        alone=True,
    ),
}


def peer(name: str) -> Peer:
    """Return the peer called `name`, or raise an error with the nearest names."""
    if name not in PEERS:
        raise unknown_name("peer", name, PEERS)
    return PEERS[name]


def install(chosen: Peer, say: Callable[[str], None]) -> None:
    """Make the environment of a peer with pip, from the indexes pip is configured with. Raises: `UserError`."""
    if sys.version_info[:2] != (3, 11):
        raise UserError("the peers' wheels want Python 3.11", expected="3.11", came=sys.version.split()[0])
    shutil.rmtree(chosen.folder, ignore_errors=True)
    say(f"{chosen.name}: an environment in {chosen.folder}")
    venv.create(chosen.folder, with_pip=False, symlinks=True)
    if chosen.shares_torch:
        ours = sysconfig.get_paths()["purelib"]
        packages = next(chosen.folder.glob("lib/python*/site-packages"))
        (packages / "shared.pth").write_text(f"{ours}\n", encoding="utf-8")
    for step in chosen.steps:
        say(f"{chosen.name}: pip install {' '.join(step)}")
        command = [sys.executable, "-m", "pip", "--python", str(chosen.python), "install", "--quiet", *step]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30 * _MINUTES, check=False)
        if done.returncode:
            raise UserError(
                f"{chosen.title} cannot be installed here",
                expected=f"pip install {' '.join(step)}",
                came=(done.stderr.strip().splitlines() or ["no word of pip"])[-1][:300],
                fix="look at pip's index, or leave this peer out",
            )
    (chosen.folder / "complete").touch()
