"""Checkpoints: what is interrupted and resumed ends as if never interrupted; damage is one clear error."""

import pytest
import torch

from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.defenses import CrossFitDistillation, EarlyStopping, InputNoise
from edgeward.train import CrossEntropy, Population, Schedule, fit
from edgeward.train.task import Task
from edgeward.transforms.prune import Masked
from train.train_toys import Interrupted, Interrupting, Recording, blobs, context, linear, memberships, normed

LISTS = {
    "plain": lambda: [CrossEntropy()],
    "noisy": lambda: [CrossEntropy(), InputNoise(0.3)],
    "early": lambda: [CrossEntropy(), EarlyStopping(2)],
    "crossfit": lambda: [CrossFitDistillation(linear, teachers=3, excluded=1, schedule=Schedule(epochs=2, batch=8))],
    "masked": lambda: [CrossEntropy(), Masked(sparsity=0.5)],
}


def run(parts, schedule, *, checkpoint=None, watcher=None, tag="run", every=2, label="train"):
    x, y = blobs(30, spread=1.5)
    more = {"watcher": watcher} if watcher else {}
    made = context(normed, x, y, memberships(2, 30), schedule, validation=blobs(20, 9, 1.5), label=label, **more)
    models = Population.initialise(normed, made.seeds)
    return fit(models, made, parts, checkpoint=checkpoint, tag=tag, every=every)


def equal(a, b):
    return all(torch.equal(t, {**b.params, **b.buffers}[n]) for n, t in {**a.params, **a.buffers}.items())


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_resumed_equals_uninterrupted_bit_for_bit(name, optimizer, tmp_path):
    schedule = Schedule(epochs=7, batch=8, rate=0.02, optimizer=optimizer, decay="cosine")
    whole = run(LISTS[name](), schedule)
    file = tmp_path / "run.safetensors"
    with pytest.raises(Interrupted):
        run(LISTS[name](), schedule, checkpoint=file, watcher=Interrupting(5, "train"))
    watcher = Recording()
    resumed = run(LISTS[name](), schedule, checkpoint=file, watcher=watcher)
    trained = [done for task, done, _ in watcher.steps if task == "train"]
    assert trained[0] == 5, "the epochs before the checkpoint were trained again"
    assert equal(resumed, whole)


def test_teachers_survive_an_interrupt_in_the_first_epoch(tmp_path):
    file = tmp_path / "run.safetensors"
    schedule = Schedule(epochs=3, batch=8)
    with pytest.raises(Interrupted):
        run(LISTS["crossfit"](), schedule, checkpoint=file, watcher=Interrupting(1, "train"), every=20)
    watcher = Recording()
    resumed = run(LISTS["crossfit"](), schedule, checkpoint=file, watcher=watcher, every=20)
    assert not [task for task, _, _ in watcher.steps if "teacher" in task]
    assert equal(resumed, run(LISTS["crossfit"](), schedule))


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_truncated_checkpoint_is_one_model_error(kept, tmp_path):
    file = tmp_path / "run.safetensors"
    run(LISTS["plain"](), Schedule(epochs=2), checkpoint=file, every=1)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ModelError, match=r"run\.safetensors is damaged"):
        run(LISTS["plain"](), Schedule(epochs=4), checkpoint=file)


def test_the_checkpoint_of_another_run_is_ignored(tmp_path):
    file = tmp_path / "run.safetensors"
    schedule = Schedule(epochs=4, batch=8)
    run(LISTS["plain"](), Schedule(epochs=4, rate=0.3), checkpoint=file, tag="other")
    assert equal(run(LISTS["plain"](), schedule, checkpoint=file, tag="mine"), run(LISTS["plain"](), schedule))


def test_nothing_half_written_is_left(tmp_path):
    run(LISTS["plain"](), Schedule(epochs=2), checkpoint=tmp_path / "run.safetensors", every=1)
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def make_task(folder, watcher=None, tag="t"):
    x, y = blobs(30)
    more = {"watcher": watcher} if watcher else {}
    schedule = Schedule(epochs=3, batch=8)
    return Task(linear, x, y, memberships(2, 30), 2, Seed(0), schedule, directory=folder, tag=tag, **more)


def stage(task):
    made = task.context(linear, "dense")
    return task.stage("dense", task.initialise(linear), made, [CrossEntropy()])[0]


def test_a_finished_stage_is_read_and_not_trained_again(tmp_path):
    first = stage(make_task(tmp_path))
    watcher = Recording()
    second = stage(make_task(tmp_path, watcher))
    assert not watcher.steps
    assert equal(first, second)
    other = Recording()
    stage(make_task(tmp_path, other, tag="another"))
    assert other.steps


def test_a_damaged_finished_stage_is_one_model_error(tmp_path):
    stage(make_task(tmp_path))
    file = tmp_path / "dense.t.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ModelError, match="damaged"):
        stage(make_task(tmp_path))


def test_a_stored_population_of_other_shapes_is_refused(tmp_path):
    two = Population.initialise(linear, [Seed(0), Seed(1)])
    two.save(tmp_path / "two.safetensors")
    three = Population.initialise(linear, [Seed(0), Seed(1), Seed(2)])
    with pytest.raises(ModelError, match="another architecture") as caught:
        three.load(tmp_path / "two.safetensors")
    assert "weight (2, 2, 6)" in caught.value.came
    with pytest.raises(ModelError, match="another architecture"):
        Population.initialise(normed, [Seed(0), Seed(1)]).load(tmp_path / "two.safetensors")
    again = Population.initialise(linear, [Seed(7), Seed(8)])
    again.load(tmp_path / "two.safetensors")
    assert equal(again, two)


def test_the_best_epoch_of_early_stopping_survives_the_interrupt(tmp_path):
    """Every model's best epoch lies before the checkpoint, so its weights can only come from the file."""
    x, y = blobs(30, spread=0.5)

    def train(watcher, checkpoint=None):
        schedule = Schedule(epochs=16, batch=8, rate=0.2)
        made = context(
            linear, x, y, memberships(2, 30), schedule, validation=(x, 1 - y), label="train", watcher=watcher
        )
        parts = [CrossEntropy(), EarlyStopping(50)]
        models = Population.initialise(linear, made.seeds)
        return fit(models, made, parts, checkpoint=checkpoint, tag="t", every=4), made.memory

    whole, memory = train(Recording())
    assert (memory["early.stale"] > 8).all()
    with pytest.raises(Interrupted):
        train(Interrupting(15), tmp_path / "run.safetensors")
    resumed, _ = train(Recording(), tmp_path / "run.safetensors")
    assert equal(resumed, whole)
