"""Runs in CrypTen's environment: a task of `benchmarks.mpc_task` by two processes of CrypTen, one JSON line out.

Written against CrypTen 0.4.1's public functions. Nothing of this project is imported here.
"""

import importlib.util
import json
import multiprocessing
import os
import sys
import time
import types
from pathlib import Path

import numpy as np

PARTIES = 2
RENDEZVOUS = "tcp://127.0.0.1:{port}"


def admit_missing_module():
    """Give CrypTen's import an empty `torch.onnx.symbolic_registry` where torch has neither that nor its successor.

    CrypTen reads from it only while it converts ONNX files, which no task does.
    """
    if importlib.util.find_spec("torch.onnx._internal.registration") is None:
        sys.modules["torch.onnx.symbolic_registry"] = types.ModuleType("torch.onnx.symbolic_registry")


def party(rank, port, folder, results):
    """Play one party; rank 0 puts the figures in `results`."""
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(PARTIES),
        RENDEZVOUS=RENDEZVOUS.format(port=port),
        DISTRIBUTED_BACKEND="gloo",
        GLOO_SOCKET_IFNAME="lo",
    )
    import torch

    torch.set_num_threads(1)
    admit_missing_module()
    import crypten
    import crypten.communicator as communicator
    from crypten.config import cfg

    crypten.init()
    torch.set_num_threads(1)
    task = json.loads((folder / "task.json").read_text())
    arrays = {name: torch.from_numpy(a) for name, a in np.load(folder / "arrays.npz", allow_pickle=False).items()}
    secret = {name: crypten.cryptensor(arrays[name], src=owner) for name, owner in task["owners"].items()}
    link = communicator.get()
    with crypten.no_grad():
        cfg.communicator.verbose = True
        link.reset_communication_stats()
        answer = evaluate(task, secret)
        counted = dict(link.get_communication_stats())
        cfg.communicator.verbose = False
        seconds = []
        for _ in range(task["repeats"]):
            link.barrier()
            start = time.perf_counter()
            evaluate(task, secret)
            seconds.append(time.perf_counter() - start)
        # The revealed ring elements; `get_plain_text` divides negative ones by 2^16 - 1 and is off by up to 1.
        clear = answer.reveal().numpy() / scale(crypten)
    if rank == 0:
        np.save(folder / "answer.npy", clear)
        # Its counter adds what is sent and what is received.
        results.put({"seconds": seconds, "bytes": int(counted["bytes"]) // 2, "rounds": int(counted["rounds"])})
        results.close()
        results.join_thread()
    link.barrier()
    # All is said; a thread of gloo's that meets the closed connection would now and then end the process with an error.
    os._exit(0)


def scale(crypten):
    """Return the factor of CrypTen's fixed-point format."""
    return 2.0**crypten.config.cfg.encoder.precision_bits


def evaluate(task, secret):
    """Return the encrypted value of the task's output."""
    values = {name: secret[name] for name in task["inputs"]}
    for layer in task["layers"]:
        given = [values[name] for name in layer["inputs"]]
        values[layer["output"]] = apply(layer, given, secret)
    return values[task["output"]]


def apply(layer, given, secret):
    """Return the output of one layer."""
    kind, x = layer["operator"], given[0]
    if kind == "conv2d":
        out = x.conv2d(
            secret[layer["weight"]],
            stride=tuple(layer["stride"]),
            padding=tuple(layer["padding"]),
            dilation=tuple(layer["dilation"]),
            groups=layer["groups"],
        )
        return out if "bias" not in layer else out + secret[layer["bias"]].view(1, -1, 1, 1)
    if kind == "linear":
        out = x.matmul(secret[layer["weight"]].t())
        return out if "bias" not in layer else out + secret[layer["bias"]]
    if kind == "matmul":
        return x.matmul(given[1])
    if kind == "relu":
        return x.relu()
    if kind == "add":
        return x + given[1]
    if kind == "max_pool2d":
        return x.max_pool2d(tuple(layer["kernel"]), stride=tuple(layer["stride"]), padding=tuple(layer["padding"]))
    if kind == "adaptive_avg_pool2d" and tuple(layer["target"]) == (1, 1):
        return x.mean((2, 3), keepdim=True)
    if kind == "reshape":
        return x.reshape(x.size(0), *layer["shape"])
    if kind == "slice":
        places = [slice(None)] * x.dim()
        places[layer["axis"] + 1] = slice(layer["start"], layer["stop"], layer["step"])
        return x[tuple(places)]
    if kind == "pad":
        return x.pad([edge for pair in reversed(layer["padding"]) for edge in pair], value=layer["value"])
    raise SystemExit(f"no CrypTen form of the operator {kind}")


def main(folder, port):
    """Run both parties and print the figures."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    parties = [context.Process(target=party, args=(rank, port, folder, results)) for rank in range(PARTIES)]
    for process in parties:
        process.start()
    for process in parties:
        process.join()
    if any(process.exitcode for process in parties):
        raise SystemExit("a party of CrypTen failed")
    print(json.dumps(results.get()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
