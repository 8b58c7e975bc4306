"""Pipelining: ResNet-20 on a throttled link with layers in slices, one batch as two lanes, and batches taking turns."""

from typing import Any

import numpy as np

from benchmarks.mpc_parties import Outcome, run_play
from benchmarks.mpc_play import RING, BatchesPlay, NetworkPlay
from benchmarks.mpc_resnet20 import SHAPE, trained
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.offline.tuples import Dealer
from edgeward.backends.mpc.transport.network import LAN
from edgeward.graph import capture

NAME = "mpc-pipe"
DESCRIPTION = "ResNet-20 over a link throttled to 1 Gbit/s: pipelined within layers and between batches, and neither"

_BATCHES, _SLICES, _PAIR = (1, 8), (2, 4), 4
_REPEATS = 5
_TARGET = 0.10
_ROUNDING = 0.02
"""How far logits may move when truncations round otherwise."""


def run() -> dict:
    """Time both, with equal words and bytes. Weights are opened once, so nothing is left between layers."""
    network = capture(trained(), SHAPE)
    latency = {str(batch): _one_batch(network, batch) for batch in _BATCHES}
    throughput = {str(batch): _between_batches(lower(network, batch), batch) for batch in (1, _PAIR)}
    lead = latency[str(_BATCHES[-1])]
    return {
        "name": NAME,
        "description": DESCRIPTION,
        "ours": lead["seconds"],
        "peer": lead["whole_seconds"],
        "unit": "s",
        "ratio": lead["whole_seconds"] / lead["seconds"],
        "peer_name": "our own protocols without pipelining, same link, same material",
        "latency_cut": lead["cut"],
        "network": {"name": "throttled", "bits_per_second": LAN.bits_per_second, "round_trip": LAN.round_trip_seconds},
        "latency": latency,
        "throughput": throughput,
        "targets_met": {"latency_cut": lead["cut"] >= _TARGET},
    }


def _one_batch(network: Any, batch: int) -> dict[str, Any]:
    """Time one batch whole, with its layers in slices, and as two halves that take turns."""
    lowered, records = lower(network, batch), _records(batch, 0)
    seeds = Dealer(RING).seeds
    whole = run_play(NetworkPlay(lowered, records), _REPEATS, network=LAN, seeds=seeds)
    rows = {}
    for slices in _SLICES:
        sliced = run_play(NetworkPlay(lowered, records, slices), _REPEATS, network=LAN, seeds=seeds)
        _require_same(whole, sliced)
        rows[str(slices)] = {
            "seconds": sliced.best("online"),
            "seconds_median": sliced.median("online"),
            "seconds_busy": sliced.best("busy"),
        }
    rows = {f"{slices} slices": row for slices, row in rows.items()}
    if batch % 2 == 0:
        rows["2 lanes"] = _halved(lower(network, batch // 2), records, whole)
    best = min(rows, key=lambda slices: rows[slices]["seconds"])
    return {
        "whole_seconds": whole.best("online"),
        "whole_seconds_median": whole.median("online"),
        "whole_seconds_busy": whole.best("busy"),
        "seconds": rows[best]["seconds"],
        "schedule": best,
        "cut": 1 - rows[best]["seconds"] / whole.best("online"),
        "cut_median": 1 - rows[best]["seconds_median"] / whole.median("online"),
        "by_schedule": rows,
        "bytes": sum(whole.sent.values()),
        "rounds": whole.rounds,
        "link_alone_seconds": LAN.seconds(sum(whole.sent.values()), whole.rounds),
        "same_words_and_bytes": True,
    }


def _halved(lowered: Any, records: np.ndarray, whole: Outcome) -> dict[str, Any]:
    """Time both halves of a batch as two lanes; under other masks than the whole's, truncation may round otherwise."""
    middle = len(records) // 2
    halves = (records[:middle], records[middle:])
    lanes = run_play(BatchesPlay(lowered, halves, True), _REPEATS, network=LAN, seeds=Dealer(RING).seeds)
    same = np.abs(np.reshape(lanes.answer, np.shape(whole.answer)) - whole.answer).max() <= _ROUNDING
    if not same or lanes.sent != whole.sent or lanes.rounds != whole.rounds:
        raise RuntimeError("a batch in lanes differs from the whole one in answers, bytes or rounds")
    return {
        "seconds": lanes.best("online"),
        "seconds_median": lanes.median("online"),
        "seconds_busy": lanes.best("busy"),
    }


def _between_batches(lowered: Any, batch: int) -> dict[str, Any]:
    """Time two batches one after the other and taking turns."""
    batches = (_records(batch, 1), _records(batch, 2))
    seeds = Dealer(RING).seeds
    apart, together = (
        run_play(BatchesPlay(lowered, batches, turns), _REPEATS, network=LAN, seeds=seeds) for turns in (False, True)
    )
    _require_same(apart, together, rounds=False)
    records = batch * len(batches)
    return {
        "apart_records_per_second": records / apart.best("online"),
        "records_per_second": records / together.best("online"),
        "gain": apart.best("online") / together.best("online") - 1,
        "rounds": {"apart": apart.rounds, "together": together.rounds},
        "bytes": sum(apart.sent.values()),
        "same_words_and_bytes": True,
    }


def _require_same(one: Outcome, other: Outcome, *, rounds: bool = True) -> None:
    """Raise unless answers, bytes of every step and (if asked) rounds are equal."""
    if (
        not np.array_equal(one.answer, other.answer)
        or one.sent != other.sent
        or (rounds and one.rounds != other.rounds)
    ):
        raise RuntimeError("a pipelined run differs from the plain one")


def _records(batch: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, *SHAPE)).astype(np.float32)
