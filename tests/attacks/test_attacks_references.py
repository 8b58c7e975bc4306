"""The black box as a thief has it: the victim's form, and the public network's own where that is another."""

from dataclasses import replace

import pytest
import torch

from attacks import stealing_toys as toys
from edgeward.attacks.extraction import Exposure, References, audit_split, black_boxes, measure_references

pytest_plugins = ["attacks.stealing_fixtures"]
BUDGET = 40
QUICK = replace(toys.ATTACKER, variants=("as it is", "fine-tuned"))


@pytest.fixture(scope="module")
def public(victim):
    """A network with another activation, good in its own form and worth little in the victim's."""
    nodes = tuple(replace(n, operator="sigmoid") if n.operator == "relu" else n for n in victim.nodes)
    start = replace(victim, nodes=nodes, tensors=toys.random_prior(victim, 3))
    return toys.tuned(start, toys.X[toys.PUBLIC], toys.Y[toys.PUBLIC], 60, 3e-2)


def measured(boxes, victim):
    rest = (toys.labels_of(victim), toys.QUERIES, toys.JUDGES, (BUDGET,), 2)
    return measure_references(boxes, toys.no_shield(victim, {}), *rest, attacker=QUICK)


def accuracy(theft):
    return float((theft.every == toys.JUDGES.y).double().mean((1, 2)).max())


def test_one_form_where_the_public_network_is_built_alike(victim):
    assert len(black_boxes(victim, None)) == 1
    assert black_boxes(victim, None)[0].public == {}
    alike = replace(victim, tensors=toys.random_prior(victim, 1))
    assert len(black_boxes(victim, alike)) == 1


def test_the_better_form_counts_and_both_are_known_again(victim, public, tmp_path):
    boxes = black_boxes(victim, public)
    assert [box.architecture.nodes for box in boxes] == [victim.nodes, public.nodes]
    assert not any(box.visible for box in boxes)
    alone = [measured(box, victim) for box in boxes]
    both = measured(boxes, victim)
    found, single = accuracy(both.black_box[BUDGET]), [accuracy(one.black_box[BUDGET]) for one in alone]
    assert found == max(single)
    assert single[1] > single[0] + 0.05
    assert both.sights == (*alone[0].sights, *alone[1].sights)
    both.save(tmp_path / "r.safetensors")
    again = References.load(tmp_path / "r.safetensors")
    assert again.sights == both.sights
    assert torch.equal(again.black_box[BUDGET].every, both.black_box[BUDGET].every)
    # A split that shows nothing is stolen like the best black box, whatever form its own exposure has.
    nothing = Exposure("nothing", victim, {}, boxes[0].public)
    rest = (toys.labels_of(victim), toys.QUERIES, toys.JUDGES, (BUDGET,), 2)
    report = audit_split(nothing, *rest, references=both, attacker=QUICK)
    assert report.budgets[0].ratio_to_black_box.value == 1
    assert report.budgets[0].accuracy.value == pytest.approx(found)
