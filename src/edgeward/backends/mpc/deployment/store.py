"""`TupleStore`: a party's material on disk, sealed, deleted before it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import final

import numpy as np

from edgeward.backends.mpc.deployment.stock import FRESH, HELD, NO_DEAL, Stock
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.inference.session import own_shares, unmasked
from edgeward.backends.mpc.inference.step import Held
from edgeward.backends.mpc.offline.sealing import (
    SealedWriter,
    Sealing,
    StoreError,
    explained,
    kept_key,
    read_records,
    sync_folder,
    taken_records,
)
from edgeward.backends.mpc.offline.tuples import TupleReusedError
from edgeward.backends.mpc.protocols.linear import MaskedWeights

KEY_FILE = "tuples.key"
_DEAL, _SETUP, _HELD = "deal", "setup", "held"
_BATCH = re.compile(r"batch-(\d{12})\.sealed")


@final
class TupleStore(Stock):
    """Material of one plan and one party in a folder, under a key in a file of mode 600; for one process at a time.

    Guarantee: a batch is deleted from the disk before its first value is used, so that no restart, crash or second
    process uses it again; a crash loses it. Contents are secret and bound to plan, deal, party and index (`Sealing`).
    A folder that is copied and put back, with its key, is noticed by the other party's (`agree_stock`), which has no
    longer what was used; the folders of both put back together are noticed by nobody, and used twice.
    """

    def __init__(self, folder: Path, plan: Plan, number: int, elements: dict[str, np.ndarray] | None = None) -> None:
        """Use `folder`, made where it is missing; `elements` are the owner's encoded tensors. Raises: `StoreError`."""
        self._plan, self._number, self._elements = plan, number, elements
        self._folder = folder / _name(plan, number)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for leftover in self._folder.glob(".*"):
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"'{folder}' cannot be used", expected="a folder", came=str(error.strerror)) from None
        self._sealing = Sealing(kept_key(folder / KEY_FILE))
        self._deal = self._stored_deal()

    @staticmethod
    def lock(folder: Path, plan: Plan, number: int) -> Path:
        """Return the file to claim before the store is opened: only one process may work with it."""
        return folder / f"{_name(plan, number)}.lock"

    def state(self) -> tuple[int, bytes]:
        if self._deal != NO_DEAL and self._path(_HELD).exists():
            return HELD, self._deal
        return (FRESH, self._deal) if self._deal != NO_DEAL and self._path(_SETUP).exists() else (0, NO_DEAL)

    def begin(self, deal: bytes, setup: Iterable[bytes]) -> None:
        with explained(self._folder):
            for path in self._folder.iterdir():
                path.unlink()
        sync_folder(self._folder)
        self._deal = deal
        with SealedWriter(self._path(_DEAL), self._sealing, self._place(_DEAL, NO_DEAL)) as file:
            file.append(deal)
        self._write(_SETUP, setup)

    def take_setup(self) -> Iterator[bytes]:
        return taken_records(self._path(_SETUP), self._sealing, self._place(_SETUP, self._deal))

    def hold(self, held: Held, model: bytes) -> None:
        kept = held.weights.values()
        about = [[one.name, one.fraction, list(one.opened.shape)] for one in kept]
        arrays = (part.tobytes() for one in kept for part in (one.opened, one.share))
        self._write(_HELD, iter((json.dumps([model.hex(), about]).encode(), *arrays)))

    def held(self, model: bytes) -> Held | None:
        records = iter(read_records(self._path(_HELD), self._sealing, self._place(_HELD, self._deal)))
        digest, about = json.loads(next(records))
        if digest != model.hex():
            return None
        weights = {}
        for name, fraction, shape in about:
            opened, share = (np.frombuffer(part, self._plan.ring.dtype).reshape(shape) for part in islice(records, 2))
            weights[name] = MaskedWeights(name, opened, share, fraction)
        return Held(weights, unmasked(self._plan, own_shares(self._plan, self._elements)))

    def put(self, index: int, records: Iterable[bytes]) -> None:
        self._write(f"batch-{index:012d}", records)

    def indices(self) -> list[int]:
        with explained(self._folder):
            found = [_BATCH.fullmatch(path.name) for path in self._folder.iterdir()]
        return sorted(int(match[1]) for match in found if match)

    def take(self, index: int) -> Iterator[bytes]:
        name = f"batch-{index:012d}"
        try:
            return taken_records(self._path(name), self._sealing, self._place(name, self._deal))
        except StoreError as error:
            if self._path(name).exists():
                raise
            raise TupleReusedError(f"batch {index} was used before", came=error.came, fix="take the next") from None

    def _write(self, name: str, records: Iterable[bytes]) -> None:
        with SealedWriter(self._path(name), self._sealing, self._place(name, self._deal)) as file:
            for record in records:
                file.append(record)

    def _stored_deal(self) -> bytes:
        if not self._path(_DEAL).exists():
            return NO_DEAL
        return read_records(self._path(_DEAL), self._sealing, self._place(_DEAL, NO_DEAL))[0]

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.sealed"

    def _place(self, name: str, deal: bytes) -> bytes:
        return bytes.fromhex(self._plan.digest) + deal + bytes([self._number]) + name.encode()


def _name(plan: Plan, number: int) -> str:
    return f"{plan.digest[:16]}-party{number}"
