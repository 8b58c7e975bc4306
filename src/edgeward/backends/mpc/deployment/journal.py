"""`Journal`: what a dealer remembers over restarts: the seeds of the weight masks, and which batches were dealt."""

from __future__ import annotations

import os
import re
import secrets
from abc import ABC, abstractmethod
from pathlib import Path
from typing import final

from edgeward.backends.mpc.deployment.stock import DEAL_BYTES
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.offline.sealing import (
    SealedWriter,
    Sealing,
    StoreError,
    explained,
    kept_key,
    read_records,
    sync_folder,
)
from edgeward.backends.mpc.offline.tuples import Dealer
from edgeward.core.randomness import SecretBytes

KEY_FILE = "dealer.key"
_NEXT = re.compile(r"([0-9a-f]{32})\.next-(\d{12})")


class Journal(ABC):
    """The deals of one dealer; no index of a deal is given out twice."""

    @abstractmethod
    def begin(self, plan: Plan) -> tuple[bytes, Dealer]:
        """Return a new deal and its dealer, which has dealt the weight masks. Raises: `StoreError`."""

    @abstractmethod
    def resume(self, plan: Plan, deal: bytes) -> Dealer | None:
        """Return the dealer of an earlier deal, or None for one that is not known here. Raises: `StoreError`."""

    @abstractmethod
    def next_index(self, deal: bytes) -> int:
        """Return an index of `deal` that was never given out and never will be again. Raises: `StoreError`."""


def _dealer(plan: Plan, seeds: tuple[SecretBytes, SecretBytes] | None = None) -> Dealer:
    dealer = Dealer(plan.ring, seeds=seeds)
    for mask in plan.setup:
        dealer.deal(mask)
    return dealer


@final
class MemoryJournal(Journal):
    """Deals that end with the process."""

    def __init__(self) -> None:
        """Start without deals."""
        self._next: dict[bytes, int] = {}

    def begin(self, plan: Plan) -> tuple[bytes, Dealer]:
        deal = secrets.token_bytes(DEAL_BYTES)
        self._next[deal] = 0
        return deal, _dealer(plan)

    def resume(self, plan: Plan, deal: bytes) -> Dealer | None:
        return None

    def next_index(self, deal: bytes) -> int:
        self._next[deal] += 1
        return self._next[deal] - 1


@final
class FolderJournal(Journal):
    """Deals in a folder: sealed seeds, and a file whose name carries the next index.

    Guarantee: an index is taken by renaming that file, before anything is dealt: a crash skips the index, and of two
    dealers in one folder one fails. Seeds are sealed under a key in a file of mode 600 beside them.
    """

    def __init__(self, folder: Path) -> None:
        """Use `folder`, made where it is missing. Raises: `StoreError`."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(f"'{folder}' cannot be used", expected="a folder", came=str(error.strerror)) from None
        self._folder, self._sealing = folder, Sealing(kept_key(folder / KEY_FILE))

    def begin(self, plan: Plan) -> tuple[bytes, Dealer]:
        deal, dealer = secrets.token_bytes(DEAL_BYTES), _dealer(plan)
        with SealedWriter(self._sealed(deal), self._sealing, _place(plan, deal)) as file:
            file.append(dealer.seeds[0].reveal() + dealer.seeds[1].reveal())
        with explained(self._counter(deal, 0)):
            self._counter(deal, 0).touch(mode=0o600, exist_ok=False)
        sync_folder(self._folder)
        return deal, dealer

    def resume(self, plan: Plan, deal: bytes) -> Dealer | None:
        if not self._sealed(deal).exists() or self._found(deal) is None:
            return None
        both = read_records(self._sealed(deal), self._sealing, _place(plan, deal))[0]
        half = len(both) // 2
        return _dealer(plan, (SecretBytes(both[:half]), SecretBytes(both[half:])))

    def next_index(self, deal: bytes) -> int:
        index = self._found(deal)
        try:
            if index is None:
                raise FileNotFoundError
            os.rename(self._counter(deal, index), self._counter(deal, index + 1))
        except FileNotFoundError:
            raise StoreError(
                "another dealer works in this folder",
                expected="one dealer per folder",
                came="an index that was taken at the same moment",
                fix="stop the other dealer, or name another folder",
            ) from None
        except OSError as error:
            raise StoreError("the dealer's folder cannot be written", came=str(error.strerror)) from None
        sync_folder(self._folder)
        return index

    def _found(self, deal: bytes) -> int | None:
        with explained(self._folder):
            matches = [_NEXT.fullmatch(path.name) for path in self._folder.iterdir()]
        return next((int(match[2]) for match in matches if match and match[1] == deal.hex()), None)

    def _sealed(self, deal: bytes) -> Path:
        return self._folder / f"{deal.hex()}.deal"

    def _counter(self, deal: bytes, index: int) -> Path:
        return self._folder / f"{deal.hex()}.next-{index:012d}"


def _place(plan: Plan, deal: bytes) -> bytes:
    return b"dealer" + bytes.fromhex(plan.digest) + deal
