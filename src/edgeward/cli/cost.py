"""`edgeward cost`: what a network costs on a device, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edgeward.cli.options import AsJson, parse_shape
from edgeward.cli.reply import Reply, plain, table
from edgeward.core.cost import Cost
from edgeward.core.units import human


def cost(
    model: Annotated[
        str, typer.Argument(help="net:NAME?key=value, path.py:function, package.module:function, FILE.pt2")
    ],
    shape: Annotated[str, typer.Option("--input", help="Shape of one record, for instance 3x32x32.")],
    device: Annotated[str, typer.Option(help="Device profile, or a .toml of your own.")] = "cortex-m7",
    weights: Annotated[Optional[Path], typer.Option(help="Weights to count.", show_default=False)] = None,  # noqa: UP045
    as_json: AsJson = False,
) -> Reply:
    """Count parameters, MACs and bytes of MODEL and predict memory, latency and energy on a device."""
    from edgeward.core.randomness import Seed
    from edgeward.devices import load_profile
    from edgeward.graph import capture
    from edgeward.load import load_model
    from edgeward.measure.cost import fits, network_cost
    from edgeward.measure.form import device_form
    from edgeward.train.population import build

    extents, profile = parse_shape(shape), load_profile(device)
    module = build(load_model(model, weights=weights, keep=True), Seed(0))
    network = capture(module.eval(), extents)
    total, layers = network_cost(network, profile)
    form = device_form(network, profile)
    rows = [(row.name, row.operator, _by(row.output_shape), human(row.macs, "MAC"), row.weight_bits) for row in layers]
    against = fits(total, profile)
    document = {
        "fits": not against,
        "against": against,
        "model": model,
        "input": list(extents),
        "device": profile.name,
        "form": {"backend": form.backend, "title": form.title, "why_not": form.why_not},
        "cost": total.to_json(),
        "layers": [vars(row) for row in layers],
    }
    blocks: list[Any] = [
        table(("layer", "operator", ">output", ">MACs", ">weight bits"), rows, title=f"{model} on {profile.name}"),
        "",
        cost_table(total),
        "",
        f"priced as {form.title}"
        + (f": no form that edgeward writes runs there; {form.why_not}" if form.why_not else ""),
        *([f"does not fit: {reason}" for reason in against] or [f"fits {profile.name}"]),
    ]
    return Reply(document, blocks)


def cost_table(total: Cost) -> Any:
    """Return one row for each quantity, with its provenance."""
    rows = [(name, human(q.value, q.unit), q.provenance, q.source) for name, q in total.items()]
    return table(("quantity", ">value", "provenance", "source"), rows)


def _by(extents: tuple[int, ...]) -> str:
    return plain("x".join(map(str, extents))).plain
