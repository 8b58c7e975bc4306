"""What ships for a device is what is measured and priced: its form, its calibration, its siblings."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from edgeward.backends.integer.executable import IntegerExecutable
from edgeward.backends.integer.storage import from_file
from edgeward.codegen.arena import plan
from edgeward.core import Seed
from edgeward.devices import load_profile
from edgeward.measure.siblings import answers, lower
from edgeward.recipes import resolve
from edgeward.train import Schedule
from edgeward.train.task import Task
from train.train_toys import Recording, memberships


class Small(nn.Module):
    """A shortcut, a mean and a linear layer: values that no quantised layer declares a range for."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head(torch.relu(x + self.body(x)).mean((2, 3)))


def task(scale=1.0):
    x = torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(1)) * scale
    y = (x.mean((1, 2, 3)) > 0).long()
    members = memberships(3, 40, share=0.7)
    schedule = Schedule(epochs=2, batch=8, rate=0.02)
    return Task(
        Small,
        x,
        y,
        members,
        2,
        Seed(0),
        schedule,
        validation=(x[:8], y[:8]),
        input_shape=(1, 6, 6),
        watcher=Recording(),
    )


@cache
def trained(name):
    return resolve({"name": "qat", "weight_bits": 8} if name == "qat" else name).run(task())


@cache
def lowered(name, kind):
    return lower(trained(name), task(), kind, name)


@pytest.mark.parametrize("name", ["int8", "qat"])
def test_integer_recipes_ship_c_for_a_microcontroller_and_only_there(name):
    assert lowered(name, "linux").backend.slug == "onnx"
    siblings = lowered(name, "mcu")
    assert siblings.backend.slug == "c"
    assert all(isinstance(e, IntegerExecutable) for e in (siblings.shipped, *siblings.audited))
    assert siblings.notes(load_profile("cortex-m7")) == ()


def test_float_recipes_ship_as_before_and_the_notes_say_that_nothing_runs_there():
    siblings = lowered("none", "mcu")
    assert siblings.backend.slug == "onnx"
    (note,) = siblings.notes(load_profile("cortex-m7"))
    assert note.startswith("no form of this network runs on cortex-m7: edgeward writes no C for cortex-m7: stem: ")
    assert siblings.notes(load_profile("rpi4")) == ()


@pytest.mark.parametrize("name", ["int8", "qat"])
def test_the_cost_is_that_of_the_artefact_and_was_foreseen(name):
    device, siblings = load_profile("cortex-m7"), lowered(name, "mcu")
    cost, rows = siblings.cost(device)
    graph = from_file(siblings.artefact)
    assert cost.value("peak_ram_bytes") == plan(graph).bytes + 36
    assert cost.value("file_bytes") == len(siblings.artefact)
    assert cost.value("weight_bytes") == sum(row.weight_bytes for row in rows)
    assert cost.value("weight_bytes") == sum(tensor.nbytes for tensor in graph.tensors.values())
    foreseen = resolve({"name": "qat", "weight_bits": 8} if name == "qat" else name).foresee(
        Small, (1, 6, 6), device, Seed(3)
    )
    for quantity in ("peak_ram_bytes", "weight_bytes", "macs", "parameters", "device_latency_seconds"):
        assert foreseen.value(quantity) == cost.value(quantity)
    assert foreseen.value("file_bytes") == pytest.approx(len(siblings.artefact), rel=0.1)


def test_each_sibling_is_calibrated_on_its_own_records_only():
    made, siblings = task(), lowered("int8", "mcu")
    for model in range(3):
        outside = made.x.clone()
        outside[~made.members[model]] *= 1000
        again = lower(trained("int8"), Task(**{**vars(made), "x": outside}), "mcu", "int8")
        found = [*again.audited, again.shipped][model]
        before = [*siblings.audited, siblings.shipped][model]
        assert found.graph.values == before.graph.values
        others = [e.graph.values for i, e in enumerate((*again.audited, again.shipped)) if i != model]
        assert all(values != e.graph.values for values, e in zip(others, _others(siblings, model), strict=True))


def _others(siblings, model):
    return [e for i, e in enumerate((*siblings.audited, siblings.shipped)) if i != model]


def test_the_c_of_a_trained_network_answers_like_the_onnx_file():
    x = task().x
    onnx, integers = (answers((lowered("int8", kind).shipped,), x) for kind in ("linux", "mcu"))
    spread = float(onnx.max() - onnx.min())
    assert float((onnx - integers).abs().mean()) < 0.02 * spread
    assert float((onnx.argmax(-1) == integers.argmax(-1)).float().mean()) >= 0.9
    assert np.unique(integers.numpy()).size <= 256
