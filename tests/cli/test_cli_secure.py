"""`edgeward secure`: certificates, costs, refusals, and a deployment of three commands."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cli.cli_runner import run
from edgeward.nets import lenet
from patience import PATIENCE, SOON
from ports import free_ports

NET = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
def odd():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.LeakyReLU(), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(32, 3))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secure")
    (folder / "net.py").write_text(NET)
    return folder


def test_keys_are_written_once_per_party(tmp_path):
    done = run("secure", "keys", tmp_path / "keys", "--days", 7, "--json")
    assert done.code == 0
    assert sorted(done.json["folders"]) == ["client", "dealer", "server"]
    assert sorted(p.name for p in (tmp_path / "keys" / "client").iterdir()) == ["ca.pem", "certificate.pem", "key.pem"]
    again = run("secure", "keys", tmp_path / "keys")
    assert again.code == 1
    assert "exists" in again.err


@pytest.fixture(scope="module")
def cost(folder):
    return run("secure", "cost", f"{folder / 'net.py'}:build", "--input", "1x6x6", "--network", "wan", "--json")


def test_the_cost_is_modelled_per_layer_and_per_protocol(cost):
    assert cost.code == 0, cost.err
    said = cost.json
    rows, total = said["declared"]["rows"], said["declared"]["total"]
    assert said["kind"] == "modelled"
    assert [row["operator"] for row in rows] == ["conv2d", "max_pool2d", "relu", "reshape", "linear", "result"]
    assert total["bytes"] == sum(row["bytes"] for row in rows)
    assert total["rounds"] == sum(row["rounds"] for row in rows)
    assert total["seconds"] == pytest.approx(total["bytes"] * 8 / 1e8 + total["rounds"] * 0.04)
    assert said["measured_seconds_here"] > 0
    # Each party's bytes, and those of both.
    assert said["protocols"]["dealer"]["total"]["bytes"] == 2 * total["bytes"]
    assert {"sci-ot", "sci-he", "cheetah"} <= said["protocols"].keys() | said["protocols_refused"].keys()


def test_the_cost_names_what_to_replace_and_what_that_saves(cost, folder):
    named = {one["operator"]: one for one in cost.json["replace"]}
    assert "max_pool2d" in named
    assert named["max_pool2d"]["instead"] == "avg_pool2d"
    # What is proposed is lowered and declared: the saving is that of the changed network.
    changed = NET.replace("MaxPool2d", "AvgPool2d")
    (folder / "changed.py").write_text(changed)
    other = run("secure", "cost", f"{folder / 'changed.py'}:build", "--input", "1x6x6", "--no-measure", "--json").json
    now = cost.json["declared"]["total"]
    assert now["bytes"] - other["declared"]["total"]["bytes"] == named["max_pool2d"]["bytes"]
    assert now["rounds"] - other["declared"]["total"]["rounds"] == named["max_pool2d"]["rounds"]


def test_the_cost_reads_well(folder):
    done = run("secure", "cost", f"{folder / 'net.py'}:build", "--input", "1x6x6", "--network", "50Mbit,20ms")
    assert done.code == 0, done.err
    for word in ("modelled", "measured here", "semi-honest", "to replace", "sci-ot", "from the dealer"):
        assert word in done.out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["net.py:odd", "--input", "1x6x6"], "unsupported"),
        (["net.py:build", "--input", "1x6x6", "--network", "moon"], "unknown network"),
        (["net.py:build", "--input", "1x6x6", "--network", "fast,1ms"], "bandwidth"),
        (["net.py:build", "--input", "1x6x6", "--protocol", "telepathy"], "unknown protocol"),
        (["net.py:build", "--input", "six"], "input shape"),
    ],
)
def test_what_cannot_be_priced_is_refused(folder, arguments, word):
    done = run("secure", "cost", f"{folder}/{arguments[0]}", *arguments[1:])
    assert done.code == 1
    assert word in done.err


def test_all_operators_without_a_protocol_are_listed_at_once(folder):
    done = run("secure", "cost", f"{folder}/net.py:odd", "--input", "1x6x6", "--json")
    assert "leaky_relu" in done.json["error"]["message"]
    assert "group_norm" in done.json["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["client", "--input", "x.npy"], "keys"),
        (["client", "--keys", "nowhere", "--input", "{x}"], "credentials"),
        (["client", "--keys", "nowhere", "--input", "missing.npy"], "cannot be read"),
        (["client", "--keys", "nowhere"], "nothing to do"),
        (["client", "--keys", "nowhere", "--input", "{x}", "--server", "here"], "address"),
        (["dealer", "--keys", "nowhere", "--listen", "here"], "address"),
        (["server", "net:lenet", "--input", "1x28x28", "--keys", "nowhere"], "credentials"),
    ],
)
def test_parties_refuse_what_they_cannot_use(tmp_path, arguments, word):
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 6, 6), np.float32))
    done = run("secure", *(a.format(x=tmp_path / "x.npy") for a in arguments))
    assert done.code == 1
    assert word in done.err


@pytest.mark.parametrize(
    ("parties", "role", "shown"),
    [(2, "dealer", "server"), (2, "server", "client"), (2, "client", "dealer"), (3, "assistant", "server")],
)
def test_a_party_given_the_folder_of_another_refuses_at_once(tmp_path, parties, role, shown):
    keys = tmp_path / "keys"
    run("secure", "keys", keys, "--parties", parties)
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 28, 28), np.float32))
    more = {"server": ["net:lenet", "--input", "1x28x28"], "client": ["--input", tmp_path / "x.npy"]}
    at = time.monotonic()
    done = run("secure", role, *more.get(role, []), "--keys", keys / shown, "--patience", PATIENCE)
    assert done.code == 1
    assert time.monotonic() - at < SOON
    assert [f"'{keys / shown}' is not the {role}'s folder" in done.err, f"'{keys / role}'" in done.err] == [True, True]


def test_a_party_alone_says_whom_it_misses(tmp_path):
    run("secure", "keys", tmp_path / "keys")
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 6, 6), np.float32))
    (port,) = free_ports(1)
    done = run(
        *("secure", "client", "--keys", tmp_path / "keys" / "client", "--input", tmp_path / "x.npy"),
        *("--server", f"127.0.0.1:{port}", "--patience", 0.3, "--json"),
    )
    assert done.code == 1
    assert "cannot be reached" in done.json["error"]["message"]


@contextlib.contextmanager
def started(folder, *arguments):
    command = [sys.executable, "-c", "from edgeward.cli import main; raise SystemExit(main())", "secure"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def three(tmp_path):
    """Return the arguments of the three commands for a LeNet with weights in a file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = lenet().eval()
    save_file(net.state_dict(), tmp_path / "lenet.safetensors")
    x = np.random.default_rng(0).random((2, 1, 28, 28), np.float32)
    np.save(tmp_path / "x.npy", x)
    run("secure", "keys", tmp_path / "keys")
    at, server = (f"127.0.0.1:{port}" for port in free_ports(2))
    dealer = ["dealer", "--keys", "keys/dealer", "--listen", at, "--json"]
    serving = ["server", "net:lenet", "--weights", "lenet.safetensors", "--input", "1x28x28", "--keys", "keys/server"]
    serving += ["--listen", server, "--dealer", at, "--json"]
    asking = ["client", "--keys", "keys/client", "--input", "x.npy", "--server", server, "--dealer", at]
    asking += ["--patience", 300, "--json", "--output", "y.npy"]
    with torch.no_grad():
        right = net(torch.from_numpy(x)).numpy()
    return dealer, serving, asking, right


@pytest.mark.slow
def test_three_commands_answer_and_end(three, tmp_path):
    dealer, serving, asking, right = three
    with started(tmp_path, *dealer) as one, started(tmp_path, *serving) as two, started(tmp_path, *asking) as three_:
        outputs = [process.communicate(timeout=300) for process in (three_, two, one)]
        assert [process.returncode for process in (one, two, three_)] == [0, 0, 0], outputs
    said = [json.loads(out) for out, _ in outputs]
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), right, atol=1e-2)
    assert said[0]["labels"] == right.argmax(1).tolist()
    assert said[0]["cost"]["metered_equals_declared"]
    assert said[0]["cost"]["kind"] == "deployment"
    assert [one["role"] for one in (said[0]["cost"], *said[1:])] == ["client", "server", "dealer"]


@pytest.mark.slow
def test_an_interrupt_stops_all_three_with_a_word(three, tmp_path):
    dealer, serving, asking, _ = three
    np.save(tmp_path / "x.npy", np.zeros((5000, 1, 28, 28), np.float32))
    with started(tmp_path, *dealer) as one, started(tmp_path, *serving) as two, started(tmp_path, *asking) as three_:
        for line in three_.stderr:
            if line.startswith("the server's plan"):
                break
        time.sleep(2)
        two.send_signal(signal.SIGINT)
        at = time.monotonic()
        outputs = [process.communicate(timeout=PATIENCE) for process in (two, one, three_)]
        assert time.monotonic() - at < SOON
        assert [process.returncode for process in (two, one, three_)] == [130, 1, 1]
    assert "the other parties were told" in outputs[0][1]
    # An interrupt in the middle of a frame leaves no place for a word: then the connection just ends.
    words = "stopped because of a failure", "the connection to the other party broke"
    assert all(any(word in out[1] for word in words) for out in outputs[1:]), [out[1][-500:] for out in outputs]
    assert not (tmp_path / "y.npy").exists()
