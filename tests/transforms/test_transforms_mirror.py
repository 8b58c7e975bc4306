from functools import lru_cache

import numpy as np
import pytest
import torch

from edgeward.backends.cleartext.onnx_lowering import to_onnx_bytes
from edgeward.backends.cleartext.onnxruntime import OnnxExecutable
from edgeward.backends.cleartext.reference import ReferenceExecutable
from edgeward.core.errors import ConfigError, ModelError
from edgeward.core.randomness import Seed
from edgeward.graph import capture, fold_batch_norm, to_module
from edgeward.graph.partition import stages
from edgeward.nets import NETS
from edgeward.train.population import build
from edgeward.transforms.mirror import Block, MirrorModule, Monitor, MonitorPlan, monitor_network, tap_shapes, tapped
from edgeward.transforms.mirror.adapted import Adapted
from edgeward.transforms.mirror.features import OnFeatures, features, tap_ranges

SMALL = {
    "lenet": ({}, (1, 28, 28)),
    "mlp": ({"features": 20, "hidden": (16, 12)}, (20,)),
    "resnet": ({"depth": 8, "width": 4}, (3, 16, 16)),
    "vit": ({"depth": 2, "dimension": 16, "size": 16}, (3, 16, 16)),
}


@lru_cache
def victim_of(name):
    options, shape = SMALL[name]
    network = fold_batch_norm(capture(build(lambda: NETS[name](**options), Seed(1)).eval(), shape))
    return network, stages(network)


def records(network, count=5):
    return torch.randn(count, *network.input_shape(), generator=torch.Generator().manual_seed(3))


def monitor_of(network, at, plan, seed=0):
    return build(lambda: Monitor(plan, network, at, 10), Seed(seed)).eval()


@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.parametrize("head", ["replace", "residual"])
def test_monitor_as_network_equals_the_module_on_the_backbones_taps(name, head):
    network, at = victim_of(name)
    plan = MonitorPlan(tuple(Block(stage, "pw", 6) for stage in range(1, len(at))), head)
    monitor = monitor_of(network, at, plan)
    backbone = tapped(network, at, plan)
    shipped = monitor_network(monitor, at)
    assert [shipped.values[v].shape for v in shipped.inputs] == list(tap_shapes(plan, at, 10))
    x = records(network)
    *taps, own = to_module(backbone)(x)
    torch.testing.assert_close(own, to_module(network)(x))
    torch.testing.assert_close(to_module(shipped)(*taps), monitor(*taps), atol=1e-5, rtol=1e-4)
    both = MirrorModule(to_module(backbone), monitor).eval()(x)
    torch.testing.assert_close(both, torch.cat([monitor(*taps), own], 1))
    assert not any(node.operator == "batch_norm" for node in shipped.nodes)


@pytest.mark.parametrize("kind", ["pw", "dwsep", "conv3", "ghost"])
def test_kinds_widths_and_pools(kind):
    network, at = victim_of("resnet")
    plan = MonitorPlan((Block(0, kind, 5, 4), Block(2, kind, 7, 2), Block(3, kind, 9)))
    monitor = monitor_of(network, at, plan)
    backbone = tapped(network, at, plan, answer=False)
    assert [backbone.values[v].shape for v in backbone.outputs] == [(3, 4, 4), (8, 4, 4), (16, 4, 4)]
    x = records(network)
    taps = to_module(backbone)(x)
    assert monitor(*taps).shape == (5, 10)
    torch.testing.assert_close(to_module(monitor_network(monitor, at))(*taps), monitor(*taps), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet", "lenet", "vit", "mlp"])
def test_copies_of_all_later_stages_are_the_victim(name):
    network, at = victim_of(name)
    for start in range(len(at) - 1):
        plan = MonitorPlan(tuple(Block(stage, "stage") for stage in range(start + 1, len(at))))
        assert plan.copies_all_after == start
        assert [tap.cut for tap in plan.taps] == [start]
        backbone = tapped(network, at, plan, answer=False)
        x = records(network)
        taps = ReferenceExecutable(backbone).run_all(x.numpy())
        found = to_module(monitor_network(monitor_of(network, at, plan), at))(*map(torch.from_numpy, taps))
        torch.testing.assert_close(found, to_module(network)(x), atol=1e-5, rtol=1e-5)


def test_copies_and_mirrored_blocks_mix():
    network, at = victim_of("resnet")
    plan = MonitorPlan((Block(2, "stage"), Block(3, "dwsep", 8)))
    assert [tap.cut for tap in plan.taps] == [1, 3]
    taps = to_module(tapped(network, at, plan, answer=False))(records(network))
    assert monitor_of(network, at, plan)(*taps).shape == (5, 10)


def test_a_backbone_without_an_answer_ends_at_its_last_tap():
    network, at = victim_of("resnet")
    backbone = tapped(network, at, MonitorPlan((Block(1, "pw", 4),)), answer=False)
    assert len(backbone.nodes) == at[1].after
    assert not any(key.startswith("layer2") for key in backbone.tensors)


def test_impossible_plans_report_every_problem():
    with pytest.raises(ConfigError) as error:
        MonitorPlan((Block(2, "pw", 0), Block(1, "dense", 4, 3), Block(3, "stage", 4)), "sideways")
    for part in ("width 0", "kind 'dense'", "pool 3", "stage 1 after stage 2", "right after", "no width", "sideways"):
        assert part in str(error.value)
    network, at = victim_of("lenet")
    with pytest.raises(ModelError, match="stage 9 of"):
        Monitor(MonitorPlan((Block(9, "pw", 4),)), network, at, 10)
    with pytest.raises(ModelError, match="a vector"):
        Monitor(MonitorPlan((Block(3, "dwsep", 4),)), network, at, 10)
    with pytest.raises(ModelError, match="cannot follow"):
        Monitor(MonitorPlan((Block(1, "pw", 4, 4), Block(2, "pw", 4))), network, at, 10)


def test_cached_features_are_the_taps_on_the_int8_grid():
    network, at = victim_of("resnet")
    plan = MonitorPlan((Block(1, "pw", 4, 2), Block(3, "pw", 4)))
    backbone = tapped(network, at, plan, answer=False)
    x = records(network, 7)
    ranges = tap_ranges(backbone, x)
    rows = features(backbone, x, ranges, views=2, chunk=3)
    assert rows.shape == (7, 2, 4 * 8 * 8 + 16 * 4 * 4)
    taps = to_module(backbone)(x)
    step = max((grid.high - grid.low) / 255 for grid in ranges)
    flat = torch.cat([tap.flatten(1) for tap in taps], 1)
    assert (rows[:, 0].float() - flat).abs().max() <= 0.6 * step + 4e-3
    assert len(np.unique(rows[:, 0, -256:].float().numpy())) <= 256
    mirrored = torch.cat([tap.flatten(1) for tap in to_module(backbone)(x.flip(-1))], 1)
    assert (rows[:, 1].float() - mirrored).abs().median() <= step  # outliers are cut off
    monitor = monitor_of(network, at, plan)
    answer = OnFeatures(monitor, tap_shapes(plan, at, 10))(rows[:, 0])
    assert (answer - monitor(*taps)).abs().max() < 0.1


def test_an_adapted_copy_learns_to_read_foreign_features():
    network, at = victim_of("resnet")
    plan = MonitorPlan((Block(2, "adapted"), Block(3, "stage")))
    assert plan.copies_all_after == 1
    monitor = monitor_of(network, at, plan)
    module = monitor.blocks[0]
    assert isinstance(module, Adapted)
    given = to_module(tapped(network, at, plan, answer=False))(records(network, 60))
    x = torch.relu(given.detach())
    torch.testing.assert_close(monitor(x), to_module(network)(records(network, 60)), atol=1e-5, rtol=1e-5)
    turned = torch.einsum("oc,nchw->nohw", torch.linalg.qr(torch.randn(4, 4)).Q, x)
    explained = module.fit(turned, x, chunk=16)
    assert explained > 0.99
    torch.testing.assert_close(torch.relu(module.adapt(turned)), x, atol=0.05, rtol=0.05)
    shipped = to_module(monitor_network(monitor, at))
    torch.testing.assert_close(shipped(turned), monitor(turned), atol=1e-5, rtol=1e-4)


def test_taps_that_are_read_on_survive_the_onnx_file():
    """Padding behind a tap: the runtime's fusions must not lose the value."""
    network = fold_batch_norm(
        capture(build(lambda: NETS["mobilenet_v1"](width=0.25, classes=10), Seed(1)).eval(), (3, 32, 32))
    )
    at = stages(network)
    backbone = tapped(network, at, MonitorPlan((Block(1, "pw", 4), Block(2, "pw", 4, 2))))
    x = records(network).numpy()
    found = OnnxExecutable(to_onnx_bytes(backbone)).run_all(x)
    for ours, expected in zip(found, ReferenceExecutable(backbone).run_all(x), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=1e-4)
