"""`OnnxExecutable`: an ONNX file run by ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Any, ClassVar, final

import numpy as np
import onnx
from jaxtyping import Float

from edgeward.backends.executable import Executable
from edgeward.core.errors import DataError, ModelError


@final
class OnnxExecutable(Executable):
    """Runs an ONNX file with all graph optimisations on the CPU.

    Guarantee: files that point outside themselves (external data) or need operators of foreign domains are refused.
    ONNX Runtime parses the file in native code: load only files whose hash you know (assumed, not checked here).
    """

    runtime: ClassVar[str] = "onnxruntime"

    def __init__(self, artefact: bytes, threads: int = 1) -> None:
        """Load the model; `threads` is the number of threads of one operator."""
        import onnxruntime

        _refuse_foreign(artefact)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(artefact, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(
                "ONNX Runtime cannot load the model",
                expected="an ONNX file written by `to_onnx`",
                came=str(error).splitlines()[0][:300],
                fix="write the file again, or upgrade onnxruntime",
            ) from error
        self._input = _single_input(self._session)
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record."""
        return tuple(self._input.shape[1:])

    def run(self, records: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
        """Return the last output for `records` [n, ...input shape] as float32."""
        return self.run_all(records)[-1]

    def run_all(self, records: Float[np.ndarray, "n ..."]) -> tuple[Float[np.ndarray, "n ..."], ...]:
        """Return every output (one per exit) for `records`. Raises: `DataError` for records of another shape."""
        expected = self.input_shape
        if tuple(records.shape[1:]) != expected:
            raise DataError(
                "the records do not fit the network",
                expected=f"float32 [n, {', '.join(map(str, expected))}]",
                came=f"{records.dtype} {list(records.shape)}",
                fix="give a batch of records of the shape the network was captured with",
            )
        try:
            found = self._session.run(
                self._outputs, {self._input.name: np.ascontiguousarray(records, dtype=np.float32)}
            )
        except Exception as error:
            raise ModelError("ONNX Runtime cannot run the model", came=str(error).splitlines()[0][:300]) from error
        return tuple(np.asarray(value, np.float32) for value in found)


def _single_input(session: Any) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not all(type(n) is int for n in inputs[0].shape[1:]):
        raise ModelError(
            "the ONNX model has another signature",
            expected="one float input [n, ...] of fixed shape per record",
            came=", ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs)[:300],
        )
    return inputs[0]


def _refuse_foreign(artefact: bytes) -> None:
    try:
        model = onnx.load_model_from_string(artefact)
    except Exception as error:
        raise ModelError("this is not an ONNX file", came=f"{type(error).__name__}", fix="write it again") from error
    outside = [
        t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL or t.external_data
    ]
    domains = {node.domain for node in model.graph.node} | {opset.domain for opset in model.opset_import}
    nested = [n.name for n in model.graph.node for a in n.attribute if a.HasField("g") or a.HasField("t") or a.graphs]
    if outside or domains - {"", "ai.onnx"} or nested or model.functions:
        raise ModelError(
            "the ONNX model holds what `to_onnx` never writes",
            expected="initialisers inside the file, operators of the ONNX domain, no nested graphs or functions",
            came=f"external: {outside[:3]}, domains: {sorted(domains)[:3]}, nested: {nested[:3]}",
        )
