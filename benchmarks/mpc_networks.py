"""Every reference network on secret input at its published size: declared and metered traffic, error against float."""

import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgeward import nets
from edgeward.backends.mpc.inference.expense import cost_table
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.reference import check_range
from edgeward.backends.mpc.inference.simulation import simulate
from edgeward.backends.mpc.protocols.comparison_layout import VARIANTS
from edgeward.backends.mpc.transport.network import LAN, WAN
from edgeward.graph import capture

NAME = "mpc-networks"
DESCRIPTION = "published networks at batch 1, simulated: bytes and rounds declared and metered, largest error to float"

_CALIBRATION_RECORDS = 4


@dataclass(frozen=True)
class Case:
    """One network: at its published size, and small enough for a fast test."""

    full: Callable[[], nn.Module]
    full_shape: tuple[int, ...]
    small: Callable[[], nn.Module]
    small_shape: tuple[int, ...]


def _small_densenet() -> nn.Module:
    return nets.densenet_imagenet(growth=4, classes=10, blocks=(2, 3, 3, 2))


_IMAGE, _TINY = (3, 224, 224), (3, 32, 32)
CASES = {
    "LeNet": Case(nets.lenet, (1, 28, 28), nets.lenet, (1, 28, 28)),
    "VGG-16": Case(nets.vgg_imagenet, _IMAGE, lambda: nets.vgg_imagenet(size=32, width=0.05, classes=10), _TINY),
    "ResNet-18": Case(nets.resnet_imagenet, _IMAGE, lambda: nets.resnet_imagenet(18, width=8, classes=10), _TINY),
    "ResNet-20": Case(lambda: nets.resnet(20), _TINY, lambda: nets.resnet(20, width=4), (3, 16, 16)),
    "ResNet-50": Case(
        lambda: nets.resnet_imagenet(50), _IMAGE, lambda: nets.resnet_imagenet(50, width=4, classes=10), _TINY
    ),
    "DenseNet-121": Case(nets.densenet_imagenet, _IMAGE, _small_densenet, _TINY),
    "MobileNetV2": Case(nets.mobilenet_v2, _IMAGE, lambda: nets.mobilenet_v2(width=0.25, classes=10), _TINY),
    "MobileNetV3": Case(nets.mobilenet_v3, _IMAGE, lambda: nets.mobilenet_v3("small", 0.25, classes=10), _TINY),
    "ViT": Case(nets.vit, _TINY, lambda: nets.vit(size=16, dimension=16, depth=2), (3, 16, 16)),
}


def calibrated(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> nn.Module:
    """Return a network of seeded weights whose batch norms hold the statistics of noise: signals keep their size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build().eval()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.3)
                layer.momentum = None
                layer.train()
        with torch.no_grad():
            module(torch.rand(_CALIBRATION_RECORDS, *shape))
    return module.eval()


def measured(name: str) -> dict:
    """Run one network at its published size once, in this process; seconds are rough: one run, everything shares."""
    torch.set_num_threads(1)
    case = CASES[name]
    module = calibrated(case.full, case.full_shape)
    x = np.random.default_rng(1).random((1, *case.full_shape), np.float32)
    with torch.no_grad():
        right = module(torch.from_numpy(x)).numpy()
    parameters = sum(p.numel() for p in module.parameters())
    network = capture(module, case.full_shape)
    tables = {variant: cost_table(lower(network, comparison=variant).plan) for variant in VARIANTS}
    lowered = lower(network)
    del module
    start = time.perf_counter()
    run = simulate(lowered, x)
    seconds = time.perf_counter() - start
    declared, error = run.declared, np.abs(run.answer - right)
    return {
        "shape": list(case.full_shape),
        "parameters": parameters,
        "bytes_per_party": declared.online.bytes,
        "rounds": declared.online.rounds,
        "setup_bytes_per_party": declared.setup.bytes,
        "offline_bytes": declared.offline,
        "comparisons": {
            variant: {"bytes": table.online.bytes, "rounds": table.online.rounds, "offline_bytes": table.offline}
            for variant, table in tables.items()
        },
        "declared_equals_metered": run.agrees,
        "modelled_seconds": {"lan": declared.seconds(LAN), "wan": declared.seconds(WAN)},
        "simulated_seconds": seconds,
        "largest_error": float(error.max()),
        "error_to_largest_logit": float(error.max() / np.abs(right).max()),
        "same_label": bool(run.answer.argmax() == right.argmax()),
        "largest_share_of_range": max(check_range(lowered.plan, lowered.model, x).values()),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def run(names: tuple[str, ...] = tuple(CASES)) -> dict:
    """Measure every network in a process of its own."""
    context, rows = multiprocessing.get_context("spawn"), {}
    for name in names:
        with ProcessPoolExecutor(1, context) as pool:
            rows[name] = pool.submit(measured, name).result()
    ours, peer = (sum(row["comparisons"][variant]["bytes"] for row in rows.values()) for variant in ("lookup", "tree"))
    return {
        "name": NAME,
        "description": DESCRIPTION,
        "ours": ours,
        "peer": peer,
        "unit": "bytes per party, all networks, batch 1",
        "ratio": peer / ours,
        "peer_name": "the same plans with bit-sliced comparison trees, declared",
        "networks": rows,
        "all_declared_equal_metered": all(row["declared_equals_metered"] for row in rows.values()),
        "assumptions": "both parties and the dealer in one process; semi-honest, static adversary; dealer trusted",
    }
