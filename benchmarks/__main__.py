"""`python -m benchmarks --list`, `python -m benchmarks NAME [--json] [--save]`, `python -m benchmarks --all`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.harness import Benchmark, as_json, find, named, save
from edgeward.core.errors import EdgewardError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run benchmarks; with --json exactly one JSON document goes to stdout. Exit 1 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, exit_on_error=False)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and leave")
    parser.add_argument("--all", action="store_true", help="run every benchmark")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/NAME.json")
    try:
        options = parser.parse_args(arguments)
    except argparse.ArgumentError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except SystemExit as leaving:
        return 1 if leaving.code else 0
    known = find()
    if options.list or not (options.names or options.all):
        return _listed(known, options.json)
    try:
        chosen = [named(name, known) for name in (known if options.all else options.names)]
        with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
            results = [_ran(benchmark, options.save) for benchmark in chosen]
    except EdgewardError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    if options.json:
        sys.stdout.write(as_json(results[0] if len(results) == 1 else results))
    else:
        for result in results:
            sys.stdout.write(_line(result))
    return 0


def _ran(benchmark: Benchmark, keep: bool) -> dict[str, Any]:
    sys.stderr.write(f"{benchmark.name}: {benchmark.description}\n")
    result = benchmark.run()
    if keep:
        sys.stderr.write(f"{benchmark.name}: written to {save(result)}\n")
    return result


def _listed(known: dict[str, Benchmark], json: bool) -> int:
    if json:
        sys.stdout.write(as_json([{"name": b.name, "description": b.description} for b in known.values()]))
    else:
        sys.stdout.writelines(f"{b.name}: {b.description}\n" for b in known.values())
    return 0


def _line(result: dict[str, Any]) -> str:
    unit = result["unit"]
    times = f"ours {result['ours']:.4g} {unit}, peer {result['peer']:.4g} {unit}"
    return f"{result['name']}: ratio {result['ratio']:.4g} ({times})\n"


if __name__ == "__main__":
    sys.exit(main())
