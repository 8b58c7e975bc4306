"""`edgeward mirror`: split a trained network in two worlds, attack every split, and write a bundle per world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgeward.cli.options import AsJson, Quiet
from edgeward.cli.reply import Reply, tell
from edgeward.cli.running import places
from edgeward.cli.summary import split_table
from edgeward.cli.watch import watching
from edgeward.core.errors import ConfigError, NoFeasibleCandidate
from edgeward.core.units import parse_quantity

if TYPE_CHECKING:
    from edgeward.train.part import Schedule


def mirror(
    model: Annotated[str, typer.Argument(help="net:NAME?key=value, path.py:function, package.module:function, .pt2")],
    data: Annotated[str, typer.Option(help="A data set's name, an .npz, a folder of images, or a .csv.")],
    weights: Annotated[Optional[Path], typer.Option(help="The trained weights.", show_default=False)] = None,  # noqa: UP045
    public: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Weights of the same network that never saw private records.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="Device profile with a secure world.")] = "rpi3-optee",
    secure_ram: Annotated[str, typer.Option(help="Most secure memory, for instance 8MiB.")] = "8MiB",
    overhead: Annotated[str, typer.Option(help="Most modelled latency on top of the unprotected network.")] = "1%",
    preset: Annotated[str, typer.Option(help="public | faithful | anti")] = "public",
    gap: Annotated[str, typer.Option(help="How much less accurate direct use shall be (preset faithful).")] = "20%",
    strategy: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A strategy file (JSON) instead of the search.", show_default=False),
    ] = None,
    queries: Annotated[str, typer.Option(help="Label queries of the stealing attack, joined by commas.")] = "50,200",
    attackers: Annotated[int, typer.Option(help="Independent thieves for each budget.", min=1, max=100)] = 3,
    attack_steps: Annotated[
        int, typer.Option(help="Training steps of each theft, at least; fewer make a weaker thief.", min=1)
    ] = 200,
    drop: Annotated[str, typer.Option(help="Most accuracy a split may lose against MODEL.")] = "2%",
    epochs: Annotated[int, typer.Option(help="Epochs of each full training.", min=1)] = 8,
    query_limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="How many inferences a device answers, counted in the secure world.", min=1, show_default=False
        ),
    ] = None,
    storage: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="The (emulated) device's secure storage; default: `device` in the workdir.", show_default=False
        ),
    ] = None,
    identity: Annotated[
        str,
        typer.Option(
            help="The deployment's name on the device, the same for every release; default: kept in the workdir.",
            show_default=False,
        ),
    ] = "",
    workdir: Annotated[Path, typer.Option(help="Write here; a rerun resumes.")] = Path("runs/mirror"),
    seed: Annotated[int, typer.Option(help="Seed of training and attacks.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> Reply:
    """Train splits of MODEL within the limits, steal from each, and write the bundle that gives least away."""
    from edgeward.attacks.extraction import Attacker
    from edgeward.backends.tee.device_storage import DeviceStorage
    from edgeward.core.randomness import Seed
    from edgeward.data import load_source
    from edgeward.load import load_model
    from edgeward.mirror import mirror as split
    from edgeward.recipes.mirrornet import MirrorNet, Strategy
    from edgeward.train.population import build

    budgets = _budgets(queries)
    recipe = MirrorNet(preset=preset, gap=parse_quantity(gap, "", name="gap"))
    victim = build(load_model(model, weights=weights, keep=True), Seed(seed))
    outside = None if public is None else build(load_model(model, weights=public), Seed(seed))
    records = load_source(data, seed=Seed(seed).child("data"), canaries=0)
    for note in _notes(model, weights, public, preset):
        tell(f"note: {note}")
    with watching(workdir, quiet=quiet) as watcher:
        result = split(
            victim,
            records,
            device=device,
            secure_ram=parse_quantity(secure_ram, "B", name="secure-ram"),
            overhead=parse_quantity(overhead, "", name="overhead"),
            recipe=recipe,
            strategies=() if strategy is None else (Strategy.read(strategy),),
            public=outside,
            budgets=budgets,
            attackers=attackers,
            attacker=Attacker(steps=attack_steps, epochs=min(attack_steps, Attacker().epochs)),
            largest_drop=parse_quantity(drop, "", name="drop"),
            query_limit=query_limit,
            schedule=_schedule(epochs),
            workdir=workdir,
            seed=seed,
            watcher=watcher,
        )
    blocks: list[Any] = [split_table(result.report), ""]
    try:
        chosen = result.choose()
    except NoFeasibleCandidate as error:
        tell(f"error: {error}")
        fields = {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
        document = {**result.report, "error": fields, "workdir": str(workdir)}
        shown = [line for line in places(workdir) if not line.startswith("bundle")]
        if (workdir / "bundle").exists():
            shown.append(f"bundle of an earlier run, not of this one: {workdir / 'bundle'}")
        return Reply(document, [*blocks, *shown], error.exit_code)
    place = storage or workdir / "device"
    written = result.export(workdir / "bundle", DeviceStorage(place), identity=identity)
    lines = [
        f"chosen: {chosen.strategy.name}",
        chosen.verdict,
        *places(workdir),
        f"device storage: {place} ({DeviceStorage.notice})",
        f"identity: {written.manifest.identity}, rollback counter {written.manifest.counter}",
    ]
    return Reply({**result.report, "workdir": str(workdir), "storage": str(place)}, [*blocks, *lines])


def _notes(model: str, weights: Path | None, public: Path | None, preset: str) -> list[str]:
    """Return what a run takes for granted where options were left out."""
    found = []
    if weights is None and not model.endswith(".pt2"):
        found.append(f"no --weights: {model} is taken as its function builds it; an untrained network is worth nothing")
    if public is None and preset == "public":
        found.append(
            "no --public: the whole network goes to the secure world; give public weights, or --preset faithful"
        )
    return found


def _budgets(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 2 for part in parts):
        raise ConfigError(
            "the query budgets cannot be read",
            expected="whole numbers of at least 2, joined by commas",
            came=repr(text[:60]),
            fix="write for instance --queries 50,200",
        )
    return tuple(sorted({int(part) for part in parts}))


def _schedule(epochs: int) -> Schedule:
    from edgeward.train.part import Schedule

    return Schedule(epochs=epochs, batch=64, rate=2e-3, decay="cosine")
