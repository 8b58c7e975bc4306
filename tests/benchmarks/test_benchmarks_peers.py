"""Tasks that ours and the peers share, ours in two processes, and the peers where they are installed."""

import json

import numpy as np
import pytest
import torch
from benchmarks.mpc_compare import ratios
from benchmarks.mpc_parties import measured
from benchmarks.mpc_play import MatmulPlay, NetworkPlay, ReluPlay, shares
from benchmarks.mpc_task import matmul_task, network_task, relu_task
from benchmarks.peers.environments import PEERS, peer
from benchmarks.peers.measure import at
from torch import nn

from edgeward.backends.mpc.inference.lowering import lower
from edgeward.core.errors import UnsupportedOperators, UserError
from edgeward.graph import capture


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.Linear(4, 3)

    def forward(self, x):
        y = torch.relu(self.conv(x))
        y = y + nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        y = nn.functional.max_pool2d(torch.relu(y), 2)
        return self.linear(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))


def small():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Residual().eval()
    records = np.random.default_rng(0).normal(size=(2, 2, 8, 8)).astype(np.float32)
    network = capture(module, (2, 8, 8))
    return network, records, network_task("small", network, module, records)


def test_a_task_is_written_for_programs_that_know_nothing_of_us(tmp_path):
    _, records, task = small()
    task.write(tmp_path)
    document = json.loads((tmp_path / "task.json").read_text())
    arrays = np.load(tmp_path / "arrays.npz", allow_pickle=False)
    assert set(arrays) == set(document["owners"])
    assert np.array_equal(arrays[document["inputs"][0]], records)
    operators = [layer["operator"] for layer in document["layers"]]
    assert {"conv2d", "slice", "pad", "add", "max_pool2d", "adaptive_avg_pool2d", "reshape", "linear"} <= set(operators)
    assert document["layers"][-1]["output"] == document["output"]


def test_an_operator_without_a_form_at_the_peers_is_named():
    module = nn.Sequential(nn.Linear(3, 3), nn.GELU())
    with pytest.raises(UnsupportedOperators, match="gelu"):
        network_task("odd", capture(module, (3,)), module, np.zeros((1, 3), np.float32))


def test_inputs_of_the_rectifier_are_exact_in_fixed_point():
    task = relu_task(100)
    assert np.array_equal(np.rint(task.right * 2**16), task.right * 2**16)
    assert task.right.min() == 0


def test_a_ratio_above_one_is_better_for_us():
    mine = {"seconds": 1.0, "seconds_median": 2.0, "seconds_with_preprocessing": 4.0, "bytes": 10, "rounds": 3}
    other = {"seconds": 8.0, "seconds_median": 8.0, "bytes": 50, "rounds": None}
    expected = {"online": 8.0, "online_median": 4.0, "with_preprocessing": 2.0, "bytes": 5.0, "rounds": None}
    assert ratios(mine, other) == expected


def test_a_peer_that_is_not_there_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEWARD_PEERS", str(tmp_path))
    assert at(PEERS["spu"], relu_task(8))["missing"] == "python -m benchmarks.peers spu --install"
    with pytest.raises(UserError, match="crypten"):
        peer("cripten")


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True])
def test_ours_in_two_processes(tls):
    task = relu_task(1000).with_repeats(2)
    found = measured(ReluPlay(shares(task.arrays["x"])), task, tls=tls)
    assert found["exact"]
    assert (found["bytes"], found["rounds"]) == (8000 + 16 * 125, 4)
    task = matmul_task(16).with_repeats(1)
    found = measured(MatmulPlay(shares(task.arrays["x"]), shares(task.arrays["y"])), task, tls=tls)
    assert found["max_error"] < 1e-3
    assert found["bytes"] == 8 * 3 * 16 * 16
    network, records, task = small()
    assert measured(NetworkPlay(lower(network, 2), records), task.with_repeats(1), tls=tls)["max_error"] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_computes_the_same(name):
    if not PEERS[name].installed:
        pytest.skip(f"python -m benchmarks.peers {name} --install")
    assert at(PEERS[name], relu_task(100).with_repeats(1))["max_error"] < 1e-4
    found = at(PEERS[name], small()[2].with_repeats(1))
    assert found["max_error"] < 1e-2
    assert found["seconds"] > 0
