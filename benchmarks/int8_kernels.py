"""The emitted int8 kernels: instructions per multiply-add and per copied byte, fuel, and time against ONNX Runtime."""

import math
import time

import numpy as np

from edgeward.codegen.arena import plan
from edgeward.codegen.blob import pack
from edgeward.codegen.emit import emit
from edgeward.codegen.integer import IntegerGraph, IntegerNode, IntegerValue
from edgeward.codegen.meter import count
from edgeward.codegen.native_run import NativeProgram
from edgeward.codegen.reference import run as reference
from edgeward.codegen.wasm_run import run_wasm

NAME = "int8-kernels"
DESCRIPTION = (
    "emitted int8 kernels: aarch64 instructions per MAC and per copied byte; time of a 3x3 layer against ONNX Runtime"
)

# name: (height, width, channels in, channels out, kernel); the first two are what the bound is asked of.
LAYERS = {
    "pointwise": (8, 8, 576, 64, 1),
    "conv3x3": (16, 16, 64, 64, 3),
    "pointwise_64": (16, 16, 64, 64, 1),
    "pointwise_24": (16, 16, 24, 24, 1),
    "conv3x3_16": (16, 16, 16, 16, 3),
    "first_layer_3x3_3": (16, 16, 3, 16, 3),
    "depthwise3x3_64": (16, 16, 64, 64, 0),
}
TIMED = (32, 32, 64, 64, 3)
COPIED = 1 << 16


def layer(height: int, width: int, before: int, after: int, kernel: int) -> IntegerGraph:
    """One convolution with "same" padding; kernel 0 stands for a depthwise 3x3."""
    draws, side = np.random.default_rng(0), kernel or 3
    weight = draws.integers(-127, 128, (after, side, side, before) if kernel else (side, side, before)).astype(np.int8)
    tensors = {
        "weight": weight,
        "bias": draws.integers(-1000, 1000, after).astype(np.int32),
        "multiplier": draws.integers(2**30, 2**31, after).astype(np.int32),
        "shift": np.full(after, 40, np.uint8),
    }
    attributes = {"stride": (1, 1), "padding": (side // 2,) * 4, "dilation": (1, 1), "low": -128, "high": 127}
    if kernel:
        attributes["groups"] = 1
    operator = "conv2d" if kernel else "depthwise"
    node = IntegerNode("layer", operator, ("x",), "y", attributes, {role: role for role in tensors})
    values = {"x": IntegerValue("x", (height, width, before), 0.1, -3)}
    values["y"] = IntegerValue("y", (height, width, after), 0.1, 5)
    return IntegerGraph(("x",), ("y",), (node,), values, tensors)


def copy(size: int) -> IntegerGraph:
    """One copy of `size` bytes."""
    values = {name: IntegerValue(name, (size,), 1.0, 0) for name in "xy"}
    return IntegerGraph(("x",), ("y",), (IntegerNode("copy", "concat", ("x",), "y"),), values, {})


def _made(graph: IntegerGraph):
    program, weights = emit(graph, plan(graph)), pack(graph)
    shape = graph.values["x"].shape
    return program, weights, np.random.default_rng(1).integers(-128, 128, (1, *shape)).astype(np.int8)


def _multiply_adds(graph: IntegerGraph) -> int:
    weight, pixels = graph.tensors["weight"], math.prod(graph.values["y"].shape[:2])
    return pixels * weight.size


def _measured(graph: IntegerGraph) -> dict:
    program, weights, x = _made(graph)
    right = reference(graph, {"x": x})["y"].tobytes()
    metered, wasm = count(program, [x], weights), run_wasm(program, [x], weights)
    work = _multiply_adds(graph)
    return {
        "instructions_per_mac": round(metered.total / work, 4),
        "wasm_fuel_per_mac": round(wasm.fuel / work, 4),
        "macs": work,
        "bits_equal": all(y.tobytes() == right for y in (metered.outputs[0], wasm.outputs[0])),
    }


def _peer(graph: IntegerGraph):
    """ONNX Runtime's QLinearConv of the same layer, one thread; uint8 activations, its faster form."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    height, width, before = graph.values["x"].shape
    weight = graph.tensors["weight"].transpose(0, 3, 1, 2)
    given = {
        "xs": np.float32(0.1),
        "xz": np.uint8(125),
        "w": np.ascontiguousarray(weight),
        "ws": np.full(len(weight), 0.01, np.float32),
        "wz": np.zeros(len(weight), np.int8),
        "ys": np.float32(10.0),
        "yz": np.uint8(128),
        "b": graph.tensors["bias"],
    }
    node = helper.make_node("QLinearConv", ["x", *given], ["y"], pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    ends = [
        helper.make_tensor_value_info(n, TensorProto.UINT8, [1, c, height, width])
        for n, c in (("x", before), ("y", len(weight)))
    ]
    constants = [numpy_helper.from_array(np.asarray(v), k) for k, v in given.items()]
    graph_proto = helper.make_graph([node], "layer", ends[:1], ends[1:], constants)
    model = helper.make_model(graph_proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).integers(0, 256, (1, before, height, width)).astype(np.uint8)
    return lambda: session.run(None, {"x": x})


def _alternating(first, second, rounds: int) -> tuple[float, float]:
    """Return the best time of each, measured in turns so that both see the same machine."""
    best = [math.inf, math.inf]
    for _ in range(rounds):
        for i, work in enumerate((first, second)):
            start = time.perf_counter()
            work()
            best[i] = min(best[i], time.perf_counter() - start)
    return best[0], best[1]


def run() -> dict:
    """Count instructions of every layer, then time one layer natively beside its peer; seconds, best of 200."""
    import onnxruntime

    layers = {name: _measured(layer(*shape)) for name, shape in LAYERS.items()}
    program, weights, x = _made(copy(COPIED))
    copied = count(program, [x], weights)
    timed = layer(*TIMED)
    program, weights, x = _made(timed)
    native = NativeProgram(program, weights)
    ours, peer = _alternating(lambda: native(x), _peer(timed), 200)
    per_byte = round(copied.steps[0][1] / COPIED, 4)
    bounds = {name: layers[name]["instructions_per_mac"] for name in ("pointwise", "conv3x3")}
    return {
        "name": NAME,
        "description": DESCRIPTION,
        "ours": ours,
        "peer": peer,
        "unit": "s",
        "ratio": peer / ours,
        "peer_name": f"ONNX Runtime {onnxruntime.__version__} QLinearConv, uint8 x int8, 3x3, 64 to 64, one thread",
        "native_gmac_per_s": _multiply_adds(timed) / ours / 1e9,
        "layers": layers,
        "pointwise_instructions_per_mac": bounds["pointwise"],
        "conv3x3_instructions_per_mac": bounds["conv3x3"],
        "copy_instructions_per_byte": per_byte,
        "bits_equal": all(found["bits_equal"] for found in layers.values()),
        "counted_by": "Unicorn, ARMv8.0 with NEON, no dot product, ziglang -O3",
        "at_most": {"instructions_per_mac": 0.8, "copy_instructions_per_byte": 0.41},
        "holds": max(bounds.values()) <= 0.8 and per_byte <= 0.41,
    }
