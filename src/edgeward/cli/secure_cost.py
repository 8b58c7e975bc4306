"""`edgeward secure cost`: what a network costs on secret records, before anything is run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import numpy as np
import typer

from edgeward.cli.options import AsJson, parse_shape
from edgeward.cli.reply import Reply, table
from edgeward.core.errors import ConfigError, EdgewardError, unknown_name
from edgeward.core.units import human

if TYPE_CHECKING:
    from edgeward.backends.mpc.inference.expense import CostTable
    from edgeward.backends.mpc.inference.lowering import Lowered
    from edgeward.backends.mpc.inference.savings import Saving
    from edgeward.backends.mpc.transport.network import Network as Link
    from edgeward.graph.network import Network

_CHEAP_BYTES = 1 << 27
"""Corrections up to which both parties are run once on this machine to measure the computing."""
_LAYERS_SHOWN = 40


def secure_cost(
    model: Annotated[
        str, typer.Argument(help="net:NAME?key=value, path.py:function, package.module:function, FILE.pt2")
    ],
    shape: Annotated[str, typer.Option("--input", help="Shape of one record, for instance 1x224x224.")],
    network: Annotated[
        str, typer.Option(help="lan | wan | bandwidth and round trip, for instance 50Mbit,20ms.")
    ] = "lan",
    protocol: Annotated[
        str, typer.Option(help="Whose protocol: dealer (the one that runs here), sci-ot, ..., or all.")
    ] = "all",
    records: Annotated[int, typer.Option("--batch", help="Records per batch.", min=1)] = 1,
    weights: Annotated[Optional[Path], typer.Option(help="The trained weights.", show_default=False)] = None,  # noqa: UP045
    measure: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--measure/--no-measure", help="Run it once here; default: if it is cheap.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> Reply:
    """Model bytes, rounds and seconds of MODEL per layer and per protocol, and say which operators to replace."""
    from edgeward.backends.mpc.cost import Cost
    from edgeward.backends.mpc.inference.expense import cost_table
    from edgeward.backends.mpc.inference.lowering import lower
    from edgeward.backends.mpc.inference.savings import savings
    from edgeward.core.randomness import Seed
    from edgeward.graph import capture
    from edgeward.load import load_model
    from edgeward.train.population import build

    extents, link = parse_shape(shape), _link(network)
    _check_protocol(protocol)
    graph = capture(build(load_model(model, weights=weights, keep=True), Seed(0)), extents)
    plan = lower(graph, records)
    declared = cost_table(plan.plan)

    def price(changed: Network) -> Cost:
        return cost_table(lower(changed, records).plan).online

    saved = savings(graph, price)
    seconds = _measured(plan, declared, measure)
    prices, refused = _prices(graph, records, protocol, link)
    document = {
        "kind": "modelled",
        "model": model,
        "input": list(extents),
        "batch": records,
        "network": {"name": link.name, "bits_per_second": link.bits_per_second, "round_trip": link.round_trip_seconds},
        "declared": declared.to_json(link),
        "measured_seconds_here": seconds,
        "protocols": prices,
        "protocols_refused": refused,
        "replace": [{**one.to_json(), "seconds": link.seconds(one.bytes, one.rounds)} for one in saved],
    }
    blocks: list[Any] = [
        _layers(declared, link, f"{model}, {records} record(s), on '{link.name}': modelled"),
        "",
        *_sum_lines(declared, link, seconds),
        "",
        _protocols(prices, refused, link),
        "",
        *_replace_lines(saved, declared, link),
    ]
    return Reply(document, blocks)


def _link(text: str) -> Link:
    """Read 'lan', 'wan' or '50Mbit,20ms'."""
    from edgeward.backends.mpc.transport.network import LAN, WAN
    from edgeward.backends.mpc.transport.network import Network as Link
    from edgeward.core.units import parse_quantity

    known = {"lan": LAN, "wan": WAN}
    if text in known:
        return known[text]
    rate, comma, delay = text.partition(",")
    if not comma:
        raise unknown_name("network", text[:40], known)
    lowered = rate.strip().lower().removesuffix("/s").removesuffix("ps")
    factor = next((f for unit, f in (("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)) if lowered.endswith(unit)), 0.0)
    try:
        bits = float(lowered[:-4]) * factor
    except ValueError:
        bits = 0.0
    if not bits > 0:
        raise ConfigError("the bandwidth cannot be read", expected="for instance 50Mbit", came=repr(rate[:40]))
    return Link(text, bits, parse_quantity(delay.strip(), "s", name="network"))


def _check_protocol(name: str) -> None:
    from edgeward.backends.mpc.costs import COST_MODELS

    if name not in ("all", *COST_MODELS):
        raise unknown_name("protocol", name[:40], ("all", *COST_MODELS))


def _prices(graph: Network, records: int, protocol: str, link: Link) -> tuple[dict[str, Any], dict[str, str]]:
    """Return every asked protocol's price list, and why others have none."""
    from edgeward.backends.mpc.costs import COST_MODELS
    from edgeward.graph import fold_batch_norm, remove_identities

    found: dict[str, Any] = {}
    refused: dict[str, str] = {}
    plain = fold_batch_norm(remove_identities(graph))
    for name in COST_MODELS if protocol == "all" else (protocol,):
        model = COST_MODELS[name]()
        try:
            prices = model.prices(graph if name == "dealer" else plain, records)
        except EdgewardError as error:
            if protocol != "all":
                raise
            refused[name] = error.what
            continue
        found[name] = {**prices.to_json(link), "seconds": prices.seconds(link), "trust": model.trust}
    return found, refused


def _measured(plan: Lowered, declared: CostTable, measure: bool | None) -> float | None:
    """Return the seconds of one batch with both parties and the dealer in this process, or None if not asked for."""
    from edgeward.backends.mpc.inference.simulation import simulate

    if measure is False or (measure is None and declared.offline > _CHEAP_BYTES):
        return None
    records = np.zeros(plan.plan.input_shape, np.float32)
    start = time.monotonic()
    simulate(plan, records)
    return time.monotonic() - start


def _layers(declared: CostTable, link: Link, title: str) -> Any:
    rows = list(declared.rows)
    shown = {id(row) for row in sorted(rows, key=lambda row: -row.online.bytes)[:_LAYERS_SHOWN]}
    cells = [
        (
            row.layer or row.label,
            row.operator,
            human(row.online.bytes, "B"),
            row.online.rounds,
            human(row.offline, "B"),
            f"{link.seconds(row.online.bytes, row.online.rounds):.4f}",
        )
        for row in rows
        if id(row) in shown
    ]
    left = len(rows) - len(cells)
    names = ("layer", "operator", ">bytes each sends", ">rounds", ">from the dealer", ">seconds of talk")
    return table(names, cells, title=title + (f" (the {len(cells)} largest; {left} more with --json)" if left else ""))


def _sum_lines(declared: CostTable, link: Link, seconds: float | None) -> list[str]:
    online, setup = declared.online, declared.setup
    here = "not measured (--measure runs it once)" if seconds is None else f"{seconds:.2f} s measured here"
    return [
        f"per batch: {human(online.bytes, 'B')} sent by each party in {online.rounds} rounds; "
        f"{human(declared.offline, 'B')} from the dealer before",
        f"once: {human(setup.bytes, 'B')} sent by each in {setup.rounds} rounds, to open the masked weights",
        f"talk: {declared.seconds(link):.3f} s modelled on '{link.name}'; computing, both parties and dealer: {here}",
        "adversary: semi-honest, static, one of the parties; trusted: the dealer, offline; audited: no",
    ]


def _protocols(prices: dict[str, Any], refused: dict[str, str], link: Link) -> Any:
    rows = [
        (
            name,
            human(found["total"]["bytes"], "B"),
            found["total"]["rounds"],
            human(found["total"]["offline"], "B"),
            f"{found['seconds']:.3f}",
            found["trust"],
        )
        for name, found in prices.items()
    ]
    rows += [(name, "-", "-", "-", "-", reason.splitlines()[0]) for name, reason in refused.items()]
    names = ("protocol", ">bytes of all", ">rounds", ">offline", f">seconds of talk, {link.name}", "trust")
    return table(names, rows, title="per protocol: modelled")


def _replace_lines(saved: tuple[Saving, ...], declared: CostTable, link: Link) -> list[str]:
    total, lines = declared.online, []
    for one in saved:
        seconds = link.seconds(one.bytes, one.rounds)
        if seconds > 0:
            share = f"{abs(one.bytes) / total.bytes:.0%} {'fewer' if one.bytes >= 0 else 'more'} bytes"
            rounds = f"{abs(one.rounds)} of {total.rounds} rounds {'fewer' if one.rounds >= 0 else 'more'}"
            lines.append(f"  {one.operator} -> {one.instead}: {share}, {rounds}, {seconds:.3f} s less talk")
    if not lines:
        return ["nothing to replace that would save time on this network"]
    return ["to replace (another network then: train it anew and look at its accuracy):", *lines]
