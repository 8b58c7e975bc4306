"""Host latency against a known duration, and the environment's fingerprint without anything personal."""

import getpass
import json
import os
import platform
import socket
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from edgeward.backends.executable import Executable
from edgeward.core.errors import ConfigError
from edgeward.core.randomness import Seed
from edgeward.measure.fingerprint import cpu_model, environment
from edgeward.measure.latency import host_latency


class Sleeper(Executable):
    """Sleeps a known time; every tenth call sleeps ten times longer."""

    runtime: ClassVar[str] = "sleep"

    def __init__(self, seconds):
        self.seconds, self.calls, self.shapes, self.torch_threads = seconds, 0, set(), set()

    def run(self, records):
        self.calls += 1
        self.shapes.add((records.shape, records.dtype))
        self.torch_threads.add(torch.get_num_threads())
        time.sleep(self.seconds * (10 if self.calls % 10 == 0 else 1))
        return np.zeros((len(records), 2), dtype=np.float32)


class OwnPool(Sleeper):
    """Runs on a pool of three threads."""

    threads: ClassVar[int] = 3


def test_a_known_duration_is_measured_in_spite_of_outliers():
    sleeper = Sleeper(2e-3)
    before = torch.get_num_threads()
    sample = host_latency(sleeper, (3, 4), batch=2, repeats=30)
    assert 2e-3 <= sample.minimum <= sample.p10 <= sample.median <= sample.p90
    assert sample.median < 6e-3
    assert (sample.n, sample.batch, sample.threads, sample.runtime) == (30, 2, 1, "sleep")
    assert sleeper.shapes == {((2, 3, 4), np.dtype(np.float32))}
    assert sleeper.torch_threads == {1}
    assert torch.get_num_threads() == before
    assert sample.to_json()["median"] == sample.median


def test_short_calls_are_repeated_until_the_clock_can_see_them():
    class Nothing(Sleeper):
        def run(self, records):
            self.calls += 1
            return records

    nothing = Nothing(0)
    sample = host_latency(nothing, (1,), repeats=5)
    assert sample.n == 5
    assert nothing.calls > 5 * 10
    assert 0 < sample.median < 1e-4


def test_sampling_stops_at_its_time_limit():
    sample = host_latency(Sleeper(5e-3), (1,), repeats=10_000, limit_seconds=0.05)
    assert 5 <= sample.n < 30


def test_an_executable_with_its_own_pool_is_reported_with_it():
    assert host_latency(OwnPool(1e-3), (1,), repeats=5).threads == 3


def test_the_number_of_threads_is_restored_after_an_error():
    class Broken(Sleeper):
        def run(self, records):
            raise RuntimeError("broken")

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken"):
        host_latency(Broken(0), (1,), threads=2)
    assert torch.get_num_threads() == before


def test_the_records_are_reproducible():
    seen = []

    class Recorder(Sleeper):
        def run(self, records):
            seen.append(records.copy())
            return records

    for _ in range(2):
        host_latency(Recorder(0), (4,), repeats=1, seed=Seed(7))
    assert all((records == seen[0]).all() for records in seen)


def test_impossible_settings_are_listed_together():
    with pytest.raises(ConfigError, match=r"batch = 0, repeats = -1, threads = 0, input_shape = \(0,\)"):
        host_latency(Sleeper(0), (0,), batch=0, repeats=-1, threads=0)


def test_environment_names_versions_and_machine_as_plain_json():
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == platform.python_version()
    assert (
        found["packages"]["torch"] == torch.__version__.split("+")[0] or found["packages"]["torch"] == torch.__version__
    )
    assert {"torch", "onnxruntime", "numpy", "opacus", "edgeward"} <= found["packages"].keys()
    assert found["cpu"] == cpu_model()
    assert found["cores"] == os.cpu_count()
    assert found["threads"] == torch.get_num_threads()
    assert found["native_kernels"]
    assert found["gpu"] is None or torch.cuda.is_initialized()


def test_environment_names_no_person_host_or_path():
    text = json.dumps(environment())
    for secret in {socket.gethostname(), platform.node(), str(Path.home()), str(Path.cwd()), os.sep + "home"}:
        if len(secret) > 3:
            assert secret not in text
    if getpass.getuser() != "root":
        assert f'"{getpass.getuser()}"' not in text
    assert not any(part in text for part in (str(Path(__file__).parents[2]), ".venv"))


def test_commit_is_a_hash_when_the_source_tree_is_there():
    commit = environment()["commit"]
    if not (Path(__file__).parents[2] / ".git").exists():
        pytest.skip("not a checkout")
    assert commit is None or len(commit.removesuffix("+changed")) == 40
