"""The store: what is put comes back; what is damaged or partial was never there."""

import json

import pytest

from edgeward.core import Candidate
from edgeward.search import Store
from search.search_fixture import candidate, measurement


def write_bundle(folder):
    (folder / "bundle").mkdir()
    (folder / "bundle" / "weights").write_bytes(b"\x01\x02")


def test_round_trip(tmp_path):
    store = Store(tmp_path / "deep" / "candidates")
    one, found = candidate("gecko:crossfit", alpha=0.5), measurement()
    assert store.get(one) is None
    store.put(one, found, write_bundle)
    assert store.get(one) == found
    assert Store(store.root).get(Candidate(one.recipe, dict(one.config), dict(one.context))) == found
    assert (store.folder(one) / "bundle" / "weights").read_bytes() == b"\x01\x02"
    described = json.loads((store.folder(one) / "candidate.json").read_text())
    assert described["recipe"] == "gecko:crossfit"
    assert described["id"] == one.digest


@pytest.mark.parametrize(
    "other", [candidate("none"), candidate("gecko", alpha=0.4), Candidate("gecko", {"alpha": 0.5})]
)
def test_another_recipe_setting_or_context_is_another_candidate(other, tmp_path):
    store = Store(tmp_path)
    store.put(candidate("gecko", alpha=0.5), measurement(), write_bundle)
    assert store.get(other) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", '"text"', "{}", '{"cost": 3}', "\x00\xff", "TRUNCATED", "WRONG COST", "ATTACKS"],
)
def test_a_damaged_entry_counts_as_absent_and_can_be_put_again(text, tmp_path):
    store, one = Store(tmp_path), candidate()
    store.put(one, measurement(), write_bundle)
    file = store.folder(one) / "measurement.json"
    whole = file.read_text()
    plain = json.loads(whole)
    if text == "TRUNCATED":
        text = whole[: len(whole) // 2]
    if text == "WRONG COST":
        text = json.dumps({**plain, "cost": {"nonsense": 1, "provenance": {"nonsense": {"unit": "?"}}}})
    if text == "ATTACKS":
        text = json.dumps({**plain, "attacks": [{"name": "lira"}]})
    file.write_bytes(text.encode("latin-1"))
    assert store.get(one) is None
    store.put(one, measurement(0.5), write_bundle)
    assert store.get(one) == measurement(0.5)


def test_a_killed_write_leaves_nothing_that_is_read(tmp_path):
    store, one = Store(tmp_path), candidate()

    def killed(folder):
        write_bundle(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put(one, measurement(), killed)
    assert store.get(one) is None
    assert not store.folder(one).exists()
    store.put(one, measurement(), write_bundle)
    assert store.get(one) == measurement()


def test_measured_candidates_keep_no_checkpoints(tmp_path):
    store, one = Store(tmp_path), candidate()
    store.scratch(one).mkdir()
    (store.scratch(one) / "dense.running.safetensors").write_bytes(b"private")
    store.put(one, measurement(), write_bundle)
    assert not store.scratch(one).exists()
