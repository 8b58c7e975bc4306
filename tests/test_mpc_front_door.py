"""`edgeward.mpc`: what the front door takes, gives back and says."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeward import mpc
from edgeward.core.errors import ConfigError, DataError, UnsupportedOperators
from edgeward.graph import capture

HOW_TO = Path(__file__).parents[1] / "docs" / "how-to" / "secure-inference.md"


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).eval()


@pytest.mark.parametrize("parties", [2, 3])
def test_a_module_answers_and_the_run_reports(net, parties):
    x = torch.rand((2, 1, 6, 6), generator=torch.Generator().manual_seed(0))
    with mpc.simulate(parties) as run:
        y = run(net, x)
    assert isinstance(y, torch.Tensor)
    torch.testing.assert_close(y, net(x).detach(), atol=1e-3, rtol=0)
    report = run.report
    assert report["kind"] == "simulation"
    assert report["metered_equals_declared"]
    assert "semi-honest" in report["adversary"]
    assert ("dealer" in report["trusted"]) == (parties == 2)
    assert run.costs.online == run.declared.online
    assert run.costs.online.bytes > 0


@pytest.mark.parametrize("form", ["network", "plan"])
def test_networks_and_plans_are_taken_too(net, form):
    x = np.random.default_rng(0).random((1, 1, 6, 6), np.float32)
    given = capture(net, (1, 6, 6)) if form == "network" else mpc.lowered(net, (1, 6, 6))
    with mpc.simulate() as run:
        y = run(given, x)
    assert isinstance(y, np.ndarray)
    np.testing.assert_allclose(y, net(torch.from_numpy(x)).detach().numpy(), atol=1e-3)


def test_what_cannot_be_run_is_refused(net):
    with mpc.simulate() as run:
        with pytest.raises(ConfigError, match="nothing was run"):
            _ = run.costs
        with pytest.raises(DataError, match="finite"):
            run(net, np.full((1, 1, 6, 6), np.nan, np.float32))
        with pytest.raises(DataError, match="other records"):
            run(mpc.lowered(net, (1, 6, 6)), np.zeros((2, 1, 6, 6), np.float32))
        with pytest.raises(UnsupportedOperators, match="leaky_relu"):
            run(nn.Sequential(nn.Linear(3, 2), nn.LeakyReLU()), np.zeros((1, 3), np.float32))
    with pytest.raises(ConfigError, match="unknown network"):
        mpc.simulate(network="moon")


def test_the_snippets_of_the_page_run(tmp_path):
    script = tmp_path / "page.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.S)))
    assert runpy.run_path(str(script))["y"].shape == (2, 3)


def test_every_command_of_the_page_is_known():
    from edgeward.cli.secure import secure

    known = {command.name for command in secure.registered_commands}
    used = set(re.findall(r"^edgeward secure (\w+)", HOW_TO.read_text(encoding="utf-8"), re.M))
    assert used == known
