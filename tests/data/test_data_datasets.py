"""The public data sets: known counts on the real files, checksums, and the files that are refused."""

import gzip
import shutil

import numpy as np
import pytest
import torch
from data_fixtures import DATA, needs

from edgeward.core.errors import ConfigError, DataError
from edgeward.core.randomness import Seed
from edgeward.data import DATASETS, load
from edgeward.data.cifar10 import cifar10
from edgeward.data.datasets import Request

MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
CIFAR_TRAIN = [2983, 3023, 3007, 3008, 2999, 2954, 3016, 3042, 2973, 2995]
CIFAR_TEST = [488, 505, 512, 497, 507, 488, 491, 495, 504, 513]


def source(name):
    return DATASETS[name](Request(DATA, Seed(0)))


def histogram(records, classes=10):
    return torch.bincount(records.y, minlength=classes).tolist()


def test_digits():
    splits = load("digits", seed=Seed(3))
    assert splits.counts() == {"train": 900, "validation": 197, "holdout": 500, "shadow": 200, "canaries": 200}
    assert splits.input_shape == (64,)
    every = torch.cat([r.y for r in splits.roles.values()])
    assert torch.bincount(every).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    x = torch.cat([r.x for r in splits.roles.values()])
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    assert torch.equal(x * 16, (x * 16).round())


def test_the_seed_decides_everything():
    assert load("digits", seed=Seed(1)).digest == load("digits", seed=Seed(1)).digest
    assert load("digits", seed=Seed(1)).digest != load("digits", seed=Seed(2)).digest


def test_sizes_on_request():
    splits = load("digits", seed=Seed(0), train=600, holdout=300, canaries=50)
    assert splits.counts() == {"train": 600, "validation": 60, "holdout": 300, "shadow": 129, "canaries": 50}
    with pytest.raises(ConfigError, match="at most 1797"):
        load("digits", seed=Seed(0), train=1700)
    with pytest.raises(ConfigError, match="positive sizes"):
        load("digits", seed=Seed(0), train=0)


@needs("mnist/train-images-idx3-ubyte.gz")
def test_mnist_counts():
    pools = source("mnist")
    assert pools.train.shape == (1, 28, 28)
    assert (histogram(pools.train), histogram(pools.holdout)) == (MNIST_TRAIN, MNIST_TEST)
    # The mean of all training pixels is a well-known constant.
    assert abs(float(pools.train.x.double().mean()) - 0.1307) < 1e-4
    assert (float(pools.train.x.min()), float(pools.train.x.max())) == (0.0, 1.0)


@needs("fashion-mnist/train-images-idx3-ubyte.gz")
def test_fashion_mnist_counts_and_a_sample():
    pools = source("fashion_mnist")
    assert (histogram(pools.train), histogram(pools.holdout)) == ([6000] * 10, [1000] * 10)
    assert abs(float(pools.train.x.double().mean()) - 0.2860) < 1e-4
    splits = load("fashion_mnist", seed=Seed(0), root=DATA, train=1000, holdout=700)
    assert splits.counts() == {"train": 1000, "validation": 111, "holdout": 700, "shadow": 300, "canaries": 200}


@needs("cifar10/labels.npz")
def test_cifar10_counts_and_batches(tmp_path):
    pools = source("cifar10")
    assert (histogram(pools.train), histogram(pools.holdout)) == (CIFAR_TRAIN, CIFAR_TEST)
    assert pools.train.shape == (3, 32, 32)
    # Per-channel means of the whole training set, to which 60 % of it must come close.
    assert torch.allclose(pools.train.x.mean((0, 2, 3)), torch.tensor([0.4914, 0.4822, 0.4465]), atol=3e-3)
    # Batches 1 to 3 rebuilt from the sheets pass the checksums of the official binary files; the next is missing.
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    pixels = (pools.train.x * 255).round().to(torch.uint8).reshape(-1, 3072).numpy()
    rows = np.concatenate([pools.train.y.numpy().astype(np.uint8)[:, None], pixels], axis=1)
    for number in range(3):
        rows[number * 10000 : (number + 1) * 10000].tofile(folder / f"data_batch_{number + 1}.bin")
    with pytest.raises(DataError, match=r"data_batch_4\.bin"):
        cifar10(Request(tmp_path, Seed(0)))
    # With stand-ins that complete the class counts the five batches are read in place of the sheets.
    rng = np.random.default_rng(0)
    missing = np.repeat(np.arange(10, dtype=np.uint8), 5000 - np.array(CIFAR_TRAIN))
    labels = {"data_batch_4": missing[:10000], "data_batch_5": missing[10000:], "test_batch": np.arange(10000) % 10}
    for name, y in labels.items():
        batch = rng.integers(0, 256, (10000, 3073), dtype=np.uint8)
        batch[:, 0] = y
        batch.tofile(folder / f"{name}.bin")
    whole = cifar10(Request(tmp_path, Seed(0)))
    assert (len(whole.train), len(whole.holdout)) == (50000, 10000)
    assert torch.equal(whole.train.x[:30000], pools.train.x)
    np.zeros((10000, 3073), dtype=np.uint8).tofile(folder / "test_batch.bin")
    with pytest.raises(DataError, match="not the official ones"):
        cifar10(Request(tmp_path, Seed(0)))


@needs("pneumoniamnist/pneumoniamnist_rejoined.npz")
def test_pneumonia_mnist_counts():
    pools = source("pneumonia_mnist")
    assert pools.validation is not None
    parts = (pools.train, pools.validation, pools.holdout)
    assert [histogram(p, 2) for p in parts] == [[1214, 3494], [135, 389], [234, 390]]
    splits = load("pneumonia_mnist", seed=Seed(0), root=DATA)
    assert splits.notes == ("29 repeated records dropped before splitting",)


@needs("location30/dataset_location.tgz")
def test_location30_counts():
    records = source("location30").train
    counts = histogram(records, 30)
    assert (len(records), records.shape, min(counts), max(counts)) == (5010, (446,), 97, 308)
    assert abs(float(records.x.sum(1).mean()) - 53.7) < 0.05
    assert set(records.x.unique().tolist()) == {0.0, 1.0}


@needs("tabular/adult.data.gz")
def test_adult_counts_and_encoding():
    pools = source("adult")
    assert (histogram(pools.train, 2), histogram(pools.holdout, 2)) == ([24720, 7841], [12435, 3846])
    splits = load("adult", seed=Seed(0), root=DATA)
    assert splits.input_shape == (108,)
    assert splits.notes == ("57 repeated records dropped before splitting",)
    x = splits.train.x.double()
    standardised = [j for j in range(108) if len(x[:, j].unique()) > 2]
    assert len(standardised) == 6
    assert float(x[:, standardised].mean(0).abs().max()) < 1e-5
    assert float((x[:, standardised].std(0, correction=0) - 1).abs().max()) < 1e-5
    rest = [j for j in range(108) if j not in standardised]
    assert bool((x[:, rest].sum(1) == 8).all())


def test_purchase100_synthetic_is_a_pure_function_of_its_seed():
    splits = load("purchase100_synthetic", seed=Seed(0), train=500, holdout=300, canaries=20)
    assert splits.counts() == {"train": 500, "validation": 50, "holdout": 300, "shadow": 129, "canaries": 20}
    assert splits.classes == 100
    assert "synthetic" in splits.name
    assert any("synthetic" in note for note in splits.notes)
    assert splits.digest == load("purchase100_synthetic", seed=Seed(0), train=500, holdout=300, canaries=20).digest
    # 0.25 of ones flipped with probability 0.38: 0.25 * 0.62 + 0.75 * 0.38.
    assert abs(float(splits.train.x.mean()) - 0.44) < 0.01
    with pytest.raises(ConfigError, match="at most 500000"):
        load("purchase100_synthetic", seed=Seed(0), train=10**9)


@needs("mnist/t10k-labels-idx1-ubyte.gz")
def test_an_altered_file_is_refused_and_a_recompressed_one_is_not(tmp_path):
    folder = tmp_path / "mnist"
    shutil.copytree(DATA / "mnist", folder)
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    labels.chmod(0o644)
    folder.chmod(0o755)
    content = gzip.decompress(labels.read_bytes())
    labels.write_bytes(gzip.compress(content, 1))
    assert len(DATASETS["mnist"](Request(tmp_path, Seed(0))).train) == 60000
    labels.write_bytes(gzip.compress(content[:-1] + bytes([content[-1] ^ 1])))
    with pytest.raises(DataError) as caught:
        DATASETS["mnist"](Request(tmp_path, Seed(0)))
    text = str(caught.value)
    for part in ("checksum", "t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6d", "MNIST (LeCun"):
        assert part in text
    labels.write_bytes(labels.read_bytes()[:500])
    with pytest.raises(DataError, match="checksum"):
        DATASETS["mnist"](Request(tmp_path, Seed(0)))


def purchase_lines(rows):
    rng = np.random.default_rng(0)
    text = np.full((rows, 1204), ord(","), dtype=np.uint8)
    text[:, :2] = np.frombuffer(b"".join(b"%02d" % (i % 99 + 1) for i in range(rows)), dtype=np.uint8).reshape(-1, 2)
    text[:, 3::2] = 48 + rng.integers(0, 2, (rows, 601), dtype=np.uint8)
    text[:, -2] = text[:, -3]
    text[:, -1] = ord("\n")
    return text[:, [*range(1202), 1203]].tobytes()


def test_purchase100_of_another_size_is_refused(tmp_path):
    (tmp_path / "purchase100").mkdir()
    (tmp_path / "purchase100" / "dataset_purchase").write_bytes(purchase_lines(5))
    with pytest.raises(DataError, match=r"(?s)197324 lines.*5 lines of 601 values"):
        load("purchase100", seed=Seed(0), root=tmp_path)


@pytest.mark.slow
def test_purchase100_of_the_published_size_is_read(tmp_path):
    (tmp_path / "purchase100").mkdir()
    (tmp_path / "purchase100" / "dataset_purchase").write_bytes(purchase_lines(197324))
    splits = load("purchase100", seed=Seed(0), root=tmp_path, train=1000, holdout=1000)
    assert splits.counts() == {"train": 1000, "validation": 100, "holdout": 1000, "shadow": 429, "canaries": 200}
    assert (splits.classes, splits.input_shape) == (100, (600,))
    assert len(splits.notes) == 1


FILES = [name for name in DATASETS if name not in ("digits", "purchase100_synthetic")]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_names_its_path_the_variable_and_the_source(name, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEWARD_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        load(name, seed=Seed(0))
    assert str(tmp_path) in str(caught.value)
    assert "EDGEWARD_DATA" in str(caught.value)
    assert "get it from" in str(caught.value)
    monkeypatch.delenv("EDGEWARD_DATA")
    with pytest.raises(DataError, match="EDGEWARD_DATA is not set"):
        load(name, seed=Seed(0))


def test_unknown_names_are_answered():
    with pytest.raises(ConfigError, match="did you mean 'location30'"):
        load("location-30", seed=Seed(0))
