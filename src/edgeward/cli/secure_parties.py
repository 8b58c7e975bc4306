"""`edgeward secure dealer | assistant | server | client`: one party of a deployment in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import numpy as np
import typer

from edgeward.cli.options import AsJson, Quiet, parse_shape
from edgeward.cli.reply import Reply, table, tell
from edgeward.cli.watch import progress
from edgeward.core.errors import ConfigError

if TYPE_CHECKING:
    from edgeward.backends.mpc.deployment.joining import Expense

DEALER, SERVER, ASSISTANT = "127.0.0.1:7610", "127.0.0.1:7611", "127.0.0.1:7612"
_Keys = Annotated[Path, typer.Option(help="This party's folder of `edgeward secure keys`.", show_default=False)]
Parties = Annotated[
    int, typer.Option(help="2: client, server and a dealer; 3: an assistant instead of the dealer.", min=2, max=3)
]
_Assistant = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--assistant", help=f"Three parties: the assistant's address.  [default: {ASSISTANT}]"),
]
_Plan = Annotated[str, typer.Option(help="Refuse a server whose plan has another digest.")]
_Dealer = Annotated[str, typer.Option("--dealer", help="The dealer's address.")]
_NoDealer = Annotated[bool, typer.Option("--no-dealer", help="Use only what --store holds.")]
_Ahead = Annotated[int, typer.Option(help="Batches of one-time material to hold.", min=1, max=65535)]
_Store = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Keep one-time material here, sealed, over restarts.", show_default=False),
]
_Patience = Annotated[float, typer.Option(help="Seconds in which the others must appear.", min=0.1)]
_Timeout = Annotated[float, typer.Option(help="Seconds for which another party may compute in silence.", min=0.1)]
_Throttle = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--throttle", help="Experiments: slow this party's sending down to lan | wan.", show_default=False),
]


def secure_dealer(
    keys: _Keys,
    listen: Annotated[str, typer.Option(help="Where server and client find this dealer.")] = DEALER,
    folder: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Remember deals here, sealed, so that stores last over restarts.", show_default=False),
    ] = None,
    batches: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Deal no more than this.", min=1, show_default=False),
    ] = None,
    patience: _Patience = 600.0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> Reply:
    """Deal one-time material to one server and one client; this party knows every mask and must be trusted."""
    from edgeward.mpc import deploy

    with _stopping():
        role = deploy("dealer", keys=keys, listen=listen, folder=folder, patience=patience, note=_note(quiet))
        dealt = role.run(batches=batches, dealt=_counting(quiet, "batches dealt"))
    lines = [
        f"dealt {dealt.batches} batches: {dealt.to_server} bytes to the server, {dealt.to_client} to the client",
        "went on with an earlier deal" if dealt.resumed else "a new deal",
    ]
    return Reply(dealt.to_json(), lines)


def secure_assistant(
    keys: _Keys,
    listen: Annotated[str, typer.Option(help="Where server and client find this assistant.")] = ASSISTANT,
    plan: _Plan = "",
    patience: _Patience = 600.0,
    timeout: _Timeout = 300.0,
    throttle: _Throttle = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> Reply:
    """Compute with one server and one client, started with --parties 3; this party must work with neither of them."""
    from edgeward.mpc import deploy

    note = _note(quiet)
    with _stopping():
        terms: dict[str, Any] = {"patience": patience, "timeout": timeout, "network": throttle, "note": note}
        role = deploy("assistant", keys=keys, listen=listen, plan=plan, **terms)
        expense = role.run(answered=_counting(quiet, "batches answered"))
    return Reply(expense.to_json(), _cost_lines(expense))


def secure_server(
    model: Annotated[str, typer.Argument(help="net:NAME?key=value, path.py:function, package.module:function, .pt2")],
    shape: Annotated[str, typer.Option("--input", help="Shape of one record, for instance 3x32x32.")],
    keys: _Keys,
    weights: Annotated[Optional[Path], typer.Option(help="The trained weights.", show_default=False)] = None,  # noqa: UP045
    parties: Parties = 2,
    listen: Annotated[str, typer.Option(help="Where the client finds this server.")] = SERVER,
    assistant: _Assistant = None,
    dealer: _Dealer = DEALER,
    no_dealer: _NoDealer = False,
    records: Annotated[int, typer.Option("--batch", help="Records per batch.", min=1)] = 1,
    fraction: Annotated[int, typer.Option(help="Fraction bits of the 64-bit numbers.", min=4, max=24)] = 16,
    sample: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Records like those to come as .npy: refuse to serve if a layer leaves its range on them.",
            show_default=False,
        ),
    ] = None,
    ahead: _Ahead = 2,
    store: _Store = None,
    patience: _Patience = 600.0,
    timeout: _Timeout = 300.0,
    throttle: _Throttle = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> Reply:
    """Hold MODEL and answer one client's batches, without learning records or answers."""
    from edgeward.backends.mpc.ring import Ring
    from edgeward.core.randomness import Seed
    from edgeward.load import load_model
    from edgeward.mpc import deploy, lowered
    from edgeward.train.population import build

    extents, note = parse_shape(shape), _note(quiet)
    with _stopping():
        module = build(load_model(model, weights=weights, keep=True), Seed(0))
        given = None if sample is None else _read(sample)
        given = given[None] if given is not None and given.shape == extents else given
        plan = lowered(module, extents, records, ring=Ring(64, fraction), sample=given)
        terms = _terms(keys, parties, assistant, dealer, no_dealer, ahead, store, patience, timeout, throttle, note)
        role = deploy("server", model=plan, listen=listen, **terms)
        note(f"plan {plan.plan.digest}")
        expense = role.run(answered=_counting(quiet, "batches answered"))
    return Reply(expense.to_json(), _cost_lines(expense))


def secure_client(
    keys: _Keys,
    records: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--input", help="Records as .npy, one or many.", show_default=False),
    ] = None,
    parties: Parties = 2,
    server: Annotated[str, typer.Option(help="The server's address.")] = SERVER,
    assistant: _Assistant = None,
    dealer: _Dealer = DEALER,
    no_dealer: _NoDealer = False,
    plan: _Plan = "",
    top: Annotated[int, typer.Option(help="Classes to show per record.", min=1, max=1000)] = 3,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the answers here as .npy.", show_default=False),
    ] = None,
    fetch: Annotated[
        int, typer.Option(help="Ask nothing: fill the stores of both parties with this many batches.", min=0)
    ] = 0,
    ahead: _Ahead = 2,
    store: _Store = None,
    patience: _Patience = 30.0,
    timeout: _Timeout = 300.0,
    throttle: _Throttle = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> Reply:
    """Ask the server about the records in --input; nobody but this party learns records or answers."""
    from edgeward.mpc import deploy

    if (records is None) == (not fetch):
        raise ConfigError("nothing to do, or two things", expected="--input FILE.npy or --fetch N", came="none or both")
    if parties == 3 and fetch:
        raise ConfigError("three parties keep no material", expected="--input FILE.npy", came="--fetch", fix="just ask")
    with _stopping(), progress(quiet=quiet) as watcher:
        ahead, note = max(ahead, fetch), _note(quiet)
        terms = _terms(keys, parties, assistant, dealer, no_dealer, ahead, store, patience, timeout, throttle, note)
        client = deploy("client", server=server, plan=plan, **terms)
        given = None if records is None else _read(records)
        with client:
            if given is None:
                client.fetch(fetch)
                answers = None
            else:
                x = given[None] if given.shape == client.plan.input_shape[1:] else given
                answers = client.run(x, lambda done, total: watcher.step("batches", done, total))
    if client.expense is None:
        raise TypeError("a client that has left counted its cost")
    if answers is None:
        return Reply(
            {**client.expense.to_json(), "fetched": fetch},
            [f"{fetch} batches wait in the stores", *_cost_lines(client.expense)],
        )
    return _answer(answers, top, output, client.expense)


def _answer(answers: np.ndarray, top: int, output: Path | None, expense: Expense) -> Reply:
    flat = answers.reshape(len(answers), -1)
    order = np.argsort(-flat, 1, kind="stable")[:, :top]
    rows = [(i, "  ".join(f"{k}: {flat[i, k]:.4f}" for k in order[i])) for i in range(len(flat))]
    document: dict[str, Any] = {
        "labels": [int(row[0]) for row in order],
        "top": [[{"class": int(k), "score": float(flat[i, k])} for k in order[i]] for i in range(len(flat))],
        "cost": expense.to_json(),
    }
    lines = _cost_lines(expense)
    if output is not None:
        _write(output, answers)
        document["output"] = str(output)
        lines.append(f"answers: {output}")
    return Reply(document, [table((">record", "class: score"), rows), "", *lines])


def _terms(
    keys: Path,
    parties: int,
    assistant: str | None,
    dealer: str,
    no_dealer: bool,
    ahead: int,
    store: Path | None,
    patience: float,
    timeout: float,
    throttle: str | None,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Return what server and client give alike to `deploy`."""
    return {
        "keys": keys,
        "parties": parties,
        "assistant": assistant,
        "dealer": None if no_dealer else dealer,
        "ahead": ahead,
        "store": store,
        "patience": patience,
        "timeout": timeout,
        "network": throttle,
        "note": note,
    }


def _cost_lines(expense: Expense) -> list[str]:
    """Return the counts and the words about trust as lines."""
    from edgeward.core.units import human

    said = expense.to_json()
    each = max(expense.batches, 1)
    equal = "as declared" if expense.agrees else "NOT AS DECLARED"
    setup = f"{human(expense.setup.bytes, 'B')} in {expense.setup.rounds} rounds"
    once = f"weights opened: {setup}; from the dealer: {human(expense.offline_received, 'B')}"
    return [
        f"{said['kind']}{', three parties' * (expense.parties == 3)}, {expense.role}: {expense.batches} batches; sent "
        f"{human(expense.online.bytes / each, 'B')} in {expense.online.rounds // each} rounds per batch "
        f"(metered, {equal})",
        once if expense.parties == 2 else f"keys agreed and weights shared: {setup}; nothing was dealt before",
        f"seconds per batch: {expense.seconds_online / each:.3f} online, {expense.seconds_prepare / each:.3f} before "
        "the input is needed",
        f"adversary: {said['adversary']}; trusted: {said['trusted']}; audited: {said['audited']}",
        f"public: {said['public']}; plan {expense.plan}",
    ]


def _counting(quiet: bool, what: str) -> Callable[[int], None]:
    """Return what tells a rising count of unknown end: each power of two."""
    note = _note(quiet)
    return lambda count: note(f"{what}: {count}") if count & (count - 1) == 0 else None


def _note(quiet: bool) -> Callable[[str], None]:
    return (lambda line: None) if quiet else tell


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """Say what an interrupt means here."""
    try:
        yield
    except KeyboardInterrupt:
        tell("stopped: the other parties were told; material that was drawn is lost and will not be used again")
        raise


def _read(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(
            f"'{path.name}' cannot be read",
            expected="a .npy file of numbers",
            came=str(error)[:200],
            fix="write it with numpy.save",
        ) from None


def _write(path: Path, answers: np.ndarray) -> None:
    """Write whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            np.save(file, answers, allow_pickle=False)
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written", came=str(error.strerror), fix="name another file") from None
    finally:
        draft.unlink(missing_ok=True)
