"""The exception tree of edgeward.

EdgewardError
├── UserError              exit 1: what was given cannot be used as given
│   ├── ConfigError            a job file, a flag or an argument
│   ├── DataError              records: shapes, labels, roles, overlap, checksums
│   ├── ModelError             a network that cannot be built, read or captured
│   │   └── UnsupportedOperators   every operator that has no place in the graph, in one error
│   ├── CompositionError       parts of a recipe that may not be combined
│   ├── AccessViolation        an attack that reads more than its declared access
│   └── MissingExtra           an optional dependency, with the exact install command
├── NoFeasibleCandidate    exit 2: no measured candidate meets the budget
├── VerificationFailed     exit 3: a bundle is not what its manifest says
└── ClaimFailed            exit 3: a measured number misses the bound it was asked to meet
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class EdgewardError(Exception):
    """Anything edgeward reports on purpose; `exit_code` is what the command line returns."""

    exit_code: int = 4

    def __init__(self, what: str, *, expected: str = "", came: str = "", fix: str = "") -> None:
        """Compose a message from what is wrong, what was expected, what came, and what to do next."""
        self.what, self.expected, self.came, self.fix = what, expected, came, fix
        lines = [what]
        lines += [f"  expected: {expected}"] if expected else []
        lines += [f"  came:     {came}"] if came else []
        lines += [f"  fix:      {fix}"] if fix else []
        super().__init__("\n".join(lines))


class UserError(EdgewardError):
    """What was given cannot be used as given."""

    exit_code = 1


class ConfigError(UserError):
    """A job file, a flag or an argument is wrong."""


class DataError(UserError):
    """Records are missing, malformed, altered or in two roles at once."""


class ModelError(UserError):
    """A network cannot be built, read or captured."""


class UnsupportedOperators(ModelError):
    """Every operator of a network that the graph (or an integer network) has no place for, with its layer and a fix."""

    def __init__(
        self,
        problems: Sequence[tuple[str, str, str]],
        *,
        expected: str = "operators listed by `edgeward.graph.OPERATORS`",
    ) -> None:
        """List all problems as (layer name, operator, fix)."""
        self.problems = tuple(problems)
        listing = "\n".join(f"    {layer}: {operator} -> {fix}" for layer, operator, fix in problems)
        super().__init__(
            f"{len(problems)} unsupported operator{'s' if len(problems) != 1 else ''}:\n{listing}",
            expected=expected,
            fix="change the layers above, or open an issue naming the operator",
        )


class CompositionError(UserError):
    """Parts of a recipe may not be combined; all reasons are listed."""


class AccessViolation(UserError):
    """An attack read more of the target than its declared access."""


class MissingExtra(UserError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        """Name the package and the install command."""
        super().__init__(
            f"{package} is not installed",
            expected=f"the extra '{extra}'",
            fix=f"pip install 'edgeward[{extra}]'",
        )


class NoFeasibleCandidate(EdgewardError):
    """No measured candidate meets the budget: names the binding constraint and the nearest miss."""

    exit_code = 2


class VerificationFailed(EdgewardError):
    """A bundle's files are not what its manifest says."""

    exit_code = 3


class ClaimFailed(EdgewardError):
    """A measured number misses the bound it was asked to meet."""

    exit_code = 3


def unknown_name(kind: str, name: str, known: Iterable[str], *, error: type[UserError] = ConfigError) -> UserError:
    """Build the error for a name that is not registered, with the nearest known ones.

    >>> print(unknown_name("device", "cortex-m8", ["cortex-m7", "rpi4"]))
    unknown device 'cortex-m8'
      expected: one of cortex-m7, rpi4
      came:     'cortex-m8'
      fix:      did you mean 'cortex-m7'?
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    fix = f"did you mean '{near[0]}'?" if near else f"choose one of the {len(names)} names above"
    return error(f"unknown {kind} '{name}'", expected=f"one of {', '.join(names)}", came=repr(name), fix=fix)
