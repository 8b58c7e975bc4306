from dataclasses import replace

import pytest
import torch

from edgeward.attacks.extraction.exposure import learned_keys
from edgeward.attacks.extraction.recovery import recover
from edgeward.backends.tee.split_executable import split_executable
from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.graph import capture
from edgeward.graph.partition import stages
from edgeward.recipes.mirrornet.mirroring import answers
from edgeward.recipes.splits import SPLITS, Subject
from edgeward.recipes.splits.nnsplitter import NNSplitterEffort, changed_weights
from edgeward.recipes.splits.shadownet import disguised, run_disguised
from edgeward.recipes.splits.tbnet import TBNetEffort, inside, trained_branches, two_branches
from edgeward.recipes.splits.teeslice import sliced
from recipes.mirror_task import digits, public, victim

ONE_WAY, RUNS = {"whole", "deep", "head", "none", "tbnet"}, {"whole", "deep", "head", "tbnet"}
# what is trained for the split answers about as well as the victim, and not as it does
AGREES, ANSWERS = {"tbnet": 0.75}, {"tbnet": 0.75}


def subject(prior=None, records=None):
    return Subject(victim(), prior or public().tensors, digits("train").x[:100], Seed(1), records)


@pytest.mark.parametrize("name", sorted(SPLITS))
def test_what_is_seen_and_what_is_hidden(name):
    split = SPLITS[name](subject())
    everything = set(learned_keys(victim()))
    assert set(split.exposure.visible) | set(split.exposure.hidden) == everything
    assert split.traffic.one_way == (name in ONE_WAY)
    assert (split.deployment is not None) == (name in RUNS)
    # slices are numbers of their own, beside those of the victim
    more = 2 if name == "teeslice" else 1
    assert 0 <= split.secure_bytes <= more * sum(victim().tensors[key].numel() for key in everything)
    if split.deployment is None:
        assert split.notes
        return
    assert not set(split.exposure.visible) - set(split.deployment.normal.tensors)
    x, y = digits("holdout").x[:200], digits("holdout").y[:200]
    labels = torch.as_tensor(split_executable(split.deployment).labels(x.numpy()))
    assert (labels == answers(victim(), x).argmax(1)).float().mean() >= AGREES.get(name, 0.97)
    assert (labels == y).float().mean() >= ANSWERS.get(name, 0.9)


def test_the_ends_hide_all_and_nothing():
    whole, none = SPLITS["whole"](subject()), SPLITS["none"](subject())
    assert not whole.exposure.visible
    assert not none.exposure.hidden
    assert whole.secure_bytes > SPLITS["deep"](subject()).secure_bytes > SPLITS["head"](subject()).secure_bytes > 0


def test_shadownet_restores_the_exact_result():
    x = digits("holdout").x[:100]
    expected = answers(victim(), x)
    found = run_disguised(victim(), disguised(victim(), Seed(2)), x)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_shadownet_shows_no_kernel_as_it_is_but_the_parent_undoes_it():
    split = SPLITS["shadownet"](subject(victim().tensors))
    for key, shown in split.exposure.visible.items():
        weight = victim().tensors[key]
        assert len(shown) > len(weight)
        distance = torch.cdist(shown.flatten(1), weight.flatten(1)).min()
        assert distance > 1e-3
    found = recover(split.exposure).tensors
    key = next(iter(split.exposure.visible))
    torch.testing.assert_close(found[key].float(), victim().tensors[key], atol=1e-3, rtol=1e-3)


def test_magnitude_hides_one_weight_in_a_hundred():
    split = SPLITS["magnitude"](subject())
    gone = sum(int(((t == 0) & (victim().tensors[k] != 0)).sum()) for k, t in split.exposure.visible.items())
    assert gone == split.secure_bytes


def test_nnsplitter_spoils_the_shown_network_with_few_weights_and_restores_it_exactly():
    x, y = digits("holdout").x[:300], digits("holdout").y[:300]
    effort = NNSplitterEffort(rounds=3, epochs=6, rate=0.3, near=3.0)
    shown, changes = changed_weights(subject(), effort)
    spoiled = replace(victim(), tensors={**victim().tensors, **shown})
    restored = {key: shown[key] - changes[key] for key in shown}
    assert float((answers(spoiled, x).argmax(1) == y).float().mean()) < 0.7
    for key, tensor in restored.items():
        torch.testing.assert_close(tensor, victim().tensors[key], atol=1e-6, rtol=0)
        # one filter of each layer, and nothing outside the range that the layer had
        assert len({int(row) for row in changes[key].nonzero()[:, 0]}) <= 1
        assert shown[key].min() >= victim().tensors[key].min()
        assert shown[key].max() <= victim().tensors[key].max()
    again, _ = changed_weights(subject(), effort)
    assert all(torch.equal(again[key], shown[key]) for key in shown)


def test_two_equal_branches_answer_as_the_victim_before_training():
    whole, secure = two_branches(victim(), stages(victim()))
    x = digits("holdout").x[:50]
    torch.testing.assert_close(answers(whole, x), answers(victim(), x), atol=1e-4, rtol=1e-4)
    assert not set(secure.tensors) & set(victim().tensors)


def test_tbnet_prunes_both_branches_and_rolls_the_outer_one_back():
    whole, _ = two_branches(victim(), stages(victim()))
    given = subject(records=(digits("train").x[:300], digits("train").y[:300]))
    tensors, outer, left = trained_branches(given, whole, TBNetEffort(rounds=2, share=0.15, epochs=2, drop=1.0))
    pruned = {name: int((1 - mask).sum()) for name, mask in left.items()}
    behind = {name: int((1 - mask).sum()) for name, mask in outer.items()}
    assert sum(pruned.values()) > sum(behind.values()) > 0
    for node in victim().nodes:
        if node.name in left:
            key = node.tensors["weight"]
            for held, mask in ((key, outer), (inside(key), left)):
                gone = tensors[held][mask[node.name] == 0]
                assert not bool(gone.any())


def test_teeslice_shows_the_public_backbone_alone_and_its_student_answers():
    x, y = digits("holdout").x[:300], digits("holdout").y[:300]
    made = SPLITS["teeslice"](subject(records=(digits("train").x[:400], digits("train").y[:400])))
    for key, shown in made.exposure.visible.items():
        assert torch.equal(shown, public().tensors[key]), "a weight outside depends on private records"
        assert not torch.equal(shown, victim().tensors[key])
    assert made.exposure.direct is None
    assert float((made.logits(x).argmax(1) == y).float().mean()) > 0.5
    with pytest.raises(ModelError, match="no public backbone"):
        sliced(Subject(victim(), {}, digits("train").x[:50], Seed(0)))


def test_networks_without_stages_are_refused():
    flat = capture(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), (1, 8, 8))
    with pytest.raises(ModelError, match="at least 2 stages"):
        SPLITS["deep"](Subject(flat, {}, digits("train").x[:50], Seed(0)))
