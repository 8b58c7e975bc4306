import pytest
import torch

from edgeward.attacks.extraction.exposure import learned_keys
from edgeward.attacks.extraction.recovery import recover
from edgeward.backends.tee.split_executable import split_executable
from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.graph import capture
from edgeward.recipes.mirrornet.mirroring import answers
from edgeward.recipes.splits import SPLITS, Subject
from edgeward.recipes.splits.shadownet import disguised, run_disguised
from recipes.mirror_task import digits, public, victim

ONE_WAY, RUNS = {"whole", "deep", "head", "none"}, {"whole", "deep", "head"}


def subject(prior=None):
    return Subject(victim(), prior or public().tensors, digits("train").x[:100], Seed(1))


@pytest.mark.parametrize("name", sorted(SPLITS))
def test_what_is_seen_and_what_is_hidden(name):
    split = SPLITS[name](subject())
    everything = set(learned_keys(victim()))
    assert set(split.exposure.visible) | set(split.exposure.hidden) == everything
    assert split.traffic.one_way == (name in ONE_WAY)
    assert (split.deployment is not None) == (name in RUNS)
    assert 0 <= split.secure_bytes <= sum(victim().tensors[key].numel() for key in everything)
    if split.deployment is None:
        assert split.notes
        return
    assert not set(split.exposure.visible) - set(split.deployment.normal.tensors)
    x, y = digits("holdout").x[:200], digits("holdout").y[:200]
    labels = torch.as_tensor(split_executable(split.deployment).labels(x.numpy()))
    assert (labels == answers(victim(), x).argmax(1)).float().mean() >= 0.97
    assert (labels == y).float().mean() >= 0.9


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


def test_networks_without_stages_are_refused():
    flat = capture(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), (1, 8, 8))
    with pytest.raises(ModelError, match="at least 2 stages"):
        SPLITS["deep"](Subject(flat, {}, digits("train").x[:50], Seed(0)))
