"""`edgeward protect`: run a job and ship the chosen candidate with its evidence."""

from __future__ import annotations

from edgeward.cli.options import AsJson, Demo, Device, DumpConfig, JobFile, Quiet, SeedFlag, Workdir
from edgeward.cli.reply import Reply
from edgeward.cli.running import dumped, run_job, the_job


def protect(
    job: JobFile = None,
    demo: Demo = False,
    workdir: Workdir = None,
    device: Device = None,
    seed: SeedFlag = None,
    dump_config: DumpConfig = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> Reply:
    """Measure every candidate of JOB, choose one within the budget, write its bundle and the report."""
    chosen = the_job(job, demo=demo).overriding(workdir=workdir, device=device, seed=seed)
    return dumped(chosen) if dump_config else run_job(chosen, quiet=quiet, demo=demo)
