"""RMIA scoring by sort and search against the all-pairs definition, equal values required."""

import math
import time

import numpy as np
import torch

from edgeward.attacks.membership.rmia import beaten

NAME = "rmia"
DESCRIPTION = "RMIA scores of 20,000 points against 20,000 population records: ours against the all-pairs definition"

_POINTS = _POPULATION = 20_000
_GAMMA = 2.0
_CHUNKS = (4, 16, 64, 256, 1024)


def all_pairs(ratio_x: np.ndarray, ratio_z: np.ndarray, chunk: int) -> np.ndarray:
    """The definition: for each x the fraction of z with ratio_x / ratio_z > gamma, `chunk` points at a time."""
    pieces = [
        np.count_nonzero(ratio_x[start : start + chunk, None] / ratio_z[None, :] > _GAMMA, axis=1)
        for start in range(0, len(ratio_x), chunk)
    ]
    return np.concatenate(pieces) / len(ratio_z)


def all_pairs_undivided(ratio_x: np.ndarray, ratio_z: np.ndarray, chunk: int) -> np.ndarray:
    """The same with the division moved out of the pairs: the fastest way that still visits every pair."""
    limit = ratio_x / _GAMMA
    pieces = [
        np.count_nonzero(limit[start : start + chunk, None] > ratio_z[None, :], axis=1)
        for start in range(0, len(limit), chunk)
    ]
    return np.concatenate(pieces) / len(ratio_z)


def _seconds(work, repeats):
    best, value = math.inf, None
    for _ in range(repeats):
        start = time.perf_counter()
        value = work()
        best = min(best, time.perf_counter() - start)
    return best, value


def _best_chunk(rival, ratio_x, ratio_z):
    probe = {chunk: _seconds(lambda c=chunk: rival(ratio_x[:4096], ratio_z, c), 2)[0] for chunk in _CHUNKS}
    return min(probe, key=probe.__getitem__)


def run() -> dict:
    """Time ours and both forms of the definition on one thread and compare their values; seconds, best of several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure()
    finally:
        torch.set_num_threads(threads)


def _measure() -> dict:
    rng = np.random.default_rng(0)
    log_x, log_z = rng.normal(0.5, 1, _POINTS), rng.normal(0, 1, _POPULATION)
    ratio_x, ratio_z = np.exp(log_x), np.exp(log_z)
    tensors = torch.from_numpy(log_x), torch.from_numpy(log_z)
    ours, value = _seconds(lambda: beaten(*tensors, _GAMMA).numpy(), repeats=20)
    chunk = _best_chunk(all_pairs, ratio_x, ratio_z)
    peer, expected = _seconds(lambda: all_pairs(ratio_x, ratio_z, chunk), repeats=3)
    other = _best_chunk(all_pairs_undivided, ratio_x, ratio_z)
    undivided, also = _seconds(lambda: all_pairs_undivided(ratio_x, ratio_z, other), repeats=3)
    return {
        "name": NAME,
        "description": DESCRIPTION,
        "ours": ours,
        "peer": peer,
        "unit": "s",
        "ratio": peer / ours,
        "ratio_to_undivided": undivided / ours,
        "peer_name": f"NumPy, all pairs, {chunk} points at a time (best of {len(_CHUNKS)} chunk sizes)",
        "values_equal": bool(np.array_equal(value, expected) and np.array_equal(value, also)),
        "at_least": 100.0,
    }
