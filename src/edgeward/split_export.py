"""`export_split`: the chosen split as a bundle, with the card and the checklist of this very release."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeward.backends.tee.checklist import Checklist, Evidence, checklist
from edgeward.backends.tee.device_storage import DeviceStorage
from edgeward.backends.tee.release import CARD, MANIFEST, SplitRelease, release, resealed
from edgeward.core.errors import VerificationFailed
from edgeward.core.randomness import SecretRandomness
from edgeward.deploy.split import read_split, verify_split, write_split
from edgeward.measure.two_worlds import TwoWorlds
from edgeward.report.markdown import markdown_table
from edgeward.report.splits import render_split_card
from edgeward.report.tables import Table, words

if TYPE_CHECKING:
    from edgeward.split_choice import SplitMeasurement

IDENTITY_FILE, DEVICE = "identity", "device"
ATTESTED = (
    "application, sealed weights and manifest, in an EAT that `edgeward run --evidence` issues; from an emulated world "
    "its profile says so, and `edgeward verify` refuses it unless told otherwise"
)


def answered(split: SplitMeasurement, counter: int | None = None) -> Checklist:
    """Answer the checklist for one measured split: before it is exported, or for the release with `counter`."""
    membership = split.stealing.membership
    found = Evidence(
        tier="not run yet",
        secure_ram_bytes=split.estimate.secure_ram_bytes,
        secure_ram_limit=split.estimate.secure_ram_limit,
        counter=counter,
        planned=counter is None,
        attested=ATTESTED,
        audit=split.verdict,
        membership=None if membership is None else f"AUC {membership.auc.value:.3f} on the visible part",
    )
    return checklist(split.deployment, found)


def export_split(
    chosen: SplitMeasurement,
    report: Mapping[str, Any],
    workdir: Path,
    folder: Path,
    storage: DeviceStorage,
    *,
    counter: int | None = None,
    identity: str = "",
) -> SplitRelease:
    """Write `chosen` with its card to `folder`, sealed for the device that owns `storage`, and return what was written.

    `identity` names the deployment over all its releases; empty takes that of the bundle that lies in `folder`, else
    the one that `workdir` keeps, drawn at the first export. `counter` is by default one above what the device accepted
    last under that identity. The manifest covers the card, and the card's checklist names the counter.
    """
    known = identity or _former(folder) or _kept(workdir)
    number = storage.counter(known).floor() + 1 if counter is None else counter
    split = {"checklist": answered(chosen, number).to_json()}
    splits = [{**each, **split} if each["name"] == chosen.strategy.name else each for each in report["splits"]]
    written = release(
        chosen.deployment,
        storage.key(),
        number,
        memory_budget=chosen.estimate.secure_ram_limit,
        identity=known,
        card=render_split_card({**report, "splits": splits}, chosen.strategy.name),
    )
    write_split(written, folder)
    return written


def store_split(folder: Path, worlds: TwoWorlds, workdir: Path, card: str) -> None:
    """Write the split of a measured candidate to `folder`, sealed for the device that `workdir` stands for."""
    limit, device = worlds.estimate.secure_ram_limit, DeviceStorage(workdir / DEVICE)
    made = release(worlds.deployment, device.key(), 1, memory_budget=limit, identity=_kept(workdir), card=card)
    made.write(folder)


def copy_split(source: Path, target: Path, workdir: Path, storage: DeviceStorage | None) -> Path:
    """Seal the stored split at `source` anew for the device that owns `storage`, and write it to `target`.

    The card of the copy ends with the checklist of this very release. Errors: `VerificationFailed` where the stored
    files or weights were altered; their own counter is no release's, so that no device judges it.
    """
    own = DeviceStorage(workdir / DEVICE)
    verify_split(source)
    stored, device = read_split(source), storage or own
    counter = device.counter(stored.manifest.identity).floor() + 1
    found = Evidence(
        tier="not run yet", secure_ram_limit=stored.manifest.sizes["budget"], counter=counter, attested=ATTESTED
    )
    rows = [(row.key, row.question, row.answer, row.by) for row in checklist(stored.manifest, found).requirements]
    table = Table(("", "question", "answer", "what it rests on"), tuple(tuple(map(words, row)) for row in rows))
    card = f"{stored.files[CARD].decode()}\n## Checklist of this release\n\n{markdown_table(table)}\n"
    write_split(resealed(stored, own.key(), device.key(), counter, card), target)
    return target


def _former(folder: Path) -> str:
    """Return the identity of the bundle in `folder`; empty where there is none that can be read."""
    try:
        return read_split(folder).manifest.identity if (folder / MANIFEST).is_file() else ""
    except VerificationFailed:
        return ""


def _kept(workdir: Path) -> str:
    path = workdir / IDENTITY_FILE
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("d" + SecretRandomness().bytes(16).hex() + "\n", encoding="ascii")
    return path.read_text(encoding="ascii").strip()
