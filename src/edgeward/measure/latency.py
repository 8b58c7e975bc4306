"""Latency of an executable on this host: measured, and never to be read as the device's."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import torch

from edgeward.backends.executable import Executable
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import Seed
from edgeward.measure.fingerprint import cpu_model

SHORTEST_SAMPLE_SECONDS = 2e-4
"""A sample repeats the call until it lasts this long, so that the clock's resolution does not show."""

_LEAST_SAMPLES = 5


@final
@dataclass(frozen=True)
class LatencySample:
    """Seconds of one call over `n` samples: the median, the 10th and 90th percentile and the fastest.

    The median and the percentiles ignore the occasional sample that another process disturbed; `minimum` is what the
    machine can do undisturbed.
    """

    median: float
    p10: float
    p90: float
    minimum: float
    n: int
    batch: int
    runtime: str
    threads: int
    machine: str

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return asdict(self)


def host_latency(
    executable: Executable,
    input_shape: tuple[int, ...],
    *,
    batch: int = 1,
    repeats: int = 50,
    threads: int = 1,
    limit_seconds: float = 10.0,
    seed: Seed = Seed(0),  # noqa: B008 - immutable
) -> LatencySample:
    """Measure the seconds of `executable.run` on standard normal records of `input_shape` (without the batch axis).

    `threads` bounds torch's pool during the measurement; an executable with a pool of its own says so in an attribute
    `threads`, which is then what the sample reports. Warm-up calls are not counted. Sampling stops early, after at
    least 5 samples, once `limit_seconds` have passed.
    Guarantee: measured on this host; says nothing about a device.
    """
    _check(batch, repeats, threads, input_shape)
    records = seed.child("latency").numpy().standard_normal((batch, *input_shape)).astype(np.float32)
    own = getattr(executable, "threads", None)
    with _torch_threads(threads):
        seconds = _sample(executable, records, repeats, limit_seconds)
    p10, median, p90 = (float(q) for q in np.percentile(seconds, (10, 50, 90)))
    return LatencySample(
        median=median,
        p10=p10,
        p90=p90,
        minimum=min(seconds),
        n=len(seconds),
        batch=batch,
        runtime=executable.runtime,
        threads=own if isinstance(own, int) and own > 0 else threads,
        machine=cpu_model(),
    )


def _sample(executable: Executable, records: np.ndarray, repeats: int, limit_seconds: float) -> list[float]:
    end = time.perf_counter() + limit_seconds
    fastest = math.inf
    for _ in range(3):
        start = time.perf_counter()
        executable.run(records)
        fastest = min(fastest, time.perf_counter() - start)
    inner = max(1, math.ceil(SHORTEST_SAMPLE_SECONDS / max(fastest, 1e-9)))
    seconds: list[float] = []
    while len(seconds) < repeats and (len(seconds) < _LEAST_SAMPLES or time.perf_counter() < end):
        start = time.perf_counter()
        for _ in range(inner):
            executable.run(records)
        seconds.append((time.perf_counter() - start) / inner)
    return seconds


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check(batch: int, repeats: int, threads: int, input_shape: tuple[int, ...]) -> None:
    problems = [f"{name} = {n}" for name, n in (("batch", batch), ("repeats", repeats), ("threads", threads)) if n < 1]
    problems += [f"input_shape = {input_shape}"] if any(extent < 1 for extent in input_shape) else []
    if problems:
        raise ConfigError(
            "latency cannot be measured with " + ", ".join(problems),
            expected="whole numbers of at least 1",
            fix="leave the arguments at their defaults",
        )
