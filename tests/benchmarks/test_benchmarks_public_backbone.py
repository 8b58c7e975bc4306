"""The public backbone: its loss, its crops, and a run that resumes where it stopped."""

import os
from pathlib import Path

import pytest
import torch

from benchmarks import public_backbone as backbone
from edgeward.core.progress import Watcher
from edgeward.nets import PRETRAINED, pretrained
from edgeward.train.part import Batch

DATA = Path(os.environ.get("EDGEWARD_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_photos = pytest.mark.skipif(
    not (DATA / "imagenet-sample").is_dir() or not (DATA / PRETRAINED[backbone.TEACHER].file.paths[0]).is_file(),
    reason="the public photos and ImageNet weights are not in EDGEWARD_DATA",
)


def batch(count, weight):
    index = torch.arange(count)[None]
    return Batch(torch.zeros(1, count, 1), torch.zeros(1, count, dtype=torch.int64), index, torch.tensor([weight]))


def test_windows_lie_inside_the_photo():
    generator = torch.Generator().manual_seed(0)
    for _ in range(500):
        top, left, high, wide = backbone.window(192, generator)
        assert top >= 0 <= left
        assert top + high <= 192 >= left + wide
        assert min(high, wide) >= backbone.SIZE
        assert 0.5 < high / wide < 2.0


def test_components_are_unit_vectors():
    found = backbone.components(torch.randn(500, 200, generator=torch.Generator().manual_seed(0)).half())
    assert found.shape == (500, backbone.COMPONENTS)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(500))


def test_the_loss_wants_ones_own_view():
    views = torch.eye(8)
    loss = backbone.Contrast(views).loss()
    right = loss(views[None], batch(8, [1.0] * 8), None)
    wrong = loss(views.roll(1, 0)[None], batch(8, [1.0] * 8), None)
    # With orthogonal views the loss is log(1 + 7 exp(-10)) for one's own and 10 more for another's.
    torch.testing.assert_close(right, torch.full((1, 8), 3.1774e-4), atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(wrong - right, torch.full((1, 8), 10.0), atol=1e-4, rtol=0)


def test_padding_is_no_negative_and_has_no_gradient():
    views = torch.eye(8)
    answers = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    part = backbone.Contrast(views).loss()
    whole = part(answers[:, :6], batch(6, [1.0] * 6), None)
    padded = part(answers, batch(8, [1.0] * 6 + [0.0] * 2), None)
    torch.testing.assert_close(padded[:, :6], whole)
    assert padded[0, 6:].tolist() == [0.0, 0.0]
    padded.sum().backward()
    assert bool(torch.isfinite(answers.grad).all())
    assert float(answers.grad[0, 6:].abs().max()) == 0.0


@needs_photos
def test_an_interrupted_run_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEWARD_DATA", str(DATA))
    settings = backbone.Settings(crops=100, epochs=2, batch=50, rate=1e-3, seed=0)
    known = backbone.lessons(settings)
    monkeypatch.setattr(backbone, "lessons", lambda given: known)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = backbone.train(settings, tmp_path / "a")

    class Interrupted(Watcher):
        """Stop at the end of the second epoch, whose checkpoint is not yet written then."""

        def step(self, stage, done, total, note=""):
            if done == 2:
                raise KeyboardInterrupt

        def event(self, name, fields):
            pass

    monkeypatch.setattr(backbone, "Lines", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        backbone.train(settings, tmp_path / "b")
    monkeypatch.undo()
    monkeypatch.setenv("EDGEWARD_DATA", str(DATA))
    resumed = backbone.train(settings, tmp_path / "b")
    assert resumed.keys() == pretrained("resnet20_cifar10", root=DATA).state_dict().keys()
    for key, tensor in whole.items():
        assert torch.equal(tensor, resumed[key]), key
    assert known["crops"].shape == (100, 3, 32, 32)
