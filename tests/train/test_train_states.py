"""Any legal module state: a population trains as PyTorch's own loop does and keeps it, or refuses before training."""

import pytest
import torch

from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.defenses import EarlyStopping
from edgeward.train import CrossEntropy, Population, Schedule, fit, train_many
from edgeward.train.population import build
from train.module_states import CARRIED, REFUSED
from train.train_toys import CLASSES, Recording, blobs, context, memberships

SCHEDULE = Schedule(epochs=3, batch=8, rate=0.05, optimizer="sgd", weight_decay=0.01)
COUNT = 16
"""As many members as fill every batch: no padding, which BatchNorm would see."""


def everyone(models=2):
    return torch.ones(models, COUNT, dtype=torch.bool)


def alone(factory, seed, x, y, schedule):
    """PyTorch's own loop over one module, in the order of the population's member."""
    module = build(factory, seed).train()
    learning = [p for p in module.parameters() if p.requires_grad]
    kind = torch.optim.Adam if schedule.optimizer == "adam" else torch.optim.SGD
    more = {} if schedule.optimizer == "adam" else {"momentum": 0.9, "nesterov": True}
    optimizer = kind(learning, lr=schedule.rate, weight_decay=schedule.weight_decay, **more)
    for epoch in range(schedule.epochs):
        order = torch.randperm(COUNT, generator=seed.child("order", epoch).torch())
        for rows in order.split(schedule.batch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x[rows].clone()), y[rows]).backward()
            optimizer.step()
            for buffer in module.buffers():
                buffer.detach_()
    return module


@pytest.mark.parametrize("name", CARRIED)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_equals_pytorchs_own_loop_for_one_module(name, optimizer):
    factory, (x, y) = CARRIED[name], blobs(COUNT)
    schedule = Schedule(epochs=3, batch=8, rate=0.02, optimizer=optimizer, weight_decay=0.01)
    kept = x.clone()
    models = train_many(factory, x, y, everyone(), classes=CLASSES, seed=Seed(3), schedule=schedule)
    assert torch.equal(x, kept), "the records were changed"
    for s in range(2):
        module = alone(factory, Seed(3).child("model", s), x, y, schedule)
        named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        expected, came = dict(named), models.tensors(s)
        assert expected.keys() == came.keys()
        for key, tensor in came.items():
            torch.testing.assert_close(tensor, expected[key].detach(), rtol=2e-4, atol=2e-5, msg=key)


@pytest.mark.parametrize("name", CARRIED)
def test_members_state_and_files_hold_what_the_population_holds(name, tmp_path):
    factory, (x, y) = CARRIED[name], blobs(COUNT)
    models = train_many(factory, x, y, everyone(), classes=CLASSES, seed=Seed(3), schedule=SCHEDULE)
    together = models.logits(x)
    for s in range(2):
        member = models.member(s, factory)
        torch.testing.assert_close(member(x.clone()), together[s], rtol=0, atol=1e-5)
        other = build(factory, Seed(9))
        assert models.state(s).keys() == other.state_dict().keys()
        other.load_state_dict(models.state(s))
    models.save(tmp_path / "models.safetensors")
    again = Population.initialise(factory, [Seed(7), Seed(8)])
    again.load(tmp_path / "models.safetensors")
    again.writes_records = models.writes_records
    assert torch.equal(again.logits(x), together)
    assert torch.equal(models.select([1]).logits(x)[0], together[1])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["frozen layer", "frozen bias"])
def test_frozen_parameters_never_move_and_the_others_do(name, optimizer):
    factory, (x, y) = CARRIED[name], blobs(30)
    schedule = Schedule(epochs=3, batch=8, rate=0.05, optimizer=optimizer, weight_decay=0.1)
    made = context(factory, x, y, memberships(2, 30), schedule, validation=blobs(10, 4))
    start = Population.initialise(factory, made.seeds)
    trained = fit(start.clone(), made, [CrossEntropy(), EarlyStopping(2)])
    fixed = {key for key, p in factory().named_parameters() if not p.requires_grad}
    assert fixed
    for key, _ in factory().named_parameters():
        assert torch.equal(trained.held(key), start.held(key)) == (key in fixed), key
    assert {k for k, p in trained.member(0, factory).named_parameters() if not p.requires_grad} == fixed


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_carried_is_refused_by_name_before_the_first_epoch(name):
    (factory, word), (x, y) = REFUSED[name], blobs(COUNT)
    watcher = Recording()
    with pytest.raises(ModelError) as caught:
        train_many(factory, x, y, everyone(), classes=CLASSES, seed=Seed(3), schedule=SCHEDULE, watcher=watcher)
    assert word in str(caught.value)
    assert caught.value.expected
    assert caught.value.fix
    assert not watcher.steps


def test_an_unused_parameter_and_a_mask_of_infinities_are_no_reason_to_refuse():
    x, y = blobs(COUNT)
    models = train_many(CARRIED["0-d parameter"], x, y, everyone(), classes=CLASSES, seed=Seed(0), schedule=SCHEDULE)
    assert torch.isinf(models.buffers["mask"]).any()


def test_a_batch_of_one_record_is_refused_where_batch_norm_has_one_number_and_trains_elsewhere():
    x, y = blobs(COUNT)
    single = Schedule(epochs=1, batch=1, rate=0.01)
    with pytest.raises(ModelError, match=r"layer 'norm'(.|\n)*at least two records"):
        train_many(CARRIED["norm"], x, y, everyone(), classes=CLASSES, seed=Seed(0), schedule=single)
    trained = train_many(CARRIED["tied"], x, y, everyone(), classes=CLASSES, seed=Seed(0), schedule=single)
    assert torch.isfinite(trained.logits(x)).all()
    three = torch.zeros(2, COUNT, dtype=torch.bool)
    three[:, :3] = True
    short = Schedule(epochs=2, batch=2, rate=0.01)
    trained = train_many(CARRIED["norm"], x, y, three, classes=CLASSES, seed=Seed(0), schedule=short)
    assert torch.isfinite(trained.logits(x)).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_members_of_other_precisions_answer_as_their_population(kind):
    def factory():
        layer = torch.nn.Linear(6, CLASSES).to(kind)
        layer.register_forward_pre_hook(lambda _, arguments: tuple(a.to(kind) for a in arguments))
        return torch.nn.Sequential(layer, torch.nn.Identity())

    x, y = blobs(COUNT)
    models = train_many(factory, x, y, everyone(), classes=CLASSES, seed=Seed(3), schedule=SCHEDULE)
    assert models.held("0.weight").dtype == kind
    difference = (models.member(1, factory)(x) - models.logits(x)[1]).detach().abs().max()
    assert float(difference) <= 4 * torch.finfo(kind).eps * float(models.logits(x).abs().max())
