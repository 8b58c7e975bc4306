"""Networks among three parties: answers against reference and float network, traffic against the declaration."""

import functools
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from backends.mpc.test_mpc_attention import PIECES as ATTENTION
from backends.mpc.whole_runs import drawn, seeded
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.reference import check_range, compute
from edgeward.backends.mpc.inference.step import Step
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.replicated.execution import check_plan
from edgeward.backends.mpc.replicated.member import Member
from edgeward.backends.mpc.replicated.neighbours import ChannelNeighbours
from edgeward.backends.mpc.replicated.simulation import MODEL, answer_batch, cost_tables, hold, simulate_three
from edgeward.backends.mpc.transport.keys import write_keys
from edgeward.backends.mpc.transport.network import Network
from edgeward.backends.mpc.transport.rendezvous import Listener, Meeting, connect
from edgeward.core.errors import DataError, UnsupportedOperators
from edgeward.graph import capture
from edgeward.nets import lenet, pretrained, vit
from patience import PATIENCE

DATA = Path(os.environ.get("EDGEWARD_DATA") or Path(__file__).parents[3] / ".." / "shared" / "data")


class Gate(nn.Module):
    """A product of two secret values, one of which broadcasts, a square, a constant, two outputs of one opening."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.register_buffer("shift", torch.tensor([[[0.5]]]))

    def forward(self, x):
        gate = self.a(x).mean((2, 3), keepdim=True)
        return (self.b(x) * gate + self.shift).square().mean((2, 3)) - 0.25


ROWS = (
    *("softmax-first", "softmax-last", "layer-norm", "layer-norm-plain", "layer-norm-read", "group-norm"),
    *("product-of-matrices", "attention"),
)
PIECES = {
    "lenet": (lenet, (1, 28, 28)),
    "gate": (Gate, (3, 8, 8)),
    "clip-and-pool": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardtanh(-0.25, 0.125), nn.MaxPool2d(3, 2, 1)),
        (3, 8, 8),
    ),
    "curves": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 1), nn.Sigmoid()),
        (3, 8, 8),
    ),
    **{name: (ATTENTION[name], (3, 8, 8)) for name in ROWS},
    "average": (
        lambda: nn.Sequential(nn.AvgPool2d(3, 2, 1), nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(2)),
        (3, 8, 8),
    ),
}


def checked(module, shape, x=None, tolerance=2e-3):
    x = drawn(shape, 2) if x is None else x
    lowered = lower(capture(module, shape), len(x))
    run = simulate_three(lowered, x)
    for declared, metered in zip(run.declared, run.metered, strict=True):
        assert metered.rows == declared.rows
    assert run.agrees
    assert run.declared == cost_tables(lowered.plan)
    with torch.no_grad():
        right = module(torch.from_numpy(x)).numpy()
    assert np.abs(right).max() > 20 * tolerance
    np.testing.assert_allclose(run.answer, right, atol=tolerance, rtol=0)
    np.testing.assert_allclose(run.answer, compute(lowered.plan, lowered.model, x), atol=tolerance, rtol=0)
    return run, right


@pytest.mark.parametrize("name", PIECES)
def test_a_network_among_three_is_close_to_the_float_network_and_sends_what_it_declares(name):
    build, shape = PIECES[name]
    checked(seeded(build), shape)


def test_a_small_vision_transformer_among_three():
    module, shape = seeded(lambda: vit(size=16, dimension=32, depth=2, heads=2)), (3, 16, 16)
    run, right = checked(module, shape, tolerance=1e-3)
    np.testing.assert_array_equal(run.answer.argmax(1), right.argmax(1))
    lowered = lower(capture(module, shape), 2)
    check_range(lowered.plan, lowered.model, drawn(shape, 2))
    # A product of secret matrices sends its result, whatever it adds up over: 2 records, 2 heads, 17 tokens, 16 values.
    products = [[row.online.bytes for row in t.rows if row.operator == "attention"] for t in run.metered]
    scores, values = 2 * 2 * 17 * 17 * 8, 2 * 2 * 17 * 16 * 8
    assert [(sent[0], sent[3]) for sent in products] == [(scores, values)] * 3


@pytest.mark.slow
def test_the_vision_transformer_with_weights_that_matter_among_three():
    """Larger weights than those at the start of training: attention that chooses, activations on both sides."""
    module = seeded(vit)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(4)
    checked(module, (3, 32, 32), tolerance=2e-2)


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "weights").exists(), reason="no published weights in EDGEWARD_DATA")
def test_the_pretrained_resnet_20_among_three_gives_the_labels_of_the_float_network():
    with Image.open(DATA / "cifar10" / "test_00.webp") as sheet:
        tiles = np.asarray(sheet.convert("RGB"))[:32, : 32 * 8].reshape(32, 8, 32, 3)
    x = np.ascontiguousarray(tiles.transpose(1, 3, 0, 2).astype(np.float32) / 255)
    run, right = checked(pretrained("resnet20_cifar10", root=DATA).eval(), (3, 32, 32), x=x, tolerance=2e-2)
    np.testing.assert_array_equal(run.answer.argmax(1), right.argmax(1))


@functools.cache
def small():
    return capture(seeded(lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())), (1, 4, 4))


def test_only_the_owner_of_the_records_learns_and_only_owners_send_their_data():
    run = simulate_three(lower(small()), drawn((1, 4, 4), 1))
    sent = [{row.label: row.online.bytes for row in table.rows} for table in run.metered]
    assert [row["input"] for row in sent] == [4 * 4 * 8, 0, 0]
    assert [row["result"] for row in sent] == [0, 2 * 2 * 2 * 8, 0]
    assert [table.setup.bytes > 32 for table in run.metered] == [False, True, False]
    assert all(table.offline == table.offline_setup == 0 for table in run.metered)
    assert run.rounds == max(table.online.rounds for table in run.metered)


def concrete(kind):
    below = kind.__subclasses__()
    return [found for one in below for found in concrete(one)] if below else [kind]


def test_every_step_of_two_parties_has_a_protocol_among_three():
    plan = lower(small()).plan
    kinds = [kind for kind in concrete(Step) if kind.__module__.startswith("edgeward.")]
    assert len(kinds) > 15
    check_plan(type(plan)(plan.ring, tuple(map(object.__new__, kinds)), plan.input, plan.output, (1,), (1,)))


def test_refusals():
    lowered = lower(small())
    with pytest.raises(DataError, match="records do not fit"):
        simulate_three(lowered, drawn((1, 4, 5), 1))

    class Strange(Step):
        def run(self, party, values, held, materials):
            raise NotImplementedError

        def clear(self, simulator, values, model, masks):
            raise NotImplementedError

    plan = lowered.plan
    strange = Strange("0:x", "layer", "warp", (plan.input,), (plan.output,))
    with pytest.raises(UnsupportedOperators, match="warp"):
        check_plan(type(plan)(plan.ring, (strange,), plan.input, plan.output, (1,), (1,)))


def test_a_slow_link_changes_no_answer():
    lowered, x = lower(small(), layout=Layout(24)), drawn((1, 4, 4), 1)
    run = simulate_three(lowered, x, network=Network("slow", 1e6, 0.01))
    np.testing.assert_allclose(run.answer, compute(lowered.plan, lowered.model, x), atol=1e-3)


def test_three_parties_over_tls_each_with_a_certificate(tmp_path):
    names = ("records", "model", "third")
    folders = write_keys(tmp_path / "keys", names)
    lowered, x = lower(small()), drawn((1, 4, 4), 1)
    session, answers, sent = bytes.fromhex(lowered.plan.digest), {}, {}
    listeners = [Listener("127.0.0.1", 0, meeting(folders, names, n, (n + 1) % 3, session)) for n in range(3)]

    def party(number):
        def left():
            ours = meeting(folders, names, number, (number - 1) % 3, session)
            return connect("127.0.0.1", listeners[(number - 1) % 3].port, ours)

        # Somebody has to accept before connecting.
        links = [listeners[number].accept, left] if number == 0 else [left, listeners[number].accept]
        first, second = (meet() for meet in links)
        left_channel, right_channel = (second, first) if number == 0 else (first, second)
        member = Member(number, lowered.plan.ring, ChannelNeighbours(left_channel, right_channel))
        held = hold(member, lowered.plan, lowered.model if number == MODEL else None)
        answers[number] = answer_batch(member, lowered.plan, held, x if number == 0 else None)
        sent[number] = left_channel.meter.reading().sent
        closing = threading.Thread(target=left_channel.close)
        closing.start()
        right_channel.close()
        closing.join()

    threads = [threading.Thread(target=party, args=(number,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for listener in listeners:
        listener.close()
    np.testing.assert_allclose(answers[0], compute(lowered.plan, lowered.model, x), atol=1e-3)
    assert (answers[1], answers[2]) == (None, None)
    tables = cost_tables(lowered.plan)
    assert [sent[n] for n in range(3)] == [table.setup.bytes + table.online.bytes for table in tables]


def meeting(folders, names, party, peer, session):
    return Meeting(party, peer, names[peer], session, folders[names[party]], timeout=PATIENCE)
