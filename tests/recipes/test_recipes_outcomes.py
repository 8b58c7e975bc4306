"""What each recipe is for, on two blobs: zeros, bits, binary weights, a proof."""

from dataclasses import replace

import pytest
import torch

from edgeward.core import Seed
from edgeward.graph import capture
from edgeward.recipes import resolve
from edgeward.train import Schedule
from edgeward.train.task import Task
from train.train_toys import FEATURES, Interrupted, Interrupting, Recording, blobs, deep, memberships


def task(**more):
    x, y = blobs(40)
    schedule = Schedule(epochs=2, batch=8, rate=0.02)
    made = Task(deep, x, y, memberships(3, 40, share=0.7), 2, Seed(0), schedule, validation=blobs(16, 9), tag="t")
    return replace(made, **more)


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_pruned_layers_have_the_asked_share_of_zeros(sparsity):
    result = resolve({"name": "prune_retrain", "sparsity": sparsity}).run(task())
    for name, tensor in result.population.params.items():
        if name.endswith("weight"):
            zeros = (tensor == 0).flatten(1).float().mean(1)
            assert (zeros - sparsity).abs().max() <= 1.0 / tensor[0].numel() + 1e-6, name


def operators(result):
    return [n.operator for n in capture(result.population.member(0, result.factory), (FEATURES,)).nodes]


def test_quantised_and_binary_structures():
    assert operators(resolve("int8").run(task())).count("quantized_linear") == 4
    assert operators(resolve({"name": "qat", "weight_bits": 2}).run(task())).count("quantized_linear") == 4
    binary = operators(resolve("gecko:paper").run(task()))
    assert binary.count("binary_linear") == 2
    assert binary.count("quantized_linear") == 2


def test_gecko_presets_claim_what_they_are():
    (paper,) = resolve("gecko:paper").run(task()).claims
    assert paper.basis == "measured"
    (crossfit,) = resolve({"name": "gecko:crossfit", "teachers": 3, "excluded": 1}).run(task()).claims
    assert crossfit.basis == "proved"
    assert "3 teachers, each record held out of 1" in crossfit.statement


def test_the_number_of_trainings_counts_the_teachers():
    assert resolve("none").run(task()).trainings == 1
    assert resolve({"name": "gecko:crossfit", "teachers": 3, "excluded": 1}).run(task()).trainings == 5
    cold = {"name": "gecko:crossfit", "teachers": 3, "excluded": 1, "warm_up": 0.0}
    assert resolve(cold).run(task()).trainings == 4


def test_a_rerun_after_the_warm_up_teaches_the_same_labels(tmp_path):
    recipe = resolve({"name": "gecko:crossfit", "teachers": 3, "excluded": 1})
    whole = recipe.run(task(directory=tmp_path / "a", tag="t")).population
    once = recipe.run(task(directory=tmp_path / "b", tag="t"))
    (tmp_path / "b" / "student.t.safetensors").unlink()
    resumed = recipe.run(task(directory=tmp_path / "b", tag="t")).population
    assert (tmp_path / "b" / "warm-up.t.safetensors").exists()
    assert len(once.population) == len(whole)
    for name, tensor in whole.params.items():
        torch.testing.assert_close(resumed.params[name], tensor, rtol=0, atol=0)


def test_early_stop_never_ends_with_a_higher_validation_loss_than_none():
    x, y = blobs(40, 9, 2.0)
    made = task(validation=(x, y), schedule=Schedule(epochs=15, batch=8, rate=0.05))

    def loss(name):
        logits = resolve(name).run(made).population.logits(x)
        return torch.stack([torch.nn.functional.cross_entropy(one, y) for one in logits])

    undefended = replace(made, seed=Seed(0))
    assert undefended.seeds == made.seeds
    assert float(loss("early_stop").mean()) <= float(loss("none").mean())


@pytest.mark.parametrize("name", ["prune_retrain", "qat", "early_stop"])
def test_an_interrupt_in_a_later_stage_resumes_to_the_same_models(name, tmp_path):
    whole = resolve(name).run(task())
    stage = {"prune_retrain": "pruned", "qat": "quantized", "early_stop": "early"}[name]
    with pytest.raises(Interrupted):
        resolve(name).run(task(directory=tmp_path, watcher=Interrupting(1, stage)))
    watcher = Recording()
    resumed = resolve(name).run(task(directory=tmp_path, watcher=watcher))
    assert {label.split(": ")[-1] for label, _, _ in watcher.steps} == {stage}
    for key, tensor in whole.population.params.items():
        assert torch.equal(tensor, resumed.population.params[key]), key
