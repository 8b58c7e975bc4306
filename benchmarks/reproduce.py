"""`python -m benchmarks.reproduce gecko [--save]`: run the jobs of a claim file and check its statements.

A claim that does not hold is reported as such; the exit code is 3 then, and the numbers are written all the same.
"""

import argparse
import datetime
import sys
from pathlib import Path

from benchmarks.storing import CHANGED, as_json, require_clean, save
from edgeward.cli.watch import Lines
from edgeward.core.errors import EdgewardError
from edgeward.job import load_job
from edgeward.job.tables import parse_toml
from edgeward.measure.fingerprint import environment

CLAIMS = Path(__file__).parent / "claims"
RATES = ("name", "auc", "tpr_at_1pct", "tpr_at_0_1pct", "balanced_accuracy")


def rate(candidate: dict, metric: str) -> float:
    """Return a rate of the strongest attack."""
    return candidate["strongest_attack"][metric]["value"]


def holds(check: dict, candidates: dict[str, dict]) -> dict:
    """Evaluate one check on the candidates of one job, by recipe name."""
    missing = [check[side] for side in ("left", "right") if check[side] not in candidates]
    if missing:
        return {"check": check["name"], "holds": None, "not_measured": missing}
    left, right = candidates[check["left"]], candidates[check["right"]]
    if check["kind"] == "leaks_more":
        a, b = rate(left, check["metric"]), rate(right, check["metric"])
        return {"check": check["name"], "left": a, "right": b, "holds": a > b}
    drop = left["audit_accuracy"]["value"] - right["audit_accuracy"]["value"]
    return {"check": check["name"], "drop": drop, "at_most": check["at_most"], "holds": drop <= check["at_most"]}


def row(candidate: dict) -> dict:
    """Return what is kept of a candidate: no curve, no per-layer table."""
    attack = candidate["strongest_attack"]
    gap = next(a for a in candidate["attacks"] if a["name"] == "gap")
    loss = next(a for a in candidate["attacks"] if a["name"] == "loss")
    return {
        "recipe": candidate["recipe"],
        "config": candidate["config"],
        "test_accuracy": candidate["test_accuracy_estimate"],
        "audit_accuracy": candidate["audit_accuracy"],
        "train_accuracy": candidate["train_accuracy"],
        "strongest_attack": {key: attack[key] for key in RATES},
        "gap_balanced_accuracy": gap["balanced_accuracy"],
        "loss_threshold_balanced_accuracy": loss["balanced_accuracy"],
        "nonzeros": candidate["cost"]["nonzeros"],
        "file_bytes": candidate["cost"]["file_bytes"],
        "training_seconds": candidate["cost"]["training_seconds"],
    }


def reproduce(name: str, workdir: Path) -> dict:
    """Run (or resume) every job of the claim and check its statements on each."""
    claim = parse_toml((CLAIMS / f"{name}.toml").read_text(encoding="utf-8"), name=name)
    runs = []
    for job_file in claim["jobs"]:
        job = load_job(CLAIMS / job_file).overriding(workdir=workdir / Path(job_file).stem)
        report = job.run(Lines()).report
        by_recipe = {c["recipe"]: c for c in reversed(report["candidates"])}
        runs.append(
            {
                "job": job_file,
                "data": report["data"],
                "candidates": [row(candidate) for candidate in report["candidates"]],
                "failed": report["failed"],
                "checks": [holds(check, by_recipe) for check in claim["check"]],
            }
        )
    return {
        "name": f"claims-{name}",
        "title": claim["title"],
        "scale": claim["scale"],
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "environment": environment(),
        "runs": runs,
        "holds": all(check["holds"] is not False for run in runs for check in run["checks"]),
        "not_measured": [c["check"] for run in runs for c in run["checks"] if c["holds"] is None],
    }


def main() -> int:
    """Reproduce one claim file and print (and with --save keep) the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    parser.add_argument("claim", choices=sorted(p.stem for p in CLAIMS.glob("*.toml") if "-" not in p.stem))
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/claims-NAME.json")
    parser.add_argument("--workdir", type=Path, default=Path("runs/claims"))
    parser.add_argument("--allow-dirty", action="store_true", help="--save in a changed tree too, marked as such")
    options = parser.parse_args()
    try:
        if options.save:
            require_clean(allow_dirty=options.allow_dirty)
        result = reproduce(options.claim, options.workdir)
    except EdgewardError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    if options.save:
        changed = str(result["environment"]["commit"]).endswith(CHANGED) and not options.allow_dirty
        path = save(result, options.workdir) if changed else save(result)
        sys.stderr.write(f"written to {path}\n")
    sys.stdout.write(as_json(result))
    return 0 if result["holds"] else 3


if __name__ == "__main__":
    sys.exit(main())
