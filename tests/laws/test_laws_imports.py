"""Law 3: importing edgeward is light, touches no GPU, and starts nothing."""

import json
import subprocess
import sys

import pytest

from patience import PATIENCE

HEAVY = ["onnx", "onnxruntime", "matplotlib", "opacus", "sklearn", "jinja2", "PIL", "rich", "typer", "pandas", "ray"]
PROBE = """
import json, sys, threading
import edgeward
{more}
import torch
loaded = sorted(set(name.split(".")[0] for name in sys.modules) & set({heavy!r}))
print(json.dumps({{"heavy": loaded, "cuda": torch.cuda.is_initialized(), "threads": threading.active_count()}}))
"""


def probe(more: str) -> dict:
    code = PROBE.format(heavy=HEAVY, more=more)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("more", ["", "import edgeward.core, edgeward.job, edgeward.load"])
def test_import_is_light(more):
    found = probe(more)
    assert found == {"heavy": [], "cuda": False, "threads": 1}


def test_import_leaves_the_global_generators_alone():
    code = (
        "import random, torch, numpy as np\n"
        "torch.manual_seed(5); random.seed(5); np.random.seed(5)\n"
        "before = torch.get_rng_state().clone(), random.getstate(), np.random.get_state()[1].tolist()\n"
        "import edgeward.core, edgeward.train.population, edgeward.graph, edgeward.devices\n"
        "assert torch.equal(before[0], torch.get_rng_state())\n"
        "assert before[1] == random.getstate() and before[2] == np.random.get_state()[1].tolist()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
