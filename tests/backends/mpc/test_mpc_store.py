"""Material on disk: sealed, bound to its place, deleted before use; journals that never deal an index twice."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from edgeward import mpc
from edgeward.backends.mpc.deployment.journal import FolderJournal, MemoryJournal
from edgeward.backends.mpc.deployment.stock import FRESH, HELD, NO_DEAL, MemoryStock
from edgeward.backends.mpc.deployment.store import KEY_FILE, TupleStore
from edgeward.backends.mpc.inference.session import encoded, own_shares, unmasked
from edgeward.backends.mpc.inference.step import Held
from edgeward.backends.mpc.offline.sealing import (
    SealedWriter,
    Sealing,
    StoreError,
    kept_key,
    read_records,
    taken_records,
)
from edgeward.backends.mpc.offline.source import supply_of
from edgeward.backends.mpc.offline.tuples import TupleReusedError
from edgeward.backends.mpc.protocols.linear import MaskedWeights
from edgeward.core.randomness import SecretBytes
from patience import PATIENCE

DEAL = bytes(range(16))
LOWERED = mpc.lowered(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (4,))
PLAN = LOWERED.plan


def store(folder, number=1):
    return TupleStore(folder, PLAN, number, encoded(PLAN, LOWERED.model) if number else None)


def dealt(number=1, dealer=None):
    """Return the records of one batch as they come from the dealer."""
    dealer = dealer or MemoryJournal().begin(PLAN)[1]
    batch = dealer.batch()
    entries = [batch.deal(demand)[number] for demand in PLAN.demands]
    return [batch.seeds[number].reveal(), *(entry.corrections for entry in entries if entry.corrections)]


def sealing():
    return Sealing(SecretBytes(bytes(32)))


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_batch_comes_out_once_and_makes_a_supply(tmp_path, kind, number):
    stock = MemoryStock() if kind == "memory" else store(tmp_path, number)
    stock.begin(DEAL, [bytes(32)])
    for index in (3, 5, 9):
        stock.put(index, dealt(number))
    assert stock.indices() == [3, 5, 9]
    stock.keep_only({5, 9})
    assert stock.indices() == [5, 9]
    supply = supply_of(PLAN.ring, number, PLAN.demands, stock.take(5))
    for demand in PLAN.demands:
        assert supply.draw(demand).demand == demand
    assert stock.indices() == [9]
    for gone in (3, 5):
        with pytest.raises(TupleReusedError):
            stock.take(gone)


def test_a_batch_is_off_the_disk_before_its_first_record_is_out(tmp_path):
    stock = store(tmp_path)
    stock.begin(DEAL, [bytes(32)])
    stock.put(0, dealt())
    records = stock.take(0)
    assert store(tmp_path).indices() == []
    assert len(list(records)) == len(dealt())


def test_a_store_opened_again_has_what_was_left(tmp_path):
    stock = store(tmp_path)
    assert stock.state() == (0, NO_DEAL)
    stock.begin(DEAL, [bytes(32)])
    stock.put(7, dealt())
    again = store(tmp_path)
    assert (again.state(), again.indices()) == ((FRESH, DEAL), [7])
    list(again.take_setup())
    assert store(tmp_path).state() == (0, NO_DEAL)


def held():
    shares = own_shares(PLAN, encoded(PLAN, LOWERED.model))
    draws = np.random.default_rng(0)
    weights = {}
    for mask in PLAN.setup:
        arrays = [draws.integers(0, 1 << 63, mask.shape).astype(np.uint64) for _ in range(2)]
        weights[mask.name] = MaskedWeights(mask.name, *arrays, shares[mask.name].fraction)
    return Held(weights, unmasked(PLAN, shares))


def test_what_opening_the_weights_gave_is_kept_for_the_same_model_alone(tmp_path):
    stock, kept = store(tmp_path), held()
    stock.begin(DEAL, [bytes(32)])
    list(stock.take_setup())
    stock.hold(kept, b"model")
    again = store(tmp_path)
    assert again.state() == (HELD, DEAL)
    assert again.held(b"another") is None
    found = again.held(b"model")
    assert found.weights.keys() == kept.weights.keys()
    for name, one in kept.weights.items():
        np.testing.assert_array_equal(found.weights[name].opened, one.opened)
        np.testing.assert_array_equal(found.weights[name].share, one.share)
    assert found.added.keys() == kept.added.keys()


@pytest.mark.parametrize("where", [8, 20, 60, -1])
def test_altered_bytes_are_refused(tmp_path, where):
    path = tmp_path / "batch"
    with SealedWriter(path, sealing(), b"here") as file:
        file.append(b"x" * 100)
    raw = bytearray(path.read_bytes())
    raw[where] ^= 1
    path.write_bytes(raw)
    with pytest.raises(StoreError, match="not what was written"):
        read_records(path, sealing(), b"here")


@pytest.mark.parametrize("kept", [0, 3, 50, 130, 136, 140, 272, 300])
def test_a_file_cut_short_is_refused(tmp_path, kept):
    """136 and 272 are the ends of its records."""
    path = tmp_path / "batch"
    with SealedWriter(path, sealing(), b"here") as file:
        file.append(b"x" * 100)
        file.append(b"y" * 100)
    assert path.stat().st_size == 2 * 136 + 36
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StoreError, match="not what was written"):
        read_records(path, sealing(), b"here")


def test_a_batch_that_lacks_records_is_refused():
    supply = supply_of(PLAN.ring, 1, PLAN.demands, iter(dealt()[:2]))
    with pytest.raises(StoreError, match="cut short"):
        _ = [supply.draw(demand) for demand in PLAN.demands]


@pytest.mark.parametrize("other", ["place", "key", "order"])
def test_records_belong_to_one_place_one_key_and_one_order(tmp_path, other):
    path = tmp_path / "batch"
    with SealedWriter(path, sealing(), b"here") as file:
        file.append(b"a")
        file.append(b"b")
    opening = Sealing(SecretBytes(bytes(31) + b"1")) if other == "key" else sealing()
    if other == "order":
        raw = path.read_bytes()
        path.write_bytes(raw[len(raw) // 2 :] + raw[: len(raw) // 2])
    with pytest.raises(StoreError):
        read_records(path, opening, b"there" if other == "place" else b"here")


def test_a_batch_of_another_party_deal_or_index_is_refused(tmp_path):
    one, other = store(tmp_path / "a"), store(tmp_path / "b")
    one.begin(DEAL, [bytes(32)])
    one.put(0, dealt())
    source = next((tmp_path / "a").glob("*/batch*"))
    (tmp_path / "b" / KEY_FILE).write_bytes((tmp_path / "a" / KEY_FILE).read_bytes())
    for deal, name in ((bytes(16), "batch-000000000000"), (DEAL, "batch-000000000001")):
        other = store(tmp_path / "b")
        other.begin(deal, [bytes(32)])
        (next((tmp_path / "b").glob("*-party1")) / f"{name}.sealed").write_bytes(source.read_bytes())
        with pytest.raises(StoreError):
            list(other.take(int(name[-1])))


def test_two_processes_cannot_take_one_file(tmp_path):
    path = tmp_path / "batch"
    with SealedWriter(path, sealing(), b"here") as file:
        file.append(b"a")
    assert list(taken_records(path, sealing(), b"here")) == [b"a"]
    with pytest.raises(StoreError, match="not there"):
        taken_records(path, sealing(), b"here")


def test_a_key_is_private_and_made_once(tmp_path):
    key = kept_key(tmp_path / "key")
    assert kept_key(tmp_path / "key") == key
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(StoreError, match="read by others"):
        kept_key(tmp_path / "key")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["key"]


def test_nothing_is_written_of_what_fails_half_way(tmp_path):
    def records():
        yield b"a" * 1000
        raise RuntimeError("the dealer died")

    stock = store(tmp_path)
    stock.begin(DEAL, [bytes(32)])
    with pytest.raises(RuntimeError):
        stock.put(0, records())
    assert stock.indices() == []
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".") or "batch" in p.name]


def test_folders_that_are_gone_are_a_clear_error(tmp_path):
    stock, journal = store(tmp_path / "server"), FolderJournal(tmp_path / "dealer")
    deal, _ = journal.begin(PLAN)
    stock.begin(DEAL, [bytes(32)])
    for name in ("server", "dealer"):
        shutil.rmtree(tmp_path / name)
    for call in (
        stock.indices,
        lambda: stock.begin(DEAL, [bytes(32)]),
        lambda: stock.put(0, dealt()),
        lambda: journal.next_index(deal),
        lambda: journal.begin(PLAN),
    ):
        with pytest.raises(StoreError):
            call()


@pytest.mark.parametrize("name", ["deal", "held", "setup", "batch-000000000000"])
def test_a_file_emptied_by_a_crash_is_a_clear_error(tmp_path, name):
    stock = store(tmp_path)
    stock.begin(DEAL, [bytes(32)])
    stock.put(0, dealt())
    stock.hold(held(), b"model")
    next(tmp_path.glob(f"*/{name}.sealed")).write_bytes(b"")

    def use():
        again = store(tmp_path)
        again.held(b"model")
        return [*again.take(0), *again.take_setup()]

    with pytest.raises(StoreError):
        use()


FULL = """
import json, resource, signal, sys
from pathlib import Path
from edgeward.backends.mpc.offline.sealing import SealedWriter, Sealing, StoreError
from edgeward.core.randomness import SecretBytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
folder, done = Path(sys.argv[1]), 0
try:
    for size in (50_000, 150_000, 400_000):
        with SealedWriter(folder / f"batch-{size}", Sealing(SecretBytes(bytes(32))), b"p") as file:
            for _ in range(size // 10_000):
                file.append(bytes(10_000))
        done += 1
except StoreError as error:
    sys.stdout.write(json.dumps({"done": done, "error": str(error)}))
"""


def test_a_full_disk_is_a_clear_error_and_leaves_no_part(tmp_path):
    run = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=PATIENCE)
    said = json.loads(run.stdout)
    assert said["done"] == 2
    assert "cannot be written" in said["error"]
    assert "room on the disk" in said["error"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["batch-150000", "batch-50000"]
    assert [len(b"".join(read_records(tmp_path / f"batch-{n}", sealing(), b"p"))) for n in (50_000, 150_000)] == [
        50_000,
        150_000,
    ]


def test_the_limit_of_this_process_is_as_before():
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200_000


@pytest.mark.parametrize("make", [lambda folder: MemoryJournal(), FolderJournal])
def test_a_journal_gives_every_index_once(tmp_path, make):
    journal = make(tmp_path / "journal")
    deal, _ = journal.begin(PLAN)
    other, _ = journal.begin(PLAN)
    assert [journal.next_index(deal) for _ in range(3)] == [0, 1, 2]
    assert journal.next_index(other) == 0


def test_a_dealer_that_comes_back_goes_on_and_skips_nothing_twice(tmp_path):
    first = FolderJournal(tmp_path)
    deal, dealer = first.begin(PLAN)
    assert [first.next_index(deal) for _ in range(2)] == [0, 1]
    again = FolderJournal(tmp_path)
    assert again.next_index(deal) == 2
    resumed = again.resume(PLAN, deal)
    assert resumed.seeds == dealer.seeds
    # The same weight masks, and never the same batch.
    assert resumed._kept.keys() == dealer._kept.keys()
    for name, mask in dealer._kept.items():
        np.testing.assert_array_equal(resumed._kept[name], mask)
    assert dealt(1, resumed) != dealt(1, resumed)
    assert again.resume(PLAN, bytes(16)) is None


def test_two_dealers_in_one_folder_never_give_one_index_twice(tmp_path):
    one, two = FolderJournal(tmp_path), FolderJournal(tmp_path)
    deal, _ = one.begin(PLAN)
    given = [journal.next_index(deal) for journal in (one, two, two, one)]
    assert given == [0, 1, 2, 3]


def test_no_secret_lies_in_the_files(tmp_path):
    journal, stock, records = FolderJournal(tmp_path / "dealer"), store(tmp_path / "server"), dealt()
    _, dealer = journal.begin(PLAN)
    stock.begin(DEAL, [dealer.seeds[1].reveal()])
    stock.put(0, records)
    stock.hold(held(), b"model")
    secrets = [seed.reveal() for seed in dealer.seeds] + [record[:32] for record in records]
    secrets += [one.share.tobytes()[:32] for one in held().weights.values()]
    files = {path: path.read_bytes() for path in Path(tmp_path).rglob("*") if path.is_file()}
    assert len(files) >= 6
    assert not [path for path, raw in files.items() for secret in secrets if secret in raw]
