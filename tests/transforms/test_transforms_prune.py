"""Masks: exact counts, the right weights, densities, and sparse training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.core.errors import ConfigError
from edgeward.core.randomness import Seed
from edgeward.train import Context, CrossEntropy, Schedule
from edgeward.train.fit import fit
from edgeward.transforms import ErdosRenyiKernel, Masked, impose, magnitude_masks, random_masks
from edgeward.transforms.density import apportion
from edgeward.transforms.prune import masks_of
from transforms.transform_networks import mlp, population, records, vgg


@settings(max_examples=40, deadline=None)
@given(sparsity=st.floats(0, 0.99), size=st.integers(1, 60), levels=st.integers(1, 5), seed=st.integers(0, 50))
def test_layer_masks_keep_exactly_the_largest(sparsity: float, size: int, levels: int, seed: int) -> None:
    """Few levels make many ties; a reference sorts in Python."""
    weight = (records((size,), 3, seed) * levels).round() / levels
    mask = masks_of({"w": weight}, sparsity, "layer")["w"]
    keep = size - round(sparsity * size)
    for row, marked in zip(weight, mask, strict=True):
        order = sorted(range(size), key=lambda i: (-abs(float(row[i])), i))
        assert set(marked.nonzero().flatten().tolist()) == set(order[:keep])


def test_global_masks_share_one_threshold() -> None:
    models = population(vgg)
    masks = magnitude_masks(models, 0.8, "global")
    total = sum(mask[0].numel() for mask in masks.values())
    for index in range(3):
        kept = [models.params[name][index][mask[index]].abs() for name, mask in masks.items()]
        lost = [models.params[name][index][~mask[index]].abs() for name, mask in masks.items()]
        assert sum(map(len, kept)) == total - round(0.8 * total)
        assert min(float(k.min()) for k in kept if len(k)) >= max(float(v.max()) for v in lost if len(v))


def test_masks_leave_biases_norms_and_skipped_layers() -> None:
    assert set(magnitude_masks(population(vgg), 0.5, skip=("0",))) == {"3.weight", "7.weight", "10.weight"}
    with pytest.raises(ConfigError, match="'relu'"):
        magnitude_masks(population(vgg), 0.5, skip=("relu",))
    with pytest.raises(ConfigError, match="sparsity"):
        magnitude_masks(population(vgg), 1.0)
    with pytest.raises(ConfigError, match="sparsity"):
        magnitude_masks(population(vgg), -0.1, "erk")


SHAPES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6
)


@settings(max_examples=100, deadline=None)
@given(density=st.floats(0.02, 1), shapes=SHAPES)
def test_erk_densities_meet_the_budget_and_the_formula(density: float, shapes: Mapping[str, tuple[int, int]]) -> None:
    shares = ErdosRenyiKernel(density).densities(shapes)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    assert sum(shares[n] * sizes[n] for n in shapes) == pytest.approx(density * sum(sizes.values()))
    assert all(0 <= share <= 1 + 1e-9 for share in shares.values())
    ratios = [shares[n] * sizes[n] / sum(shapes[n]) for n in shapes if shares[n] < 1 - 1e-9]
    assert ratios == pytest.approx([ratios[0]] * len(ratios)) if ratios else True


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(1, 50), st.floats(0.02, 1)), min_size=1, max_size=8))
def test_apportioned_counts_add_up(pairs: list[tuple[int, float]]) -> None:
    sizes = {str(i): size for i, (size, _) in enumerate(pairs)}
    wanted = {str(i): max(1.0, size * share) for i, (size, share) in enumerate(pairs)}
    counts = apportion(wanted, sizes)
    assert sum(counts.values()) == round(sum(wanted.values()))
    assert all(1 <= counts[n] <= sizes[n] and abs(counts[n] - wanted[n]) <= 1 for n in sizes)


def test_random_masks_depend_on_each_models_own_seed() -> None:
    models = population(vgg)
    masks = random_masks(models, 0.9, [Seed(0), Seed(1), Seed(0)])
    counts = ErdosRenyiKernel(0.1).counts({n: tuple(models.params[n].shape[1:]) for n in masks})
    for name, mask in masks.items():
        assert mask.flatten(1).sum(1).tolist() == [counts[name]] * 3
        assert torch.equal(mask[0], mask[2])
    assert not torch.equal(masks["7.weight"][0], masks["7.weight"][1])


def test_impose_also_silences_infinite_weights() -> None:
    models = population(mlp)
    models.params["0.weight"][0, 0, 0] = float("inf")
    impose(models, {"0.weight": torch.zeros(3, 10, 6, dtype=torch.bool)})
    assert torch.equal(models.params["0.weight"], torch.zeros(3, 10, 6))


@pytest.mark.parametrize("start", ["magnitude", "random"])
def test_sparse_training_stays_on_its_masks(start: str) -> None:
    x, y = records((6,), 32), torch.arange(32) % 4
    models = population(mlp)
    dense = models.clone()
    context = Context(
        mlp, x, y, torch.ones(3, 32, dtype=torch.bool), 4, tuple(map(Seed, range(3))), Schedule(epochs=2, batch=16)
    )
    fit(models, context, [CrossEntropy(), Masked(sparsity=0.75, start=start)])
    for name in ("0.weight", "2.weight", "4.weight"):
        mask = context.memory[f"mask/{name}"]
        assert ((models.params[name] != 0) <= mask).all()
        assert (models.params[name] != 0).sum() > 0.9 * mask.sum()
        assert not torch.equal(models.params[name][mask], dense.params[name][mask])


def test_given_and_resumed_masks_win() -> None:
    models = population(mlp)
    masks = {"2.weight": torch.zeros(3, 8, 10, dtype=torch.bool)}
    arguments = (mlp, records((6,), 8), torch.zeros(8, dtype=torch.long), torch.ones(3, 8, dtype=torch.bool), 4)
    context = Context(*arguments, tuple(map(Seed, range(3))), Schedule())
    part = Masked(masks)
    part.prepare(context, models)
    assert models.params["2.weight"].abs().sum() == 0
    assert models.params["0.weight"].abs().min() > 0
    assert "masks" not in part.settings()
    before = dict(context.memory)
    Masked(sparsity=0.5).prepare(context, models)
    assert context.memory.keys() == before.keys()
