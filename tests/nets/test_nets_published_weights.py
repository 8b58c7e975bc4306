"""The published ResNet weights give the published accuracy on real test images."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgeward.backends.cleartext.reference import ReferenceExecutable
from edgeward.graph import capture, fold_batch_norm
from edgeward.nets import lenet, resnet

DATA = Path(os.environ.get("EDGEWARD_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = pytest.mark.skipif(not (DATA / "cifar10" / "labels.npz").exists(), reason="no CIFAR-10 sheets here")


def images(sheets):
    """Cut sheets of 25 x 40 tiles into [n, 32, 32, 3]."""
    rows = []
    for number in sheets:
        with Image.open(DATA / "cifar10" / f"test_{number:02d}.webp") as sheet:
            pixels = np.asarray(sheet.convert("RGB"))
        rows.append(pixels.reshape(40, 32, 25, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3))
    return np.concatenate(rows)


def labels():
    with np.load(DATA / "cifar10" / "labels.npz", allow_pickle=False) as arrays:
        return arrays["test"].astype(np.int64)


def normalised(pixels, mean, std):
    x = (pixels.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def state(name):
    stored = torch.load(DATA / "weights" / name, map_location="cpu", weights_only=True)["state_dict"]
    return {key.removeprefix("module."): tensor for key, tensor in stored.items()}


def published_resnet(depth, name):
    module = resnet(depth)
    module.load_state_dict(state(name))
    return fold_batch_norm(capture(module, (3, 32, 32)))


def correct(network, sheets):
    x = normalised(images(sheets), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    run = ReferenceExecutable(network).run
    answers = np.concatenate([run(part).argmax(1) for part in np.split(x, len(x) // 250)])
    truth = np.concatenate([labels()[1000 * s : 1000 * (s + 1)] for s in sheets])
    return int((answers == truth).sum())


@pytest.mark.slow
def test_resnet20_reaches_its_published_accuracy():
    assert correct(published_resnet(20, "resnet20-12fca82f.th"), range(5)) == 4574


def test_resnet20_on_a_thousand_images():
    """A known answer small enough for every run; 4574 of all 5000 is the slow one."""
    assert 895 <= correct(published_resnet(20, "resnet20-12fca82f.th"), [0]) <= 935


@pytest.mark.parametrize(("depth", "name"), [(32, "resnet32-d509ac18.th"), (44, "resnet44-014dd654.th")])
def test_deeper_weights_load(depth, name):
    resnet(depth).load_state_dict(state(name))


def test_published_lenet_weights_have_this_shape():
    stored = torch.load(DATA / "weights" / "cifar-lenet-checkpoint.pth.tar", map_location="cpu", weights_only=True)
    theirs = [tuple(t.shape) for t in stored["state_dict"].values()]
    assert theirs == [tuple(t.shape) for t in lenet(channels=3, size=32).state_dict().values()]
