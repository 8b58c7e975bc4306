"""The job file: it round-trips, it finds everything that is wrong at once, and nothing but ConfigError comes out."""

import contextlib
import inspect
import tempfile
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.core.budget import Budget
from edgeward.core.errors import ConfigError
from edgeward.core.threat import MembershipInference
from edgeward.data import load_source
from edgeward.job import Job, demo_job, load_job, parse_job
from edgeward.job.job import located
from edgeward.job.reading import DATA_OPTIONS
from edgeward.job.tables import parse_toml, toml_table, toml_value
from edgeward.train.part import Schedule

SMALLEST = 'schema = 1\n[model]\nnet = "mlp"\nfeatures = 64\n[data]\nsource = "digits"\n'

WHOLE = """
schema = 1
seed = 7
workdir = "out"
search = true
recipes = ["none", {name = "gecko:paper", alpha = 0.1}]

[model]
source = "net.py:build"
width = 8

[data]
source = "mine.npz"
canaries = 50

[device]
name = "rpi4"

[budget]
file_bytes = "64KiB"
accuracy = "90%"

[train]
epochs = 3
rate = 1

[[threats]]
threat = "membership"
shadows = 8
"""


def test_the_smallest_job_has_defaults():
    job = parse_job(SMALLEST)
    assert (job.device, job.seed, job.recipes, job.search) == ("cortex-m7", 0, None, False)
    assert job.threats == (MembershipInference(),)
    assert job.schedule == Schedule()
    assert job.model.arguments == {"features": 64}


def test_every_section_is_read():
    job = parse_job(WHOLE)
    assert job.model.spec == "net.py:build"
    assert job.model.arguments == {"width": 8}
    assert job.budget == Budget(file_bytes=65536.0, accuracy=0.9)
    assert job.schedule == Schedule(epochs=3, rate=1)
    assert job.threats == (MembershipInference(shadows=8),)
    assert [(r.name, dict(r.settings)) for r in job.recipes] == [("none", {}), ("gecko:paper", {"alpha": 0.1})]
    assert (job.seed, job.workdir, job.device, job.search, job.data.canaries) == (7, "out", "rpi4", True, 50)


@pytest.mark.parametrize("job", [parse_job(SMALLEST), parse_job(WHOLE), demo_job()], ids=["smallest", "whole", "demo"])
def test_a_job_survives_its_file(job):
    assert parse_job(job.to_toml()) == Job(**{**vars(job), "root": Path()})


def test_all_unknown_keys_and_wrong_types_come_together():
    text = (
        SMALLEST + 'colour = 1\n[budgets]\n[train]\nepoch = 3\nrate = "fast"\nbatch = true\n[[threats]]\nshadow = 8\n'
    )
    with pytest.raises(ConfigError) as caught:
        parse_job(text)
    message = str(caught.value)
    for words in (
        "budgets (did you mean 'budget'?)",
        "[train] epoch (did you mean 'epochs'?)",
        "[train] rate: expected a whole number or a number, came a text",
        "[train] batch: expected a whole number, came true or false",
        "[threats 1] shadow (did you mean 'shadows'?)",
    ):
        assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schema = 2\n" + SMALLEST.split("\n", 1)[1], "another version"),
        ("schema = 1\n", "exactly one of net"),
        (SMALLEST.replace('net = "mlp"', 'net = "mlp"\nsource = "a.py:b"'), "exactly one of net"),
        (SMALLEST.replace("features = 64", 'weights = "w.safetensors"'), "blind"),
        (SMALLEST.replace("features = 64", "featuers = 64"), "did you mean 'features'"),
        (SMALLEST.replace("schema = 1", "schema = 1\nrecipes = []"), "at least one"),
        (SMALLEST.replace("schema = 1", "schema = 1\nrecipes = [3]"), "entry 1"),
        (SMALLEST.replace("schema = 1", "schema = 1\nthreats = []"), "at least one"),
        (SMALLEST + "size = [3]\n", "two whole numbers"),
        (SMALLEST + "roots = 'x'\n", "did you mean 'root'"),
        (SMALLEST + "[[threats]]\nthreat = 'extraction'\n", "expected one of membership"),
        (SMALLEST + "[[threats]]\naccess = 'labels'\n", "expected one of label, confidence"),
        (SMALLEST + "[[threats]]\nkinds = ['canaries']\n", "unknown kind of audited records"),
        (SMALLEST + "[train]\noptimizer = 'adamw'\n", "expected one of adam, sgd"),
        (SMALLEST + "[train]\nepochs = 0\n", "at least 1"),
        (SMALLEST + "[train]\nrate = nan\n", "a positive number"),
        (SMALLEST + "[[threats]]\nshadows = 3\n", "even number"),
        (SMALLEST + "[budget]\nfile_bytes = '64 apples'\n", "not a quantity"),
        ("this is not toml", "not TOML"),
        ("a = 1\na = 2", "not TOML"),
    ],
)
def test_what_is_wrong_is_said(text, words):
    with pytest.raises(ConfigError) as caught:
        parse_job(text)
    assert words in str(caught.value)


def test_the_options_of_data_are_those_of_the_loader():
    parameters = inspect.signature(load_source).parameters
    assert {*DATA_OPTIONS, "seed", "canaries", "text"} == set(parameters)


def test_recipes_that_do_not_exist_come_together():
    job = parse_job(SMALLEST.replace("schema = 1", 'schema = 1\nrecipes = ["gekco", {name = "none", depth = 1}]'))
    with pytest.raises(ConfigError) as caught:
        job.recipe_objects()
    assert "gekco" in str(caught.value)
    assert "depth" in str(caught.value)


def test_recipe_settings_reach_the_recipe():
    (recipe,) = parse_job(
        SMALLEST.replace("schema = 1", 'schema = 1\nrecipes = [{name = "gecko:paper", alpha = 0.25}]')
    ).recipe_objects()
    assert recipe.settings()["alpha"] == 0.25
    assert recipe.name == "gecko:paper"


def test_paths_start_at_the_job_file(tmp_path):
    (tmp_path / "job.toml").write_text(WHOLE)
    job = load_job(tmp_path / "job.toml")
    assert job.output == tmp_path / "out"
    assert job.resolved().data.source == str(tmp_path / "mine.npz")
    assert job.resolved().model.source == f"{tmp_path}/net.py:build"
    assert load_job(tmp_path / "job.toml").overriding(workdir="x").output == Path("x").absolute()


def test_the_written_job_is_good_from_anywhere(tmp_path):
    (tmp_path / "job.toml").write_text(WHOLE)
    job = load_job(tmp_path / "job.toml")
    job.write(tmp_path / "out" / "job.toml")
    again = load_job(tmp_path / "out" / "job.toml")
    assert again.resolved() == job.resolved()
    assert not list((tmp_path / "out").glob("*.partial"))


def test_a_word_is_no_path_unless_it_exists(tmp_path):
    assert located("digits", tmp_path) == "digits"
    (tmp_path / "photos").mkdir()
    assert located("photos", tmp_path) == str(tmp_path / "photos")


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"schema = 1\n" * (1 << 17)])
def test_unreadable_job_files(tmp_path, content):
    if content is not None:
        (tmp_path / "job.toml").write_bytes(content)
    with pytest.raises(ConfigError):
        load_job(tmp_path / "job.toml")


def test_a_job_loads_its_model(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\ndef build(width):\n    return nn.Linear(4, width)\n")
    (tmp_path / "job.toml").write_text(WHOLE)
    assert load_job(tmp_path / "job.toml").factory()().out_features == 8


plain = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), plain, max_size=5))
def test_what_is_written_is_read_back(table):
    text = toml_table("[t]", table)
    assert parse_toml(text, name="t").get("t", {}) == table
    assert parse_toml(f"v = {toml_value(table)}", name="v")["v"] == table


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_job_is_a_config_error(data):
    text = data.draw(st.sampled_from([SMALLEST, WHOLE, demo_job().to_toml()]))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    text = text[:start] + data.draw(st.text(max_size=6)) + text[end:]
    with contextlib.suppress(ConfigError):
        parse_job(text)


def test_every_key_of_the_schedule_and_budget_is_a_key_of_the_file():
    schedule = {f.name: getattr(Schedule(), f.name) for f in fields(Schedule)}
    text = SMALLEST + toml_table("[train]", schedule) + toml_table("[budget]", {f.name: 0.5 for f in fields(Budget)})
    job = parse_job(text)
    assert job.schedule == Schedule()
    assert len(job.budget.limits()) == len(fields(Budget))


def test_the_demo_job_needs_no_files():
    with tempfile.TemporaryDirectory() as folder:
        job = demo_job().overriding(workdir=folder)
        assert {recipe.slug for recipe in job.recipe_objects()} >= {"none", "gecko", "dp_sgd", "int8"}
