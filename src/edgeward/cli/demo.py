"""`edgeward demo`: the built-in job, the same as `edgeward protect --demo`."""

from __future__ import annotations

from edgeward.cli.options import AsJson, Quiet, SeedFlag, Workdir
from edgeward.cli.reply import Reply
from edgeward.cli.running import run_job, the_job


def demo(workdir: Workdir = None, seed: SeedFlag = None, quiet: Quiet = False, as_json: AsJson = False) -> Reply:
    """Protect a small network on handwritten digits; nothing is downloaded."""
    return run_job(the_job(None, demo=True).overriding(workdir=workdir, seed=seed), quiet=quiet, demo=True)
