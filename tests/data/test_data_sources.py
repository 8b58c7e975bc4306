"""The user's own data: what is read from torch data sets, archives, tables and folders, and what is refused."""

import csv
import inspect
import io

import numpy as np
import pytest
import torch
from data_fixtures import toy
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from edgeward.core.errors import ConfigError, DataError
from edgeward.core.randomness import Seed
from edgeward.data import from_csv, from_image_folder, from_npz, from_torch, load_source

SECRET = "12345.678"  # noqa: S105


class Listed(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def pairs(n, seed):
    records = toy(n, seed)
    return [(x, int(y)) for x, y in zip(records.x, records.y, strict=True)]


def test_torch_datasets_of_every_kind_give_equal_splits():
    a, b = toy(60, 1), toy(40, 2)
    tensor = from_torch(TensorDataset(a.x, a.y), TensorDataset(b.x, b.y), canaries=9, seed=Seed(1))
    whole = TensorDataset(torch.cat([a.x, b.x]), torch.cat([a.y, b.y]))
    subset = from_torch(Subset(whole, range(60)), Subset(whole, range(60, 100)), canaries=9, seed=Seed(1))
    listed = from_torch(Listed(pairs(60, 1)), Listed(pairs(40, 2)), canaries=9, seed=Seed(1))
    assert tensor.digest == subset.digest == listed.digest


def test_pictures_become_channels_first_in_the_unit_interval():
    rng = np.random.default_rng(0)
    pictures = [(Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)), i % 2) for i in range(60)]
    splits = from_torch(Listed(pictures[:40]), Listed(pictures[40:]), canaries=5, seed=Seed(0))
    assert splits.input_shape == (3, 5, 4)
    assert 0 <= float(splits.train.x.min()) < 0.1 < 0.9 < float(splits.train.x.max()) <= 1
    expected = torch.from_numpy(np.array(pictures[0][0])).permute(2, 0, 1) / 255
    assert any(torch.equal(expected, x) for x in torch.cat([splits.train.x, splits.validation.x]))


@pytest.mark.parametrize(
    ("item", "part"),
    [
        (ValueError(SECRET), "ValueError"),
        ((torch.zeros(5), 0), r"shape \(5,\)"),
        ((torch.zeros(6, dtype=torch.float64), 0), "float64"),
        ((torch.zeros(6), 0.5), "whole number"),
        ((torch.zeros(6), SECRET), "whole number"),
        ((torch.zeros(6), torch.zeros(2, dtype=torch.int64)), "whole number"),
        ((SECRET, 0), "numbers"),
        ((torch.zeros(6),), "pair"),
        (SECRET, "pair"),
    ],
)
def test_the_first_offending_item_is_named(item, part):
    items = pairs(60, 1)
    items[17] = item
    with pytest.raises(DataError, match=part) as caught:
        from_torch(Listed(items), Listed(pairs(40, 2)), canaries=9, seed=Seed(1))
    assert "item 17 of the train data set" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_iterable_and_empty_datasets_are_refused():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(pairs(3, 1))

    with pytest.raises(DataError, match="cannot be indexed"):
        from_torch(Endless(), Listed(pairs(40, 2)), canaries=9, seed=Seed(1))
    with pytest.raises(DataError, match="holdout is empty: expected at least one non-member"):
        from_torch(Listed(pairs(60, 1)), Listed([]), canaries=9, seed=Seed(1))


def test_torch_overlap_is_an_error_with_its_count():
    items = pairs(60, 1)
    with pytest.raises(DataError, match="of the 30 holdout records are also in train"):
        from_torch(Listed(items), Listed(items[:30]), shadow=Listed(pairs(9, 5)), canaries=9, seed=Seed(1))


def test_npz_of_both_layouts(tmp_path):
    a, b = toy(60, 1), toy(40, 2)
    np.savez(tmp_path / "parts.npz", x_train=a.x, y_train=a.y, x_test=b.x, y_test=b.y, names=np.array(["a"]))
    splits = from_npz(tmp_path / "parts.npz", canaries=9, seed=Seed(1))
    assert splits.counts() == {"train": 54, "validation": 6, "holdout": 28, "shadow": 12, "canaries": 9}
    np.savez_compressed(tmp_path / "whole.npz", x=np.asfortranarray(a.x.numpy()), y=a.y.numpy().astype(np.uint8))
    whole = load_source(str(tmp_path / "whole.npz"), canaries=9, seed=Seed(1))
    assert sum(whole.counts().values()) == 60 + 9
    rows = {tuple(r) for role in whole.roles.values() for r in role.x.tolist()}
    assert rows == {tuple(r) for r in a.x.tolist()}


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "p.npz", x=np.array([{"a": 1}], dtype=object), y=np.zeros(1))
    with pytest.raises(DataError, match="pickled objects are refused"):
        from_npz(tmp_path / "p.npz", canaries=0, seed=Seed(0))


def test_npz_without_the_keys_names_those_it_has(tmp_path):
    np.savez(tmp_path / "k.npz", images=np.zeros(3), y=np.zeros(3))
    with pytest.raises(DataError, match="images, y"):
        from_npz(tmp_path / "k.npz", canaries=0, seed=Seed(0))


def table(n=60, seed=0, drift=0.0):
    rng = np.random.default_rng(seed)
    lines = [["age", "town", "ok"]]
    lines += [
        [f"{rng.normal(40 + drift, 9):.6f}", "ABC"[rng.integers(3)], ["no", "yes"][rng.integers(2)]] for _ in range(n)
    ]
    return lines


def write(path, lines):
    stream = io.StringIO()
    csv.writer(stream).writerows(lines)
    path.write_text(stream.getvalue(), encoding="utf-8")
    return path


def test_csv_is_standardised_on_the_training_role_alone(tmp_path):
    members, others = write(tmp_path / "a.csv", table()), write(tmp_path / "b.csv", table(40, 1, drift=25.0))
    splits = from_csv(members, label="ok", holdout_path=others, canaries=9, seed=Seed(2))
    assert splits.classes == 2
    assert splits.input_shape == (4,)
    ages = splits.train.x[:, 0].double()
    assert abs(float(ages.mean())) < 1e-6
    assert abs(float(ages.std(correction=0)) - 1) < 1e-6
    assert float(splits.holdout.x[:, 0].mean()) > 1.5
    assert bool((splits.train.x[:, 1:].sum(1) == 1).all())
    assert torch.equal(splits.canaries.x, splits.train.x[splits.canary_sources])


def test_csv_categories_unseen_in_training_become_zeros(tmp_path):
    other = [*table(39, 1), ["50.0", "Z", "no"]]
    members, others = write(tmp_path / "a.csv", table()), write(tmp_path / "b.csv", other)
    splits = from_csv(members, label="ok", holdout_path=others, canaries=9, seed=Seed(2))
    hot = torch.cat([splits.holdout.x, splits.shadow.x])[:, 1:].sum(1)
    assert int((hot == 0).sum()) == 1
    assert int((hot == 1).sum()) == 39


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda t: t[1:], "has no header"),
        (lambda t: [["age", "age", "ok"], *t[1:]], "has no header"),
        (lambda t: t[:1], "0 rows"),
        (lambda t: [], "an empty file"),
        (lambda t: [*t[:5], t[5][:2], *t[6:9], t[9] * 2], "line 6, 10"),
        (lambda t: [*t[:5], ["?", "A", "no"], ["", "", "no"]], r"age \(2\), town \(1\)"),
        (lambda t: [["id", *t[0]], *([f"p{i}x", *row] for i, row in enumerate(t[1:] * 20))], r"id \(1200\)"),
    ],
)
def test_csv_problems_are_listed_without_cells(tmp_path, change, part):
    lines = table()
    lines[1][0] = SECRET
    path = write(tmp_path / "t.csv", change(lines))
    with pytest.raises(DataError, match=part) as caught:
        from_csv(path, label="ok", canaries=9, seed=Seed(0))
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_csv_without_classes_or_features_is_refused(tmp_path):
    path = write(tmp_path / "t.csv", table(1100))
    with pytest.raises(DataError, match="1100 different values in 1100 rows"):
        from_csv(path, label="age", canaries=9, seed=Seed(0))
    with pytest.raises(DataError, match="0 features"):
        from_csv(path, label="ok", ignore=["age", "town"], canaries=9, seed=Seed(0))


def test_csv_label_is_asked_for_and_suggested(tmp_path):
    path = write(tmp_path / "t.csv", [["age", "town", "income"], *table()[1:]])
    with pytest.raises(ConfigError, match="label = 'column name'"):
        load_source(str(path), seed=Seed(0))
    with pytest.raises(ConfigError, match="did you mean 'income'"):
        load_source(str(path), label="incone", seed=Seed(0))
    splits = load_source(str(path), label="income", ignore=["town"], canaries=9, seed=Seed(0))
    assert splits.input_shape == (1,)


def pictures(folder, n, seed, labels=("cat", "dog")):
    rng = np.random.default_rng(seed)
    for i in range(n):
        place = folder / labels[i % len(labels)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)).save(place / f"{i:03d}.png")


def test_image_folders_of_both_layouts(tmp_path):
    pictures(tmp_path / "two" / "train", 40, 0)
    pictures(tmp_path / "two" / "holdout", 20, 1)
    two = from_image_folder(tmp_path / "two", size=(8, 10), canaries=9, seed=Seed(0))
    assert (two.classes, two.input_shape) == (2, (3, 8, 10))
    assert two.counts() == {"train": 36, "validation": 4, "holdout": 14, "shadow": 6, "canaries": 9}
    first = np.asarray(Image.open(tmp_path / "two" / "train" / "cat" / "000.png")).transpose(2, 0, 1) / np.float32(255)
    assert any(np.array_equal(first, x) for x in torch.cat([two.train.x, two.validation.x]).numpy())
    pictures(tmp_path / "one", 50, 2)
    one = load_source(str(tmp_path / "one"), size=[4, 4], grey=True, canaries=5, seed=Seed(0))
    assert one.input_shape == (1, 4, 4)
    assert sum(one.counts().values()) == 55


def test_every_unreadable_picture_is_listed(tmp_path):
    pictures(tmp_path / "train", 40, 0)
    pictures(tmp_path / "holdout", 20, 1)
    (tmp_path / "train" / "cat" / "cut.png").write_bytes((tmp_path / "train" / "cat" / "000.png").read_bytes()[:80])
    (tmp_path / "holdout" / "dog" / "text.jpg").write_text(SECRET)
    with pytest.raises(DataError, match="2 pictures") as caught:
        from_image_folder(tmp_path, canaries=9, seed=Seed(0))
    assert "cut.png" in str(caught.value)
    assert "text.jpg" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("layout", ["", "train/cat", "empty"])
def test_folders_without_pictures_are_refused(tmp_path, layout):
    (tmp_path / layout).mkdir(parents=True, exist_ok=True)
    with pytest.raises(DataError, match="expected"):
        from_image_folder(tmp_path, canaries=9, seed=Seed(0))


def test_a_bomb_of_pixels_is_not_decoded(tmp_path):
    pictures(tmp_path, 40, 0)
    Image.new("1", (30000, 30000)).save(tmp_path / "cat" / "bomb.png")
    with pytest.raises(DataError, match=r"bomb\.png"):
        from_image_folder(tmp_path, canaries=9, seed=Seed(0))


@pytest.mark.parametrize(
    ("text", "error", "part"),
    [
        ("digit", ConfigError, "did you mean 'digits'"),
        ("fashion-mnist", ConfigError, "did you mean 'fashion_mnist'"),
        ("", ConfigError, "unknown data set"),
        ("a\0b", ConfigError, "unknown data set"),
        ("no/such/folder", DataError, "no such file or folder"),
        ("absent.npz", DataError, "cannot be read"),
        ("x" * 5000 + "/y", DataError, "no data at"),
        (".", DataError, "no pictures"),
    ],
)
def test_unknown_sources_are_answered(text, error, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=part):
        load_source(text, seed=Seed(0))


def test_wrong_option_types_are_reported_together():
    unchecked = inspect.unwrap(load_source)
    with pytest.raises(ConfigError) as caught:
        unchecked("digits", seed=Seed(0), canaries="many", train=2.5, size=[1], label=3, ignore="age", grey=1)
    for name in ("canaries", "train", "size", "label", "ignore", "grey"):
        assert f"{name} = " in str(caught.value)
