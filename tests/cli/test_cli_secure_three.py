"""`edgeward secure ... --parties 3`: certificates, refusals, and a deployment of three commands without a dealer."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cli.cli_runner import run
from cli.test_cli_secure import NET, started
from ports import free_ports

COST = ("parties", "kind", "adversary", "metered_equals_declared", "offline_bytes_received", "batches")


def test_keys_for_three_have_an_assistant_and_no_dealer(tmp_path):
    done = run("secure", "keys", tmp_path / "keys", "--parties", 3, "--json")
    assert sorted(done.json["folders"]) == ["assistant", "client", "server"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--parties", "3", "--fetch", "2"], "three parties keep no material"),
        (["--parties", "3", "--input", "x.npy", "--no-dealer"], "three parties have no dealer"),
        (["--parties", "3", "--input", "x.npy", "--store", "own"], "three parties have no dealer"),
        (["--input", "x.npy", "--assistant", "127.0.0.1:1"], "two parties have no assistant"),
    ],
)
def test_options_of_the_other_deployment_are_refused(tmp_path, given, said):
    run("secure", "keys", tmp_path / "keys", "--parties", 3)
    done = run("secure", "client", "--keys", tmp_path / "keys" / "client", *given, "--json")
    assert done.code == 1
    assert said in done.json["error"]["message"]


@pytest.mark.slow
def test_three_commands_answer_without_a_dealer(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    x = np.random.default_rng(0).random((2, 1, 6, 6), np.float32)
    np.save(tmp_path / "x.npy", x)
    run("secure", "keys", tmp_path / "keys", "--parties", 3)
    at, server = (f"127.0.0.1:{port}" for port in free_ports(2))
    helping = ["assistant", "--keys", "keys/assistant", "--listen", at, "--json"]
    serving = [
        "server",
        "net.py:build",
        "--weights",
        "net.safetensors",
        "--input",
        "1x6x6",
        "--keys",
        "keys/server",
        "--listen",
        server,
    ]
    serving += ["--parties", 3, "--assistant", at, "--json"]
    asking = ["client", "--keys", "keys/client", "--input", "x.npy", "--server", server, "--parties", 3]
    asking += ["--assistant", at, "--patience", 300, "--output", "y.npy"]
    with started(tmp_path, *helping) as one, started(tmp_path, *serving) as two, started(tmp_path, *asking) as three:
        outputs = [process.communicate(timeout=300) for process in (three, two, one)]
        assert [process.returncode for process in (one, two, three)] == [0, 0, 0], outputs
    right = net(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), right, atol=1e-2)
    assert "deployment, three parties, client: 2 batches" in outputs[0][0]
    assert "no two of client, server and assistant work together" in outputs[0][0]
    assert "as declared" in outputs[0][0]
    for out, _ in outputs[1:]:
        said = json.loads(out)
        assert [said[name] for name in COST] == [
            3,
            "deployment",
            "semi-honest, static, one of three parties",
            True,
            0,
            2,
        ]
