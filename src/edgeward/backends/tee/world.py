"""`SecureWorld`: where the secret half of a network runs, behind a door shaped like GlobalPlatform's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, final, get_args

from edgeward.backends.tee.deployment import TOP, OutputPolicy
from edgeward.codegen.emit import Program
from edgeward.core.errors import ConfigError, EdgewardError

if TYPE_CHECKING:
    from edgeward.backends.tee.session import Session


_DIGEST_BYTES = 32
_LARGEST_BUDGET = 1 << 31
_LARGEST_SIZE = (1 << 31) - 256


class Result(IntEnum):
    """The codes of the GlobalPlatform TEE Internal Core API that an edgeward application answers with."""

    TEE_SUCCESS = 0
    TEE_ERROR_GENERIC = 0xFFFF0000
    TEE_ERROR_ACCESS_DENIED = 0xFFFF0001
    TEE_ERROR_BAD_FORMAT = 0xFFFF0005
    TEE_ERROR_BAD_PARAMETERS = 0xFFFF0006
    TEE_ERROR_BAD_STATE = 0xFFFF0007
    TEE_ERROR_NOT_SUPPORTED = 0xFFFF000A
    TEE_ERROR_OUT_OF_MEMORY = 0xFFFF000C
    TEE_ERROR_SECURITY = 0xFFFF000F
    TEE_ERROR_SHORT_BUFFER = 0xFFFF0010
    TEE_ERROR_TARGET_DEAD = 0xFFFF3024
    TEE_ERROR_MAC_INVALID = 0xFFFF3071


class Command(IntEnum):
    """What the trusted application can be asked; FORBIDDEN exists in test builds only."""

    NOOP = 0
    LOAD = 1
    INFER = 2
    FEED = 3
    FORBIDDEN = 0xF0


class SecureWorldError(EdgewardError):
    """A secure world did not do what it was asked; `result` is its code."""

    def __init__(
        self,
        what: str,
        *,
        result: Result = Result.TEE_ERROR_GENERIC,
        expected: str = "",
        came: str = "",
        fix: str = "",
    ) -> None:
        """Keep the code beside the message."""
        self.result = result
        super().__init__(what, expected=expected, came=came, fix=fix)


@final
class SecureMemoryExceeded(SecureWorldError):
    """The application needs more memory than the secure world's budget: TEE_ERROR_OUT_OF_MEMORY."""

    exit_code = 2


@final
class SecureWorldDead(SecureWorldError):
    """The secure side is gone (killed, trapped, timed out or closed): TEE_ERROR_TARGET_DEAD."""


@final
class SecureWorldUnavailable(SecureWorldError):
    """This tier cannot run here."""

    exit_code = 1


@final
@dataclass(frozen=True)
class Application:
    """A trusted application and everything fixed before it opens; all of it belongs in what `manifest_digest` covers.

    `program` is the network in C; its one output is int8 logits, or one int32 where `ends_in_argmax`. `memory_budget`
    counts the bytes the application may take: sealed weights, arena, copies of its inputs and its output (code and
    stack are not in it). `counter_floor` is the lowest rollback counter it accepts. `policy` says what leaves: the
    label, the labels of the 5 best classes in order, or the logits. `asked` counts the inferences of former sessions,
    for weights that are sealed with a query limit.

    Raises: `ConfigError` with every problem.
    """

    program: Program
    manifest_digest: bytes
    memory_budget: int
    counter_floor: int = 0
    policy: OutputPolicy = "label"
    ends_in_argmax: bool = True
    asked: int = 0

    def __post_init__(self) -> None:
        """Check the figures; all problems in one error."""
        problems = _problems(self)
        if problems:
            raise ConfigError("this cannot be a trusted application:\n    " + "\n    ".join(problems))

    @property
    def needed_bytes(self) -> int:
        """Least memory budget under which a session opens."""
        from edgeward.backends.tee.sealing import ENVELOPE_BYTES

        program = self.program
        record = 8 * (len(program.input_bytes) + 6)  # the session's own, with its pointers
        pieces = [record, program.weights_bytes + ENVELOPE_BYTES, program.arena_bytes, *program.input_bytes]
        return sum((max(size, 1) + 63) // 64 * 64 for size in [*pieces, *program.output_bytes])

    @property
    def answer_bytes(self) -> int:
        """Bytes that leave the secure world per inference."""
        classes = self.program.output_bytes[0]
        return {"label": 4, "topk": 4 * min(TOP, classes), "logits": classes}[self.policy]

    @property
    def policy_code(self) -> int:
        """The policy as the C text knows it (`ta.h`)."""
        return get_args(OutputPolicy).index(self.policy)


def _problems(application: Application) -> list[str]:
    program, policy = application.program, application.policy
    found = []
    if len(application.manifest_digest) != _DIGEST_BYTES:
        found.append(f"a manifest digest of {len(application.manifest_digest)} bytes, expected {_DIGEST_BYTES}")
    if not 0 < application.memory_budget <= _LARGEST_BUDGET:
        found.append(f"a memory budget of {application.memory_budget} bytes, expected 1 to {_LARGEST_BUDGET}")
    if not 0 <= application.counter_floor < 1 << 64:
        found.append(f"counter floor {application.counter_floor}, expected 64 bits without a sign")
    if not 0 <= application.asked < 1 << 64:
        found.append(f"{application.asked} former inferences, expected 64 bits without a sign")
    if policy not in get_args(OutputPolicy):
        found.append(f"policy '{policy}', expected one of {', '.join(get_args(OutputPolicy))}")
    sizes: dict[str, tuple[int, ...]] = {"weights": (program.weights_bytes,), "arena": (program.arena_bytes,)}
    sizes |= {"input": program.input_bytes, "output": program.output_bytes}
    for name, figures in sizes.items():
        least = 1 if name in ("input", "output") else 0
        found += [f"{name} of {n} bytes" for n in figures if not least <= n <= _LARGEST_SIZE]
    if len(program.output_bytes) != 1:
        found.append(f"{len(program.output_bytes)} outputs of the network, expected one answer")
    elif application.ends_in_argmax and program.output_bytes != (4,):
        found.append(f"an output of {program.output_bytes[0]} bytes, expected the 4 of an arg-max")
    if application.ends_in_argmax and policy != "label":
        found.append(f"policy '{policy}' with a network that ends in arg-max: it has a label to give, no more")
    if not program.input_bytes:
        found.append("a network without inputs")
    return found


class SecureWorld(ABC):
    """One way of running trusted applications.

    `tier` names it, `notice` says what it protects from and what not; both are printed with every answer.
    """

    tier: ClassVar[str]
    notice: ClassVar[str]

    @abstractmethod
    def build(self, application: Application) -> Path:
        """Return the compiled trusted application: the file that evidence measures. Built once per content."""

    @abstractmethod
    def open_session(self, application: Application) -> Session:
        """Start `application` with its whole memory taken.

        Raises: `SecureMemoryExceeded` over budget, `SecureWorldUnavailable` where this tier cannot run.
        """


def over_budget(application: Application) -> SecureMemoryExceeded:
    """Return the error of an application that does not fit its budget."""
    program, budget = application.program, application.memory_budget
    if application.needed_bytes <= budget:
        return SecureMemoryExceeded(
            "TEE_ERROR_OUT_OF_MEMORY: this machine does not give the secure world its budget",
            result=Result.TEE_ERROR_OUT_OF_MEMORY,
            expected=f"{budget} bytes of free memory",
            fix=f"lower the budget; the application needs {application.needed_bytes} bytes",
        )
    parts = f"weights {program.weights_bytes}, arena {program.arena_bytes}, inputs {sum(program.input_bytes)}"
    return SecureMemoryExceeded(
        "TEE_ERROR_OUT_OF_MEMORY: the trusted application does not fit the secure world",
        result=Result.TEE_ERROR_OUT_OF_MEMORY,
        expected=f"at most {budget} bytes of secure memory",
        came=f"{application.needed_bytes} bytes ({parts}, the rest for sealing, output and alignment)",
        fix="choose a smaller monitor, pool its taps, or raise the budget if the device has the memory",
    )
