"""`python -m benchmarks --list`, `python -m benchmarks NAME ... [--json] [--save]`, `python -m benchmarks --all`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from benchmarks.harness import Benchmark, chosen, find
from benchmarks.storing import CHANGED, as_json, require_clean, save
from edgeward.core.errors import EdgewardError

ASIDE = Path("runs/benchmarks")


@final
@dataclass(frozen=True)
class Outcome:
    """What became of one benchmark: its result, or why there is none or why it was not stored."""

    name: str
    result: dict[str, Any] | None = None
    failed: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the result, or the name and the reason."""
        return {"name": self.name, "failed": self.failed} if self.result is None else self.result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run benchmarks; with --json exactly one JSON document goes to stdout.

    One that fails does not keep the others from running; the failures are told at the end. Exit 1 where there was one,
    for an unknown name, and, before anything runs, for --save in a changed tree; 130 after an interrupt.
    """
    try:
        options = _parser().parse_args(arguments)
    except argparse.ArgumentError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except SystemExit as leaving:
        return 1 if leaving.code else 0
    known = find()
    if options.list or not (options.names or options.all or options.slow):
        return _listed(known, options.json)
    try:
        if options.save:
            require_clean(allow_dirty=options.allow_dirty)
        wanted = chosen(options.names, known) if options.names else list(known.values())
    except EdgewardError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    left_out = [] if options.names or options.slow else [one for one in wanted if one.slow]
    outcomes, interrupted = _all_of([one for one in wanted if one not in left_out], options)
    sys.stdout.writelines(_told(outcomes, as_document=options.json))
    sys.stderr.writelines(_word(outcomes, left_out))
    return 130 if interrupted else int(any(outcome.failed for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, exit_on_error=False)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and leave")
    parser.add_argument("--all", action="store_true", help="run every benchmark that does not take hours")
    parser.add_argument("--slow", action="store_true", help="run every benchmark, those that take hours included")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/NAME.json; wants a clean tree")
    parser.add_argument("--allow-dirty", action="store_true", help="--save in a changed tree too, marked as such")
    return parser


def _all_of(benchmarks: Sequence[Benchmark], options: argparse.Namespace) -> tuple[list[Outcome], bool]:
    """Run one after the other; return what became of each that was begun, and whether an interrupt ended it."""
    outcomes: list[Outcome] = []
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        try:
            outcomes.extend(_outcome(one, options) for one in benchmarks)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; what was stored before stays\n")
            return outcomes, True
    return outcomes, False


def _outcome(benchmark: Benchmark, options: argparse.Namespace) -> Outcome:
    sys.stderr.write(f"{benchmark.name}: {benchmark.description}\n")
    try:
        result = benchmark.run()
    except EdgewardError as error:
        return Outcome(benchmark.name, failed=str(error))
    except (Exception, SystemExit) as error:
        traceback.print_exc(file=sys.stderr)
        return Outcome(benchmark.name, failed=f"{type(error).__name__}: {error}")
    return Outcome(benchmark.name, result, _stored(result, allow_dirty=options.allow_dirty) if options.save else "")


def _stored(result: dict[str, Any], *, allow_dirty: bool) -> str:
    """Store a result and return nothing, or why it was put aside: the sources were changed while it ran."""
    changed = str(result["environment"]["commit"]).endswith(CHANGED) and not allow_dirty
    path = save(result, ASIDE) if changed else save(result)
    sys.stderr.write(f"{result['name']}: written to {path}\n")
    return f"the sources were changed while it ran; its result is in {path}" if changed else ""


def _told(outcomes: Sequence[Outcome], *, as_document: bool) -> Iterator[str]:
    if as_document:
        documents = [outcome.to_json() for outcome in outcomes]
        yield as_json(documents[0] if len(documents) == 1 else documents)
    else:
        yield from (_line(outcome.result) for outcome in outcomes if outcome.result is not None)


def _word(outcomes: Sequence[Outcome], left_out: Sequence[Benchmark]) -> Iterator[str]:
    """Yield what stands at the end: what was left out and why, and what failed."""
    for benchmark in left_out:
        yield f"left out, for it takes hours (--slow, or `make bench ALL=1`): {benchmark.name}: {benchmark.slow}\n"
    failed = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failed:
        yield f"error: benchmark '{outcome.name}' failed: {outcome.failed}\n"
    if len(outcomes) > 1:
        yield f"{len(outcomes) - len(failed)} of {len(outcomes)} benchmarks ran through\n"


def _listed(known: dict[str, Benchmark], json: bool) -> int:
    if json:
        rows = [{"name": b.name, "description": b.description, "slow": b.slow} for b in known.values()]
        sys.stdout.write(as_json(rows))
    else:
        slow = " (slow: {})"
        sys.stdout.writelines(
            f"{b.name}: {b.description}{slow.format(b.slow) if b.slow else ''}\n" for b in known.values()
        )
    return 0


def _line(result: dict[str, Any]) -> str:
    unit = result["unit"]
    times = f"ours {result['ours']:.4g} {unit}, peer {result['peer']:.4g} {unit}"
    return f"{result['name']}: ratio {result['ratio']:.4g} ({times})\n"


if __name__ == "__main__":
    sys.exit(main())
