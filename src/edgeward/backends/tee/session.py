"""`Session`: an open door to a trusted application, with the calls GlobalPlatform's client API knows."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Any, final

import numpy as np
from jaxtyping import Int8

from edgeward.backends.tee.sealing import ENVELOPE_BYTES, Refusal, SealedBlobError
from edgeward.backends.tee.world import Application, Command, Result, SecureWorldDead, SecureWorldError
from edgeward.core.errors import DataError

MESSAGE = struct.Struct("<II8Q")
_ALIGNMENT = 64


class ParamType(IntEnum):
    """The parameter types of the GlobalPlatform API, 4 bits each in the types word."""

    NONE = 0
    VALUE_INPUT = 1
    VALUE_OUTPUT = 2
    VALUE_INOUT = 3
    MEMREF_INPUT = 5
    MEMREF_OUTPUT = 6
    MEMREF_INOUT = 7


_MEMREFS = (ParamType.MEMREF_INPUT, ParamType.MEMREF_OUTPUT, ParamType.MEMREF_INOUT)


@final
@dataclass
class Param:
    """One of the four parameters of an invocation; outputs are written into it, as the client API does.

    A value is (`a`, `b`), 32 bits each. A memory reference is `data`: what goes in, or room for what comes out; after
    the call `size` is what the application wrote, or would have written where the room was too short.
    """

    kind: ParamType = ParamType.NONE
    a: int = 0
    b: int = 0
    data: bytes = b""
    size: int = 0

    @staticmethod
    def value(a: int = 0, b: int = 0, kind: ParamType = ParamType.VALUE_INPUT) -> Param:
        """Return a value parameter."""
        return Param(kind, a, b)

    @staticmethod
    def memory(data: bytes, kind: ParamType = ParamType.MEMREF_INPUT) -> Param:
        """Return a memory reference with `data` in it."""
        return Param(kind, data=data, size=len(data))


@final
@dataclass
class Meter:
    """What the session has cost: entries into the secure world, bytes copied in and out, wasm fuel where metered."""

    switches: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    fuel: int | None = None


class Channel(ABC):
    """How messages reach a secure world: `shared` is the window of memory that both sides see."""

    shared: np.ndarray
    meter: Meter

    @abstractmethod
    def exchange(self, request: bytes) -> bytes:
        """Send one message of `MESSAGE` and return the answer. Raises: `SecureWorldDead`."""

    @abstractmethod
    def close(self) -> None:
        """End the secure side and give back what it held; may be called twice."""


def window_bytes(application: Application) -> int:
    """Return the size of the shared window: one sealed blob, or all inputs and the answer."""
    program = application.program
    blob = program.weights_bytes + ENVELOPE_BYTES
    exchange = _aligned(sum(program.input_bytes)) + _aligned(application.answer_bytes)
    return -(-max(blob, exchange, 4096) // 4096) * 4096


def configuration(application: Application) -> bytes:
    """Return the application's `struct edgeward_configuration`."""
    digest, counts = application.manifest_digest, (application.counter_floor, application.asked)
    return struct.pack("<32sQQII", digest, *counts, application.policy_code, int(application.ends_in_argmax))


@final
class Session:
    """An open session. Not for several threads at once."""

    def __init__(self, application: Application, channel: Channel) -> None:
        """Speak with `application` through `channel`, which the session owns from here on."""
        self._application, self._channel = application, channel
        self._shared = channel.shared
        self._sizes = list(application.program.input_bytes)
        self._starts = np.cumsum((0, *self._sizes)).tolist()
        # The two messages of the fast path never change.
        self._noop = MESSAGE.pack(Command.NOOP, 0, *[0] * 8)
        self._answer_at, room = _aligned(self._starts[-1]), application.answer_bytes
        types = ParamType.MEMREF_INPUT | ParamType.MEMREF_OUTPUT << 4
        self._infer = MESSAGE.pack(Command.INFER, types, 0, self._starts[-1], self._answer_at, room, 0, 0, 0, 0)

    @property
    def meter(self) -> Meter:
        """What the session has cost so far."""
        return self._channel.meter

    def noop(self) -> None:
        """Enter the secure world and come back. Cost: one switch."""
        self._channel.meter.switches += 1
        _check(MESSAGE.unpack(self._channel.exchange(self._noop))[0], "do nothing")

    def load(self, sealed: bytes) -> int:
        """Hand over the sealed weights, once per session, and return their rollback counter.

        Raises: `BlobRefused` with the reason; nothing of a refused blob stays in secure memory.
        """
        counter = Param.value(kind=ParamType.VALUE_OUTPUT)
        if len(sealed) > self._shared.size:
            raise BlobRefused(Refusal.TRUNCATED, Result.TEE_ERROR_BAD_FORMAT, len(sealed), self._application)
        result = self.invoke(Command.LOAD, (Param.memory(sealed), counter))
        reasons = {
            Result.TEE_ERROR_BAD_FORMAT: Refusal.TRUNCATED,
            Result.TEE_ERROR_NOT_SUPPORTED: Refusal.UNKNOWN_FORMAT,
            Result.TEE_ERROR_SECURITY: Refusal.FOREIGN_MANIFEST,
            Result.TEE_ERROR_ACCESS_DENIED: Refusal.OLDER_COUNTER,
            Result.TEE_ERROR_MAC_INVALID: Refusal.TAMPERED,
        }
        if result in reasons:
            raise BlobRefused(reasons[result], result, len(sealed), self._application)
        _check(result, "load the weights")
        return counter.a | counter.b << 32

    def infer(self, inputs: Sequence[Int8[np.ndarray, "..."]]) -> Any:
        """Return the answer for one record: its label (int), or int32 [k] labels, or int8 logits, as the policy says.

        Shapes: input i is int8 in NHWC with exactly the bytes of the network's input i. Cost: one switch.
        Raises: `DataError`, `SecureWorldError`.
        """
        if [x.size for x in inputs] != self._sizes or any(x.dtype != np.int8 for x in inputs):
            raise DataError(
                "these are not the inputs of the secure network",
                expected=f"int8 arrays of {', '.join(map(str, self._sizes))} elements",
                came=", ".join(f"{x.dtype} array of {x.size} elements" for x in inputs),
                fix="quantise every tap for the deployment that was opened",
            )
        for start, size, x in zip(self._starts, self._sizes, inputs, strict=False):
            self._shared[start : start + size] = x.reshape(-1).view(np.uint8)
        meter = self._channel.meter
        meter.switches, meter.bytes_in = meter.switches + 1, meter.bytes_in + self._starts[-1]
        _check_answer(MESSAGE.unpack(self._channel.exchange(self._infer))[0])
        return self._answer()

    def stream(self, taps: Iterable[Int8[np.ndarray, "..."]]) -> Any:
        """Return the answer for one record like `infer`, taking each tap as soon as `taps` yields it.

        Cost: one switch per tap. Raises: `DataError`, `SecureWorldError`.
        """
        last = len(self._sizes) - 1
        for i, (start, size, x) in enumerate(zip(self._starts, self._sizes, taps, strict=False)):
            if x.size != size or x.dtype != np.int8:
                came = f"{x.dtype} array of {x.size} elements"
                raise DataError(f"this is not tap {i}", expected=f"int8 array of {size} elements", came=came)
            self._shared[start : start + size] = x.reshape(-1).view(np.uint8)
            words = (start, size, i, 0) if i < last else (start, size, self._answer_at, self._application.answer_bytes)
            types = ParamType.MEMREF_INPUT | (ParamType.VALUE_INPUT if i < last else ParamType.MEMREF_OUTPUT) << 4
            result, _ = self.exchange(Command.FEED if i < last else Command.INFER, types, (*words, 0, 0, 0, 0))
            if i < last:
                _check(result, "take a tap")
            else:
                _check_answer(result)
                return self._answer()
        raise DataError("the taps ended early", expected=f"{len(self._sizes)} taps", came="fewer")

    def infer_all(self, inputs: Sequence[Int8[np.ndarray, "n ..."]], *, one_by_one: bool = False) -> np.ndarray:
        """Return the answers for n records, in order: [n] labels, [n, k] labels, or [n, classes] logits.

        `one_by_one` hands over each tap on its own: one switch per tap and record instead of one per record.
        """
        ask = self.stream if one_by_one else self.infer
        return np.stack([np.asarray(ask([x[i] for x in inputs])) for i in range(len(inputs[0]))])

    def invoke(self, command: int, params: Sequence[Param] = ()) -> Result:
        """Call `command` with up to four parameters, as `TEEC_InvokeCommand` does, and return its code.

        Raises: `DataError` where the parameters do not fit the shared window, `SecureWorldDead`.
        """
        places, types = self._placed(params), 0
        words = [0] * 8
        for i, (param, place) in enumerate(zip(params, places, strict=True)):
            types |= param.kind << 4 * i
            words[2 * i : 2 * i + 2] = (place, len(param.data)) if param.kind in _MEMREFS else (param.a, param.b)
            self._shared[place : place + len(param.data)] = np.frombuffer(param.data, np.uint8)
        result, answered = self.exchange(command, types, words)
        for i, (param, place) in enumerate(zip(params, places, strict=True)):
            a, b = answered[2 * i : 2 * i + 2]
            if param.kind in (ParamType.VALUE_OUTPUT, ParamType.VALUE_INOUT):
                param.a, param.b = a, b
            elif param.kind in (ParamType.MEMREF_OUTPUT, ParamType.MEMREF_INOUT):
                param.size = b
                if result == Result.TEE_SUCCESS:
                    param.data = self._shared[place : place + min(b, len(param.data))].tobytes()
                    self._channel.meter.bytes_out += len(param.data)
        return result

    def exchange(self, command: int, types: int, words: Sequence[int]) -> tuple[Result, tuple[int, ...]]:
        """Send a message word for word, as a hostile normal world could; return its code and the words that came back.

        `words` are (a, b) of the four parameters, 64 bits each: (offset into the shared window, size) for memory.
        """
        meter = self._channel.meter
        meter.switches += 1
        sizes = [words[2 * i + 1] for i in range(4) if types >> 4 * i & 15 in (5, 7)]
        meter.bytes_in += sum(size for size in sizes if size <= self._shared.size)
        result, _, *answered = MESSAGE.unpack(self._channel.exchange(MESSAGE.pack(command, types, *words)))
        return _result(result), tuple(answered)

    @property
    def shared(self) -> np.ndarray:
        """The window of memory that both worlds see, as bytes."""
        return self._shared

    def close(self) -> None:
        """End the session; its secure memory is wiped. May be called twice."""
        self._channel.close()

    def __enter__(self) -> Session:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _answer(self) -> Any:
        answer = self._shared[self._answer_at : self._answer_at + self._application.answer_bytes]
        self._channel.meter.bytes_out += len(answer)
        if self._application.policy == "logits":
            return answer.view(np.int8).copy()
        labels = answer.view("<i4").astype(np.int32)
        return int(labels[0]) if self._application.policy == "label" else labels

    def _placed(self, params: Sequence[Param]) -> list[int]:
        if len(params) > 4:
            raise DataError("an invocation has four parameters", expected="at most 4", came=str(len(params)))
        places, end = [], 0
        for param in params:
            places.append(end)
            end += _aligned(len(param.data))
        if end > self._shared.size:
            came = f"{sum(len(p.data) for p in params)} bytes"
            raise DataError("these parameters do not fit the window", expected=f"{self._shared.size} bytes", came=came)
        return places


@final
class QueryLimitReached(SecureWorldError):
    """The secure world has answered as often as the limit allows that is sealed with the weights."""

    exit_code = 3


@final
class BlobRefused(SealedBlobError, SecureWorldError):
    """The secure world refused a sealed blob; `reason` says why."""

    def __init__(self, reason: Refusal, result: Result, length: int, application: Application) -> None:
        """Say what this application would have accepted."""
        weights = application.program.weights_bytes
        expected = {
            Refusal.TRUNCATED: f"{weights + ENVELOPE_BYTES} bytes for {weights} bytes of weights",
            Refusal.UNKNOWN_FORMAT: "a sealed blob of version 2",
            Refusal.FOREIGN_MANIFEST: f"manifest {application.manifest_digest.hex()[:16]}...",
            Refusal.OLDER_COUNTER: f"a rollback counter of at least {application.counter_floor}",
            Refusal.TAMPERED: "the authentication tag of this device's key",
        }[reason]
        fix = "fetch the newest blob of this very bundle again"
        super().__init__(reason, expected, f"{length} bytes, refused with {result.name}", fix)
        self.result = result


def dead(reason: str, fix: str = "open a new session and load the weights again") -> SecureWorldDead:
    """Return the error of a secure world that is gone."""
    result = Result.TEE_ERROR_TARGET_DEAD
    return SecureWorldDead(f"TEE_ERROR_TARGET_DEAD: {reason}", result=result, fix=fix)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _result(code: int) -> Result:
    return Result(code) if code in Result.__members__.values() else Result.TEE_ERROR_GENERIC


def _check_answer(code: int) -> None:
    if code == Result.TEE_ERROR_ACCESS_DENIED:
        raise QueryLimitReached(
            "the secure world answers no more: TEE_ERROR_ACCESS_DENIED",
            result=Result.TEE_ERROR_ACCESS_DENIED,
            expected="fewer inferences than the query limit that is sealed with the weights",
            came="the limit, over all sessions of this device",
            fix="ask whoever sealed the weights for a release with a higher limit",
        )
    _check(code, "answer")


def _check(code: int, doing: str) -> None:
    if code:
        result = _result(code)
        fix = "load the sealed weights first" if result == Result.TEE_ERROR_BAD_STATE else ""
        raise SecureWorldError(f"the secure world did not {doing}: {result.name}", result=result, fix=fix)
