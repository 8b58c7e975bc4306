"""MLPerf Tiny's sets and the public photos: known counts on the real files, and altered files refused."""

import shutil

import pytest
import torch
from data_fixtures import DATA, needs

from edgeward.core.errors import DataError
from edgeward.core.randomness import Seed
from edgeward.data import DATASETS, load, public_photos
from edgeward.data.datasets import Request


def source(name):
    return DATASETS[name](Request(DATA, Seed(0))).train


@needs("mlperf-tiny/vww01_4.webp")
def test_vww_counts():
    records = source("vww")
    assert (len(records), records.shape) == (500, (3, 96, 96))
    assert torch.bincount(records.y).tolist() == [250, 250]
    assert (float(records.x.min()), float(records.x.max())) == (0.0, 1.0)
    splits = load("vww", seed=Seed(1), root=DATA, canaries=20)
    assert splits.counts() == {"train": 200, "validation": 50, "holdout": 150, "shadow": 100, "canaries": 20}


@needs("mlperf-tiny/vww01_4.webp")
def test_vww_tiles_are_whole_pictures():
    """Neighbouring rows of a photo resemble each other; a wrong cut would put a seam into every record."""
    x = source("vww").x
    steps = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((0, 1, 3))
    assert float(steps.max()) < 1.5 * float(steps.median())
    across = (x[..., 1:] - x[..., :-1]).abs().mean((0, 1, 2))
    assert float(across.max()) < 1.5 * float(across.median())


@needs("mlperf-tiny/kws01_mfcc_int8.npz")
def test_kws_counts():
    records = source("kws")
    assert (len(records), records.shape) == (500, (1, 49, 10))
    assert torch.bincount(records.y).tolist() == [41, 46, 41, 45, 41, 41, 35, 39, 38, 45, 43, 45]
    assert float(records.x.min()) == pytest.approx((-128 - 83) * 0.5847, abs=0.01)
    steps = records.x / 0.584702730178833
    assert float((steps - steps.round()).abs().max()) < 1e-3
    splits = load("kws", seed=Seed(1), root=DATA, canaries=0)
    assert splits.counts() == {"train": 200, "validation": 50, "holdout": 150, "shadow": 99, "canaries": 0}
    assert "1 repeated records dropped before splitting" in splits.notes


@needs("mlperf-tiny/kws01_mfcc_int8.npz")
def test_an_altered_file_is_refused(tmp_path):
    (tmp_path / "mlperf-tiny").mkdir()
    path = tmp_path / "mlperf-tiny" / "kws01_mfcc_int8.npz"
    shutil.copyfile(DATA / "mlperf-tiny" / "kws01_mfcc_int8.npz", path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="checksum"):
        load("kws", seed=Seed(0), root=tmp_path)
    with pytest.raises(DataError, match=r"(?s)missing.*energyrunner"):
        load("vww", seed=Seed(0), root=tmp_path)


@needs("imagenet-sample/0000_n01440764_tench.jpg")
def test_public_photos():
    photos = public_photos(32, root=DATA)
    assert (photos.shape, photos.dtype.name) == ((500, 3, 32, 32), "uint8")
    assert 90 < photos.mean() < 140
    assert len({photo.tobytes() for photo in photos}) == 500


def test_absent_photos_are_named(tmp_path):
    with pytest.raises(DataError, match=r"(?s)public photos.*0 files.*imagenet-sample-images"):
        public_photos(root=tmp_path)
