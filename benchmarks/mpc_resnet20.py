"""ResNet-20 for CIFAR-10 on one and on eight secret images, beside CrypTen and SPU."""

from pathlib import Path

import numpy as np
from torch import nn

from benchmarks.mpc_compare import compare, headline
from benchmarks.mpc_play import NetworkPlay
from benchmarks.mpc_task import network_task
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.graph import capture
from edgeward.nets import pretrained

NAME = "mpc-resnet20"
DESCRIPTION = "ResNet-20 with published weights, batches of 1 and 8 secret images: ours against CrypTen and SPU SEMI2K"

SHAPE = (3, 32, 32)
_BATCHES = (1, 8)
_TARGETS = {"online": 15.0, "with_preprocessing": 6.0}


def trained() -> nn.Module:
    """Return the published network without its layer that standardises pixels: its owner does that in the clear."""
    data = Path("../shared/data")
    module = pretrained("resnet20_cifar10", root=data if data.is_dir() else None)
    module.standardize = nn.Identity()
    return module


def run() -> dict:
    """Time ours and the peers on random images of the standardised range; the headline is batch 1."""
    module, batches = trained(), {}
    network = capture(module, SHAPE)
    for batch in _BATCHES:
        records = np.random.default_rng(batch).normal(size=(batch, *SHAPE)).astype(np.float32)
        task = network_task(f"resnet20 batch {batch}", network, module, records)
        found = compare(NetworkPlay(lower(network, batch), records), task)
        batches[str(batch)] = {**headline(found, _TARGETS), **found}
    first = batches[str(_BATCHES[0])]
    lead = {key: first[key] for key in ("ours", "peer", "unit", "ratio", "peer_name")}
    met = {batch: row["targets_met"] for batch, row in batches.items()}
    return {"name": NAME, "description": DESCRIPTION, **lead, "targets_met": met, "batches": batches}
