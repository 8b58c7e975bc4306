"""One split deployment, made once: the files given, its run from Python, and its run from the command line."""

import json

import pytest
import torch
from safetensors.torch import save_file

import edgeward
from cli.cli_runner import run
from cli.mirror.mirror_runs import EPOCHS, STEPS, STRATEGY, arguments
from digits_task import write_task
from edgeward.attacks.extraction import Attacker
from edgeward.core.randomness import Seed
from edgeward.data import load_source
from edgeward.load import load_model
from edgeward.recipes.mirrornet import MirrorNet, Strategy
from edgeward.train.part import Schedule
from edgeward.train.population import build


def trained(module, x, y):
    optimiser = torch.optim.Adam(module.parameters(), 2e-2)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimiser.step()
    return module


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    x, y = write_task(folder)
    module = build(load_model(f"{folder}/net.py:net"), Seed(3))
    trained(module, torch.from_numpy(x), torch.from_numpy(y))
    save_file(module.state_dict(), folder / "net.safetensors")
    (folder / "strategy.json").write_text(json.dumps(STRATEGY))
    return folder


@pytest.fixture(scope="session")
def result(folder):
    """The same run as the command line's, from Python: it gives the integer reference and trains what both use."""
    return edgeward.mirror(
        build(load_model(f"{folder}/net.py:net", weights=folder / "net.safetensors", keep=True), Seed(0)),
        load_source(str(folder / "data.npz"), seed=Seed(0).child("data"), canaries=0),
        secure_ram=8 * 2**20,
        overhead=5.0,
        recipe=MirrorNet(preset="anti"),
        strategies=(Strategy.read(folder / "strategy.json"),),
        budgets=(20,),
        attackers=1,
        attacker=Attacker(steps=STEPS, epochs=STEPS),
        schedule=Schedule(epochs=EPOCHS, batch=64, rate=2e-3, decay="cosine"),
        largest_drop=1.0,
        workdir=folder / "run",
        command="edgeward mirror",
    )


@pytest.fixture(scope="session")
def mirrored(folder, result):
    done = run(*arguments(folder, "--drop", "100%", "--overhead", "500%", "--json"))
    assert done.code == 0, done.err
    return done
