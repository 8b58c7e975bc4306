"""Augmentation of stolen images: flips and shifts only, each image on its own, seeded by the loop."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.attacks.extraction.training import Jitter
from edgeward.core.randomness import Seed
from edgeward.train.part import Batch, Context, Schedule


def jittered(part, x, seed):
    batch = Batch(
        x,
        torch.zeros(x.shape[:2], dtype=torch.int64),
        torch.zeros(x.shape[:2], dtype=torch.int64),
        x.new_ones(x.shape[:2]),
    )
    members = torch.ones(len(x), 1, dtype=torch.bool)
    context = Context(torch.nn.Identity, x[0, :1], batch.y[0, :1], members, 2, (Seed(0),) * len(x), Schedule())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return part.augment(context, batch).x


@given(st.integers(0, 999), st.booleans(), st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_each_image_is_one_of_its_own_flips_and_shifts(seed, flips, shift):
    x = torch.rand(2, 3, 2, 5, 6, generator=Seed(seed).torch()) + 0.1
    found = jittered(Jitter(flips, shift), x, seed)
    padded = torch.nn.functional.pad(x, (shift,) * 4)
    for model in range(2):
        for place in range(3):
            moves = range(2 * shift + 1)
            crops = [padded[model, place, :, r : r + 5, c : c + 6] for r in moves for c in moves]
            mirror = torch.nn.functional.pad(x[model, place].flip(-1), (shift,) * 4)
            crops += [mirror[:, r : r + 5, c : c + 6] for r in moves for c in moves] if flips else []
            assert any(torch.equal(found[model, place], crop) for crop in crops)


def test_flips_mirror_about_half_and_vectors_stay():
    x = torch.rand(2, 200, 1, 2, 3, generator=Seed(1).torch())
    found = jittered(Jitter(), x, 1)
    mirrored = (found == x.flip(-1)).flatten(2).all(2).double().mean()
    assert 0.4 < float(mirrored) < 0.6
    vectors = torch.rand(2, 5, 7)
    assert jittered(Jitter(shift=2), vectors, 1) is vectors
