import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeward.attacks.extraction.exposure import learned_keys
from edgeward.backends.tee.emulator import Emulator
from edgeward.backends.tee.split_executable import split_executable
from edgeward.core.errors import ConfigError, ModelError, NoFeasibleCandidate
from edgeward.devices import load_profile
from edgeward.graph.partition import stages, subnetwork
from edgeward.recipes.mirrornet import Limits, MirrorNet, Search, Strategy, deployment, exposure, generate, mirror
from edgeward.recipes.mirrornet.mirroring import answers
from edgeward.recipes.mirrornet.proposals import changed, every_subset
from edgeward.transforms.mirror import Block
from recipes.mirror_task import digits, public, task, victim

EVERY = tuple(Block(stage, "dwsep", 8) for stage in (1, 2, 3))
COPIES = (Block(2, "adapted"), Block(3, "stage"))


def accuracy(labels):
    return float((torch.as_tensor(labels) == digits("holdout").y).float().mean())


def victim_accuracy():
    return accuracy(answers(victim(), digits("holdout").x).argmax(1))


@pytest.fixture(scope="module")
def faithful():
    strategy = Strategy("faithful", EVERY, "faithful", gap=0.3, flips=False, tuning=0.5)
    return mirror(victim(), strategy, task(epochs=10, rate=0.01))


@pytest.fixture(scope="module")
def copies():
    strategy = Strategy("copies", COPIES, flips=False, tuning=0.5)
    return mirror(victim(), strategy, task(epochs=6, rate=0.01), public=public())


def test_faithful_reaches_the_requested_gap(faithful):
    x, y = digits("holdout").x, digits("holdout").y
    authorised, direct = faithful.accuracy(x, y), faithful.direct_accuracy(x, y)
    assert authorised >= victim_accuracy() - 0.08
    assert 0.186 <= authorised - direct <= 0.45
    assert [claim.basis for claim in faithful.claims] == ["measured"]


def test_anti_leaves_the_backbone_at_chance():
    found = mirror(victim(), Strategy("anti", EVERY, "anti", flips=False, tuning=0.5), task(epochs=6, rate=0.01))
    x, y = digits("holdout").x, digits("holdout").y
    assert found.accuracy(x, y) >= 0.75
    assert found.direct_accuracy(x, y) <= 0.25


def test_public_shows_public_numbers_only_and_keeps_the_accuracy(copies):
    x, y = digits("holdout").x, digits("holdout").y
    assert copies.accuracy(x, y) >= victim_accuracy() - 0.02
    assert copies.direct is None
    for key, tensor in copies.normal.tensors.items():
        assert torch.equal(tensor, public().tensors[key])
    assert [claim.basis for claim in copies.claims] == ["proved"]
    seen = exposure(copies, public().tensors)
    assert set(seen.visible) == set(learned_keys(copies.normal))
    assert seen.taps == (stages(public())[1].value,)
    assert not any(bool(seen.architecture.tensors[key].any()) for key in seen.hidden)


def test_the_deployment_answers_in_int8_as_the_float_monitor_does(copies, faithful):
    x = digits("holdout").x
    for found in (copies, faithful):
        split = deployment(found, digits("train").x[:200])
        labels = split_executable(split).labels(x.numpy())
        agreement = float((torch.as_tensor(labels) == found.logits(x).argmax(1)).float().mean())
        assert agreement >= 0.97
        assert split.traffic.one_way
        assert split.traffic.switches == 1  # the emitted application takes all taps at once
        assert replace(split, transfer="stream").traffic.switches == len(found.monitor.inputs)
        assert [node.operator for node in split.secure.nodes][-1] == "argmax"
    wide = deployment(copies, digits("train").x[:200], policy="logits")
    assert split_executable(wide).run(x[:5].numpy()).shape == (5, 10)


def test_everything_behind_the_input_is_the_victim_itself():
    strategy = Strategy("whole", tuple(Block(stage, "stage") for stage in (1, 2, 3)))
    found = mirror(victim(), strategy, task())
    x = digits("holdout").x[:20]
    torch.testing.assert_close(found.logits(x), answers(victim(), x))
    assert not exposure(found, {}).visible


def test_a_finished_training_is_read_and_gives_the_same_networks(tmp_path):
    strategy = Strategy("small", (Block(2, "pw", 4),), flips=False)
    first, again = (mirror(victim(), strategy, task(1, tmp_path), public=public()) for _ in range(2))
    assert len(list(tmp_path.glob("mirror-small.*.safetensors"))) >= 1
    for key, tensor in first.monitor.tensors.items():
        assert torch.equal(tensor, again.monitor.tensors[key])


def test_a_finished_training_of_another_strategy_of_that_name_is_not_read(tmp_path):
    first = mirror(victim(), Strategy("s", (Block(2, "pw", 4),), flips=False), task(1, tmp_path), public=public())
    other = Strategy("s", (Block(2, "pw", 4),), flips=False, temperature=9.0)
    again, alone = (mirror(victim(), other, task(1, at), public=public()) for at in (tmp_path, None))
    key = next(key for key, tensor in first.monitor.tensors.items() if tensor.dim() > 1)
    assert torch.equal(again.monitor.tensors[key], alone.monitor.tensors[key])
    assert not torch.equal(again.monitor.tensors[key], first.monitor.tensors[key])


def test_what_does_not_fit_is_refused_with_its_reasons():
    with pytest.raises(ConfigError, match="needs a public backbone"):
        mirror(victim(), Strategy("p", COPIES), task())
    with pytest.raises(ModelError, match="stage 7 of 3"):
        mirror(victim(), Strategy("far", (Block(7, "pw", 4),), "anti"), task())


def test_strategy_files_round_trip(tmp_path):
    strategy = Strategy("mine", (Block(0, "pw", 3, 2), Block(2, "ghost", 8)), "anti", "residual", "batch", 0.1, 2.0)
    strategy.write(tmp_path / "mine.json")
    assert Strategy.read(tmp_path / "mine.json") == strategy
    plain = strategy.to_json()
    plain["blocks"].append({"stage": 3, "kind": "skip"})
    assert Strategy.from_json(plain) == strategy
    assert json.loads((tmp_path / "mine.json").read_text())["head"] == "residual"


def test_a_broken_strategy_file_lists_every_problem(tmp_path):
    plain = {"blocks": [{"stage": "x", "kind": 3, "extra": 1}, 5], "gap": "big", "colour": "red"}
    with pytest.raises(ConfigError) as error:
        Strategy.from_json(plain)
    for part in ("'name' is missing", "colour", "gap = 'big'", "stage = 'x'", "kind = 3", "extra", "block 2"):
        assert part in str(error.value)
    with pytest.raises(ConfigError) as error:
        Strategy("a/b", (Block(1, "pw", 0),), "secret", gap=2.0)
    for part in ("a name", "preset", "gap", "width 0"):
        assert part in str(error.value)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        Strategy.read(tmp_path / "broken.json")


def test_proposals_are_valid_plans_with_names_of_their_own():
    at, base = stages(victim()), Strategy("base", (Block(1, "pw", 4),), "faithful")
    every = list(every_subset(at, base, (4, 8)))
    assert len({s.name for s in every}) == len(every) == 3 + 7 * 2 * 4
    rng, strategy = np.random.default_rng(0), every[-1]
    for _ in range(200):
        strategy = changed(strategy, at, rng)
        Strategy.from_json(strategy.to_json())
        assert not any(block.stage >= len(at) for block in strategy.blocks)


def search_in(folder, limits, **changes):
    base = Strategy("base", (Block(1, "pw", 4),), flips=False)
    search = Search(widths=(8,), kinds=("pw",), parents=2, children=2, generations=1, epochs=1, records=200, full=2)
    emulator = Emulator(load_profile("rpi3-optee"))
    return generate(
        victim(), base, task(2, folder / "t"), emulator, limits, workdir=folder, public=public(), search=search
    )


def test_the_generator_keeps_the_limits_and_continues_from_its_notes(tmp_path):
    limits = Limits(128 * 1024, overhead=2.0, switches=2)
    found = search_in(tmp_path, limits)
    assert 1 <= len(found) <= 2
    assert all(f.score.secure_ram <= 128 * 1024 and f.score.switches <= 2 for f in found)
    notes = {name: (tmp_path / name).read_text() for name in ("coarse.json", "fine.json", "final.json")}
    again = search_in(tmp_path, limits)
    assert [f.to_json() for f in again] == [f.to_json() for f in found]
    assert {name: (tmp_path / name).read_text() for name in notes} == notes
    assert Strategy.read(tmp_path / f"{found[0].strategy.name}.json") == found[0].strategy
    with pytest.raises(NoFeasibleCandidate, match="nearest"):
        search_in(tmp_path, Limits(1000))
    ours, other = (Emulator(load_profile(name)).digest() for name in ("rpi3-optee", "qemu-v8"))
    assert ours != other
    assert ours in notes["coarse.json"]
    assert other not in notes["coarse.json"]


def test_presets_by_name():
    at = stages(victim())
    assert MirrorNet().default(victim(), public=True).plan.copies_all_after == 1
    assert MirrorNet().default(victim(), public=False).plan.copies_all_after == 0
    blocks = MirrorNet("faithful", flips=False).default(victim(), public=False).blocks
    assert [b.stage for b in blocks] == list(range(1, len(at)))
    with pytest.raises(ConfigError, match="preset"):
        MirrorNet("loud")


def test_faithful_can_spoil_the_head_alone_and_keeps_the_features():
    strategy = Strategy("head", EVERY, "faithful", gap=0.3, flips=False, spoils="head")
    network = victim()
    found = mirror(network, strategy, task(epochs=20, rate=0.01))
    changed = {k for k, t in found.backbone.tensors.items() if not torch.equal(t, network.tensors[k])}
    head = subnetwork(network, (stages(network)[-1].value,), network.outputs[-1:])
    assert changed
    assert changed <= set(head.tensors)
    x, y = digits("holdout").x, digits("holdout").y
    assert found.accuracy(x, y) - found.direct_accuracy(x, y) > 0.1
    assert all("never saw" not in claim.statement for claim in found.claims)
