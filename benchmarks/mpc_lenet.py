"""LeNet-5 for CIFAR-10 on one secret image, beside CrypTen and SPU."""

import os
from pathlib import Path

import numpy as np
import torch

from benchmarks.mpc_compare import compare, headline
from benchmarks.mpc_play import NetworkPlay
from benchmarks.mpc_task import network_task
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.core.errors import DataError
from edgeward.graph import capture
from edgeward.nets import lenet

NAME = "mpc-lenet"
DESCRIPTION = "LeNet-5 with published weights on one secret image: ours against CrypTen and SPU SEMI2K"

_FILE = "cifar-lenet-checkpoint.pth.tar"
_LAYERS = {"0": "conv1", "3": "conv2", "7": "fc1", "9": "fc2", "11": "fc3"}
_SHAPE = (3, 32, 32)
_TARGETS = {"online": 10.0}


def trained() -> torch.nn.Module:
    """Return LeNet with published weights. Raises: `DataError` where their file is missing."""
    path = Path(os.environ.get("EDGEWARD_DATA", "../shared/data")) / "weights" / _FILE
    if not path.is_file():
        raise DataError("the weights of LeNet are missing", expected=str(path), fix="set EDGEWARD_DATA")
    stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    module = lenet(channels=3, size=32)
    names = {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in _LAYERS.items() for part in ("weight", "bias")}
    module.load_state_dict({name: stored[source] for name, source in names.items()})
    return module.eval()


def run() -> dict:
    """Time ours and the peers on a random image of the standardised range."""
    module = trained()
    network = capture(module, _SHAPE)
    records = np.random.default_rng(0).normal(size=(1, *_SHAPE)).astype(np.float32)
    found = compare(NetworkPlay(lower(network), records), network_task("lenet", network, module, records))
    return {"name": NAME, "description": DESCRIPTION, **headline(found, _TARGETS), **found}
