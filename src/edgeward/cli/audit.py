"""`edgeward audit`: measure what a network leaks, and fail above a bound."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Optional

import typer

from edgeward.cli.options import AsJson, Demo, Device, DumpConfig, JobFile, Quiet, SeedFlag, Workdir
from edgeward.cli.reply import Reply, tell
from edgeward.cli.running import crashes, dumped, measured, places, the_job
from edgeward.cli.summary import candidate_table
from edgeward.core.errors import ClaimFailed, ConfigError
from edgeward.core.units import parse_quantity
from edgeward.report.verdict import aside_attacks

FailAbove = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Exit 3 when the strongest attack exceeds this: tpr@1%=0.10, tpr@0.1%=0.05 or auc=0.6."),
]
_RATES: Mapping[str, str] = {"tpr@1%": "tpr_at_1pct", "tpr@0.1%": "tpr_at_0_1pct", "auc": "auc"}


def audit(
    job: JobFile = None,
    demo: Demo = False,
    fail_above: FailAbove = None,
    workdir: Workdir = None,
    device: Device = None,
    seed: SeedFlag = None,
    dump_config: DumpConfig = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> Reply:
    """Attack the network of JOB as its recipes train it ("none" where it names none), without shipping anything."""
    from edgeward.job import RecipeChoice

    bounds = [parse_bound(text) for text in fail_above or ()]
    chosen = the_job(job, demo=demo).overriding(workdir=workdir, device=device, seed=seed)
    if demo:
        chosen = chosen.auditing(tuple(RecipeChoice(name) for name in ("none", "gecko:paper", "gecko:crossfit")))
    if dump_config:
        return dumped(chosen)
    protected = measured(chosen, quiet=quiet, audit_only=True, demo=demo)
    report, (code, traces) = protected.report, crashes(protected)
    exceeded = excesses(report, bounds)
    for line in exceeded:
        tell(f"claim failed: {line}")
    document = {**report, "workdir": str(chosen.output), "exceeded": exceeded}
    blocks: list[Any] = [candidate_table(report), "", *places(chosen.output)]
    return Reply(document, blocks, ClaimFailed.exit_code if exceeded else code, traces)


def parse_bound(text: str) -> tuple[str, float]:
    """Read 'tpr@1%=0.10' as the rate's name and its bound.

    >>> parse_bound("tpr@1%=10%"), parse_bound("auc=0.6")
    (('tpr@1%', 0.1), ('auc', 0.6))
    """
    name, equals, bound = re.sub(r"\s", "", text.lower()).partition("=")
    value = parse_quantity(bound, "", name="--fail-above") if equals else -1.0
    if name not in _RATES or not 0 <= value <= 1:
        raise ConfigError(
            "--fail-above cannot be read",
            expected=f"{', '.join(_RATES)}, an equals sign, and a fraction between 0 and 1",
            came=repr(text[:60]),
            fix="write for instance --fail-above tpr@1%=0.10",
        )
    return name, value


def excesses(report: Mapping[str, Any], bounds: Sequence[tuple[str, float]]) -> list[str]:
    """Return one sentence for each candidate and bound whose point estimate lies above; what failed counts as above.

    The strongest attack on the worst kind of records counts with its corrected rate, the others as they show.
    """
    found = []
    for candidate in report["candidates"]:
        strongest = candidate.get("strongest_attack")
        attacks = ([strongest] if strongest else []) + aside_attacks(candidate)
        for name, bound in bounds:
            worst = max(attacks, key=lambda a: a[_RATES[name]]["value"], default=None)
            if worst is None:
                found.append(f"{candidate['recipe']}: {name} was not measured")
            elif not worst[_RATES[name]]["value"] <= bound:
                rate = worst[_RATES[name]]
                low, high = rate["interval"]
                found.append(
                    f"{candidate['recipe']}: {name} = {rate['value']:.4f} [{low:.4f}, {high:.4f}] by {worst['name']}"
                    f" with {worst['negatives']} non-members, above {bound:g}"
                )
    if bounds:
        found += [f"{entry['recipe']}: was not measured: {entry['reason']}" for entry in report.get("failed", ())]
    if bounds and not found and not report["candidates"]:
        found.append("nothing was measured")
    return found
