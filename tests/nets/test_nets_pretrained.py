"""Published weights: the published accuracies on real records, and the files that are refused."""

import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeward.backends.cleartext.reference import ReferenceExecutable
from edgeward.core.errors import ConfigError, DataError
from edgeward.core.randomness import Seed
from edgeward.data import DATASETS, public_photos
from edgeward.data.datasets import Request
from edgeward.graph import capture, fold_batch_norm, to_module
from edgeward.nets import PRETRAINED, mobilenet_v1, pretrained

DATA = Path(os.environ.get("EDGEWARD_DATA", Path(__file__).parents[3] / "shared" / "data"))


def present(entry):
    return (DATA / entry.file.paths[0]).is_file()


needs_weights = pytest.mark.skipif(
    not all(map(present, PRETRAINED.values())), reason="the published weights are not in EDGEWARD_DATA"
)


@cache
def records(name):
    pools = DATASETS[name](Request(DATA, Seed(0)))
    return pools.train if pools.holdout is None else pools.holdout


def correct(network, x, y, batch=250):
    run = ReferenceExecutable(network).run
    answers = np.concatenate([run(part.numpy()).argmax(1) for part in x.split(batch)])
    return int((answers == y.numpy()).sum())


def folded(name):
    return fold_batch_norm(capture(pretrained(name, root=DATA), PRETRAINED[name].input_shape))


@needs_weights
@pytest.mark.parametrize(
    ("name", "data", "right"), [("mobilenet_v1_vww", "vww", 429), ("ds_cnn_kws", "kws", 453)], ids=["vww", "kws"]
)
def test_edge_networks_reach_their_published_accuracy(name, data, right):
    """85.8 % and 90.6 % of the 500 records, as measured with the original files."""
    assert correct(folded(name), records(data).x, records(data).y) == right


@pytest.mark.slow
@needs_weights
@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("resnet20_cifar10", 4574),
        ("resnet32_cifar10", 4617),
        ("resnet44_cifar10", 4646),
        ("resnet_tiny_cifar10", 4349),
    ],
)
def test_cifar_networks_reach_their_published_accuracy(name, right):
    """91.48, 92.34, 92.92 and 86.98 % of the 5000 test images in [0, 1]."""
    assert correct(folded(name), records("cifar10").x, records("cifar10").y) == right


@needs_weights
@pytest.mark.parametrize(("name", "least"), [("resnet20_cifar10", 222), ("resnet_tiny_cifar10", 210)])
def test_cifar_networks_on_a_few_images(name, least):
    """A bound that wrong standardisation, padding or channel order all miss; the exact count is the slow test."""
    assert correct(folded(name), records("cifar10").x[:250], records("cifar10").y[:250]) >= least


@pytest.mark.slow
@needs_weights
@pytest.mark.parametrize(("width", "size", "right"), [("0.25", 128, 235), ("0.5", 160, 346), ("0.75", 192, 401)])
def test_imagenet_networks_know_the_public_photos(width, size, right):
    """47.0, 69.2 and 80.2 % of 500; the integer originals: 46.4, 69.6 and 78.8 %."""
    x = torch.from_numpy(public_photos(size, root=DATA)).float() / 255
    module = pretrained(f"mobilenet_v1_{width}_imagenet", root=DATA)
    with torch.no_grad():
        answers = torch.cat([module(part).argmax(1) for part in x.split(25)])
    assert int((answers == torch.arange(0, 1000, 2)).sum()) == pytest.approx(right, abs=1)


@needs_weights
@pytest.mark.parametrize("name", sorted(set(PRETRAINED) - {"resnet32_cifar10", "resnet44_cifar10"}))
def test_capture_fold_and_rebuild_agree(name):
    entry, module = PRETRAINED[name], pretrained(name, root=DATA)
    x = torch.rand(2, *entry.input_shape, generator=torch.Generator().manual_seed(0))
    network = folded(name)
    with torch.no_grad():
        expected = module(x)
        assert expected.shape == (2, entry.classes)
        torch.testing.assert_close(to_module(network)(x), expected, atol=1e-3, rtol=1e-3)
    assert not any(node.operator == "batch_norm" for node in network.nodes)


@needs_weights
def test_the_public_relative_has_the_detectors_keys_and_shapes():
    victim, public = folded("mobilenet_v1_vww"), folded("mobilenet_v1_vww_public")
    shapes = {key: tuple(tensor.shape) for key, tensor in victim.tensors.items()}
    assert {key: tuple(tensor.shape) for key, tensor in public.tensors.items()} == shapes


@needs_weights
def test_unit_pixels_change_the_border_only():
    """Scaling taken into the stem equals the standardised stem but in the last row and column."""
    exact = pretrained("mobilenet_v1_0.25_imagenet", root=DATA)
    moved = pretrained("mobilenet_v1_vww_public", root=DATA)
    x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = exact.features[0].conv(exact.standardize(x)), moved.features[0].conv(x)
    torch.testing.assert_close(a[..., :-1, :-1], b[..., :-1, :-1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(a[..., -1, :], b[..., -1, :], atol=1e-2)


@needs_weights
def test_a_fresh_head_follows_the_seed():
    heads = [pretrained("mobilenet_v1_vww_public", root=DATA, seed=Seed(s)).classifier.weight for s in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_missing_and_altered_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"(?s)missing.*akamaster"):
        pretrained("resnet20_cifar10", root=tmp_path)
    path = tmp_path / PRETRAINED["resnet20_cifar10"].file.paths[0]
    path.parent.mkdir()
    path.write_bytes(b"not the weights")
    with pytest.raises(DataError, match="checksum"):
        pretrained("resnet20_cifar10", root=tmp_path)
    with pytest.raises(ConfigError, match="resnet20_cifar10"):
        pretrained("resnet20_cifar")


@needs_weights
def test_one_flipped_bit_is_refused(tmp_path):
    relative = PRETRAINED["ds_cnn_kws"].file.paths[0]
    (tmp_path / relative).parent.mkdir()
    shutil.copyfile(DATA / relative, tmp_path / relative)
    content = bytearray((tmp_path / relative).read_bytes())
    content[1000] ^= 1
    (tmp_path / relative).write_bytes(content)
    with pytest.raises(DataError, match="checksum"):
        pretrained("ds_cnn_kws", root=tmp_path)


def test_every_entry_says_what_it_saw_and_where_it_comes_from():
    for name, entry in PRETRAINED.items():
        assert entry.trained_on, name
        assert entry.licence, name
        assert "github.com/" in entry.file.origin, name
        assert len(entry.file.sha256) == 1, name


@needs_weights
def test_the_cap_of_the_rectifier_is_an_option():
    state = pretrained("mobilenet_v1_vww", root=DATA).state_dict()
    nets = [mobilenet_v1(0.25, classes=2, norm=False, rectifier=r).eval() for r in ("relu", "relu6")]
    x = 20 * torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answers = []
        for net in nets:
            net.load_state_dict(state)
            answers.append(net.features[0](x))
    assert float(answers[1].max()) == 6.0 < float(answers[0].max())
