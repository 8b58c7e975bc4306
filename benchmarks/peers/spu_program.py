"""Runs in SPU's environment: a task of `benchmarks.mpc_task` by two processes of SPU SEMI2K, one JSON line out.

Written against SPU 0.9.5's public functions. Nothing of this project is imported here. Images are taken channels last,
the layout that SPU's convolution wants; turning them is not timed.
"""

import json
import multiprocessing
import sys
import time
from pathlib import Path

PARTIES = 2
TIMEOUT_MS = 300_000


def party(rank, port, folder, shared, meeting, results):
    """Play one party; every party reports its own figures."""
    import jax.numpy as jnp
    import numpy as np
    from spu import api, libspu
    from spu.utils import frontend

    task = json.loads((folder / "task.json").read_text())
    arrays = {name: a.astype(np.float32) for name, a in np.load(folder / "arrays.npz", allow_pickle=False).items()}
    inputs, secret = list(task["inputs"]), {}
    for name in task["owners"]:
        secret[name] = turned(name, arrays[name], task)
    names = [*inputs, *(name for name in task["owners"] if name not in inputs)]

    config = libspu.RuntimeConfig(protocol=libspu.ProtocolKind.SEMI2K, field=libspu.FieldType.FM64)
    config.fxp_fraction_bits = task["fraction"]
    config.max_concurrency = 1
    description = libspu.link.Desc()
    description.recv_timeout_ms = description.http_timeout_ms = TIMEOUT_MS
    for number in range(PARTIES):
        description.add_party(f"party{number}", f"127.0.0.1:{port + number}")
    runtime = api.Runtime(libspu.link.create_brpc(description, rank), config)
    hidden, io = libspu.Visibility.VIS_SECRET, api.Io(PARTIES, config)

    def program(*given):
        return evaluate(task, dict(zip(names, given, strict=True)), jnp)

    executable, _ = frontend.compile(
        frontend.Kind.JAX,
        program,
        [secret[name] for name in names],
        {},
        names,
        [hidden] * len(names),
        lambda out: ["answer"] * len(out),
    )
    if rank == 0:
        for name in names:
            shared[name] = io.make_shares(secret[name], hidden)
    meeting.wait()
    for name in names:
        runtime.set_var(name, shared[name][rank])
    seconds = []
    for _ in range(task["repeats"] + 1):
        meeting.wait()
        before = sent_by_loopback()
        meeting.wait()
        start = time.perf_counter()
        runtime.run(executable)
        seconds.append(time.perf_counter() - start)
        meeting.wait()
        moved = sent_by_loopback() - before
        meeting.wait()
    shared["answer", rank] = runtime.get_var(executable.output_names[0])
    meeting.wait()
    if rank == 0:
        answer = io.reconstruct([shared["answer", number] for number in range(PARTIES)])
        np.save(folder / "answer.npy", unturned(np.asarray(answer), task))
    results.put({"rank": rank, "seconds": seconds[1:], "moved": moved})
    meeting.wait()


def sent_by_loopback():
    """Return the bytes that the loopback interface of this network namespace has sent."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split()[9])
    return 0


def turned(name, array, task):
    """Return images channels last, weights of convolutions and of dense layers behind a flattened image to match."""
    if name in task["inputs"]:
        return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def unturned(answer, task):
    """Return an answer that is an image channels first again."""
    return answer.transpose(0, 3, 1, 2) if answer.ndim == 4 else answer


def evaluate(task, given, jnp):
    """Return the task's output as a JAX expression."""
    values = {name: given[name] for name in task["inputs"]}
    for layer in task["layers"]:
        values[layer["output"]] = apply(layer, [values[name] for name in layer["inputs"]], given, jnp)
    return values[task["output"]]


def apply(layer, read, secret, jnp):
    """Return the output of one layer; images are [n, H, W, C]."""
    from jax import lax

    kind, x = layer["operator"], read[0]
    if kind == "conv2d":
        out = lax.conv_general_dilated(
            x,
            secret[layer["weight"]],
            tuple(layer["stride"]),
            [(edge, edge) for edge in layer["padding"]],
            rhs_dilation=tuple(layer["dilation"]),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=layer["groups"],
        )
        return out if "bias" not in layer else out + secret[layer["bias"]]
    if kind == "linear":
        out = x @ secret[layer["weight"]].T
        return out if "bias" not in layer else out + secret[layer["bias"]]
    if kind == "matmul":
        return x @ read[1]
    if kind == "relu":
        return jnp.maximum(x, 0.0)
    if kind == "add":
        return x + read[1]
    if kind == "max_pool2d" and layer["kernel"] == layer["stride"] and not any(layer["padding"]):
        n, height, width, channels = x.shape
        down, right = layer["kernel"]
        rows, columns = height // down, width // right
        whole = x[:, : rows * down, : columns * right]
        return whole.reshape(n, rows, down, columns, right, channels).max(axis=(2, 4))
    if kind == "adaptive_avg_pool2d" and layer["target"] == [1, 1]:
        return x.mean(axis=(1, 2), keepdims=True)
    if kind == "reshape":
        x = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
        return x.reshape(x.shape[0], *layer["shape"])
    if kind == "slice":
        places = [slice(None)] * x.ndim
        places[{0: 3, 1: 1, 2: 2}[layer["axis"]]] = slice(layer["start"], layer["stop"], layer["step"])
        return x[tuple(places)]
    if kind == "pad":
        channels, rows, columns = layer["padding"]
        return jnp.pad(x, ((0, 0), rows, columns, channels), constant_values=layer["value"])
    raise SystemExit(f"no SPU form of the operator {kind}")


def raise_loopback():
    """Bring the loopback interface of a fresh network namespace up (ioctl SIOCSIFFLAGS)."""
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe.fileno(), 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))


def main(folder, port, alone):
    """Run both parties and print the figures; `alone` says that this network namespace has no other traffic."""
    if alone:
        raise_loopback()
    context = multiprocessing.get_context("spawn")
    keeper, meeting, results = context.Manager(), context.Barrier(PARTIES), context.Queue()
    shared = keeper.dict()
    parties = [
        context.Process(target=party, args=(rank, port, folder, shared, meeting, results)) for rank in range(PARTIES)
    ]
    for process in parties:
        process.start()
    found = sorted((results.get() for _ in parties), key=lambda row: row["rank"])
    for process in parties:
        process.join()
    if any(process.exitcode for process in parties):
        raise SystemExit("a party of SPU failed")
    slower = [max(pair) for pair in zip(*(row["seconds"] for row in found), strict=True)]
    moved = found[0]["moved"] // PARTIES if alone else None
    print(json.dumps({"seconds": slower, "bytes": moved, "rounds": None}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "alone")
