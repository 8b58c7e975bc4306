"""`SplitExecutable`: a split network answering float records through its two worlds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from jaxtyping import Float, Int, Int8

from edgeward.backends.executable import Executable
from edgeward.backends.tee.deployment import Border, SplitDeployment, Transfer
from edgeward.graph.network import Network

if TYPE_CHECKING:
    from edgeward.backends.tee.rollback import RollbackCounter
    from edgeward.backends.tee.session import Session


class SecureHalf(ABC):
    """The secure side of one deployment: takes int8 taps, gives what the policy lets out.

    `tier` and `notice` say what stands behind it and what it protects from; both are printed with every answer.
    """

    tier: str
    notice: str

    @abstractmethod
    def answers(self, taps: Sequence[Int8[np.ndarray, "n ..."]]) -> np.ndarray:
        """Return [n] labels, [n, k] labels (best first) or [n, classes] int8 logits for a batch of taps in NHWC."""


@final
class ReferenceHalf(SecureHalf):
    """The integer reference in this process: the same bits as a secure world, no isolation; for measuring accuracy."""

    tier = "reference"
    notice = "no isolation: reference arithmetic"

    def __init__(self, deployment: SplitDeployment, *, chunk: int = 256) -> None:
        """Prepare to run `deployment.secure`, at most `chunk` records at a time."""
        self._secure, self._border, self._chunk = deployment.secure, deployment.border, chunk

    def answers(self, taps: Sequence[Int8[np.ndarray, "n ..."]]) -> np.ndarray:
        from edgeward.codegen.reference import run

        pieces = []
        for start in range(0, len(taps[0]), self._chunk):
            rows = slice(start, start + self._chunk)
            found = run(self._secure, {name: tap[rows] for name, tap in zip(self._secure.inputs, taps, strict=True)})
            pieces.append(np.asarray(found[self._secure.outputs[0]]))
        return let_out(np.concatenate(pieces), self._border)


@final
class Allowance:
    """How many inferences a query limit leaves; the secure world refuses by itself, this keeps its count on the device.

    What is about to be asked is written down first: a session that dies in between has used it up.
    """

    def __init__(self, limit: int, asked: int, kept: RollbackCounter | None) -> None:
        """Go on from `asked`; `kept` None forgets with the session."""
        self._limit, self._asked, self._kept = limit, asked, kept

    def take(self, count: int) -> None:
        """Write down that `count` more inferences are asked for."""
        self._asked = min(self._asked + count, self._limit)
        if self._kept is not None:
            self._kept.advance(self._asked)


@final
class SessionHalf(SecureHalf):
    """An open session of a secure world that holds the sealed weights already."""

    def __init__(
        self,
        session: Session,
        tier: str,
        notice: str,
        transfer: Transfer = "batch",
        allowance: Allowance | None = None,
    ) -> None:
        """Answer through `session`, which stays its opener's to close; taps cross as `transfer` says."""
        self._session, self.tier, self.notice = session, tier, notice
        self._transfer, self._allowance = transfer, allowance

    def answers(self, taps: Sequence[Int8[np.ndarray, "n ..."]]) -> np.ndarray:
        if self._allowance is not None:
            self._allowance.take(len(taps[0]))
        return np.asarray(self._session.infer_all(taps, one_by_one=self._transfer == "stream"))


@final
class SplitExecutable(Executable):
    """A network in two worlds as one: the normal world as float, taps rounded to int8, the answer from the secure
    one.
    """

    runtime: ClassVar[str] = "split"

    def __init__(self, normal: Any, border: Border, secure: SecureHalf) -> None:
        """Join `normal` (anything with `run_all`) and `secure` at `border`."""
        self._normal, self._border, self._secure = normal, border, secure

    @property
    def tier(self) -> str:
        """The tier of the secure half."""
        return self._secure.tier

    @property
    def notice(self) -> str:
        """What the secure half protects from."""
        return self._secure.notice

    def taps(self, records: Float[np.ndarray, "n ..."]) -> list[Int8[np.ndarray, "n ..."]]:
        """Return the taps of `records` as they cross the border: int8, NHWC."""
        from edgeward.codegen.quantize import to_int8

        values = self._border.taps
        found = self._normal.run_all(records)[: len(values)]
        return [to_int8(value, tap) for value, tap in zip(values, found, strict=True)]

    def labels(self, records: Float[np.ndarray, "n ..."]) -> Int[np.ndarray, " n"]:
        """Return the class of each record as the secure world gives it."""
        found = self._secure.answers(self.taps(records))
        if self._border.policy == "logits":
            return np.asarray(found.argmax(1), np.int64)
        return np.asarray(found.reshape(len(records), -1)[:, 0], np.int64)

    def run(self, records: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n classes"]:
        """Return scores [n, classes]: logits under the policy "logits", else k for the best label down to 1, 0
        elsewhere.
        """
        found = self._secure.answers(self.taps(records))
        if self._border.policy == "logits":
            value = self._border.logits
            return ((found.astype(np.float32) - value.zero_point) * value.scale).astype(np.float32)
        ranked = found.reshape(len(records), -1).astype(np.int64)
        scores = np.zeros((len(records), self._border.classes), np.float32)
        worth = np.arange(ranked.shape[1], 0, -1, dtype=np.float32)
        np.put_along_axis(scores, ranked, np.broadcast_to(worth, ranked.shape), axis=1)
        return scores


def split_executable(deployment: SplitDeployment, secure: SecureHalf | None = None) -> SplitExecutable:
    """Return `deployment` as an executable; without `secure` the integer reference answers, without isolation."""
    half = ReferenceHalf(deployment) if secure is None else secure
    return SplitExecutable(normal_world(deployment.normal), deployment.border, half)


def normal_world(network: Network) -> Any:
    """Return the normal world's network ready to run, with `run_all`: ONNX Runtime, or torch where ONNX cannot."""
    from edgeward.backends.cleartext.onnx_lowering import reasons_against, to_onnx_bytes
    from edgeward.backends.cleartext.onnxruntime import OnnxExecutable
    from edgeward.backends.cleartext.reference import ReferenceExecutable

    if not network.nodes or reasons_against(network):
        return ReferenceExecutable(network)
    return OnnxExecutable(to_onnx_bytes(network))


def let_out(output: Int8[np.ndarray, "n ..."], border: Border) -> np.ndarray:
    """Return what the policy lets out of the secure network's output: labels [n], [n, k], or int8 logits [n,
    classes].
    """
    rows = np.ascontiguousarray(output).reshape(len(output), -1)
    if border.ends_in_argmax:
        return rows.view("<i4").reshape(-1).astype(np.int64)
    if border.policy == "logits":
        return rows
    # stable: the lowest index among equals comes first
    best = np.argsort(-rows.astype(np.int16), axis=1, kind="stable")[:, : border.labels]
    return best[:, 0] if border.policy == "label" else best
