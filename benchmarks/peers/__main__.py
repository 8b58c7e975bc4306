"""`python -m benchmarks.peers [NAME ...]`: say which are there; `--missing` makes those that lack, `--install` all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.peers.environments import PEERS, install, peer
from edgeward.core.errors import EdgewardError


def main(arguments: Sequence[str] | None = None) -> int:
    """Install or list peers; exit 1 for an unknown name or a failed installation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)} (default: all)")
    parser.add_argument("--install", action="store_true", help="make the environments anew")
    parser.add_argument("--missing", action="store_true", help="make the environments that are not there")
    options = parser.parse_args(arguments)
    try:
        for chosen in [peer(name) for name in options.names or PEERS]:
            if options.install or (options.missing and not chosen.installed):
                install(chosen, lambda line: sys.stderr.write(line + "\n"))
            there = "installed" if chosen.installed else "not installed"
            sys.stdout.write(f"{chosen.name}: {chosen.title}: {there} in {chosen.folder}\n")
    except EdgewardError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
