"""Model loading: every form works, and every bad input is one ModelError or ConfigError."""

import contextlib
import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from edgeward.core.errors import ConfigError, EdgewardError, ModelError
from edgeward.core.randomness import Seed
from edgeward.load import load_model, read_state
from edgeward.load.archive import read_archive
from edgeward.load.weights import mismatches
from edgeward.train.population import build

SOURCE = """
from torch import nn

def build(width=3, depth=1):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

def number():
    return 3

def broken():
    raise KeyError("no")
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def small():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def exported(path: Path) -> Path:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 36, 3)).eval()
    batch = {0: torch.export.Dim("batch")}
    torch.export.save(torch.export.export(module, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=(batch,)), path)
    return path


def test_a_fixed_batch_says_how_to_export(tmp_path):
    program = torch.export.export(nn.Linear(4, 2), (torch.zeros(2, 4),))
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="dynamic_shapes"):
        load_model(str(tmp_path / "m.pt2"))


def rewritten(source: Path, target: Path, change) -> Path:
    """Copy a zip archive, passing each entry's bytes through `change(name, content)`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return target


def test_a_file_gives_fresh_modules(source):
    factory = load_model(f"{source}:build", arguments={"width": 5})
    first, second = factory(), factory()
    assert first[0].out_features == 5
    assert not torch.equal(first[0].weight, second[0].weight)


def test_relative_paths_start_at_root(source):
    assert isinstance(load_model("net.py:build", root=source.parent)(), nn.Sequential)


def test_an_importable_function():
    assert isinstance(load_model("torch.nn:Linear", arguments={"in_features": 2, "out_features": 1})(), nn.Linear)


def test_a_registered_net_with_arguments():
    module = load_model("net:mlp?features=64&hidden=[8,4]&classes=10")()
    assert module(torch.zeros(2, 64)).shape == (2, 10)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("net.py:biuld", "did you mean 'build'"),
        ("net.py:number", "nn.Module"),
        ("net.py:broken", "KeyError"),
        ("absent.py:build", "executes that file"),
        ("no_such_package_here:f", "cannot be imported"),
        ("nonsense", "names no model"),
        ("net:mlpp", "did you mean 'mlp'"),
        ("net:mlp?featurs=3", "did you mean 'features'"),
        ("net:mlp?features", "key=value"),
        ("absent.pt2", "no file"),
    ],
)
def test_a_bad_spec_says_what_to_do(source, spec, words):
    with pytest.raises((ModelError, ConfigError)) as caught:
        load_model(spec, root=source.parent)
    assert words in str(caught.value)


def test_a_file_that_raises_names_its_line(tmp_path):
    (tmp_path / "bad.py").write_text("x = 1\n1 / 0\n")
    with pytest.raises(ModelError, match=r"bad\.py, line 2"):
        load_model("bad.py:build", root=tmp_path)


def test_unknown_arguments_are_listed_together(source):
    with pytest.raises(ConfigError) as caught:
        load_model("net.py:build", root=source.parent, arguments={"widht": 3, "colour": 1})
    assert "'widht' is unknown; did you mean 'width'?" in str(caught.value)
    assert "'colour'" in str(caught.value)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_load(tmp_path, source, small, wrap, prefix):
    state = {prefix + key: value for key, value in small.state_dict().items()}
    torch.save(wrap(state), tmp_path / "w.pt")
    module = load_model("net.py:build", root=source.parent, weights=tmp_path / "w.pt")()
    assert torch.equal(module[0].weight, small[0].weight)


def test_safetensors_load(tmp_path, source, small):
    save_file(small.state_dict(), tmp_path / "w.safetensors")
    module = load_model("net.py:build", root=source.parent, weights=Path("w.safetensors"))()
    assert torch.equal(module[2].bias, small[2].bias)


def test_every_mismatch_is_listed(small):
    state = small.state_dict()
    state["0.weight"] = torch.zeros(9, 9)
    state["2.weight"] = torch.full_like(state["2.weight"], float("nan"))
    state["extra"] = state.pop("0.bias")
    assert mismatches(small, state) == [
        "NaN or infinity in 2.weight",
        "missing: 0.bias",
        "shape of 0.weight: expected [3, 4], came [9, 9]",
        "unexpected: extra",
    ]


def test_weights_that_do_not_fit_are_one_error(tmp_path, source):
    save_file({"0.weight": torch.zeros(3, 4)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"missing: 0\.bias") as caught:
        load_model("net.py:build", root=source.parent, weights=tmp_path / "w.safetensors")
    assert "missing: 2.weight" in str(caught.value)


class Planted:
    """Runs when unpickled without restriction."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    trace = tmp_path / "ran"
    torch.save({"state_dict": Planted(str(trace))}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Planted(str(trace))))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(ModelError):
            read_state(tmp_path / name)
    assert not trace.exists()


def test_a_whole_module_is_refused_with_the_way_out(tmp_path, small):
    torch.save(small, tmp_path / "m.pt")
    with pytest.raises(ModelError, match="save_file"):
        read_state(tmp_path / "m.pt")


def test_entries_that_are_no_tensors_are_named(tmp_path):
    torch.save({"epoch": 3, "weight": torch.zeros(2)}, tmp_path / "c.pt")
    with pytest.raises(ModelError, match="epoch"):
        read_state(tmp_path / "c.pt")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["w.pt", "w.safetensors"]))
def test_damaged_weights_are_a_model_error(tmp_path, data, kind):
    state = {"a": torch.arange(6.0), "b": torch.ones(2, 2)}
    path = tmp_path / kind
    if kind == "w.pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    content = bytearray(path.read_bytes())
    cut = data.draw(st.integers(0, len(content)))
    flips = data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4))
    for position, value in flips:
        content[position] = value
    path.write_bytes(bytes(content[:cut]))
    with contextlib.suppress(ModelError):
        read_state(path)


def test_an_exported_program_becomes_a_trainable_net(tmp_path):
    path = exported(tmp_path / "m.pt2")
    x = torch.rand(3, 1, 8, 8)
    wanted = torch.export.load(path).module()(x[:2])
    kept = build(load_model(str(path), keep=True), Seed(0)).eval()
    torch.testing.assert_close(kept(x[:2]), wanted, atol=1e-5, rtol=1e-5)
    fresh = build(load_model(str(path)), Seed(0))
    assert not torch.allclose(fresh.eval()(x[:2]), wanted, atol=1e-3)
    fresh.train()(x).sum().backward()
    assert all(p.grad is not None for p in fresh.parameters())


def hostile(kind: str, trace: str):
    def change(name: str, content: bytes) -> bytes:
        if kind == "sample inputs" and "sample_inputs" in name:
            return pickle.dumps(Planted(trace))
        if kind == "weights" and name.endswith("weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        if kind == "weights" and name.endswith("weights/weight_0"):
            return pickle.dumps(Planted(trace))
        if kind == "constants" and name.endswith("constants_config.json"):
            meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
            return json.dumps({"config": {"x": meta}}).encode()
        if kind == "operator" and name.endswith("model.json"):
            return content.replace(b"torch.ops.aten.relu.default", b"torch.os.system")
        return content

    return change


@pytest.mark.parametrize("kind", ["sample inputs", "weights", "constants", "operator"])
def test_a_hostile_archive_runs_nothing(tmp_path, kind):
    trace = tmp_path / "ran"
    path = rewritten(exported(tmp_path / "m.pt2"), tmp_path / "evil.pt2", hostile(kind, str(trace)))
    with pytest.raises(ModelError, match="refused"):
        read_archive(path)
    assert not trace.exists()


def test_guards_of_an_archive_are_dropped(tmp_path):
    trace = tmp_path / "ran"

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("model.json"):
            return content
        document = json.loads(content)
        document["guards_code"] = [f"open({str(trace)!r}, 'w')"]
        return json.dumps(document).encode()

    path = rewritten(exported(tmp_path / "m.pt2"), tmp_path / "evil.pt2", change)
    read_archive(path).module()(torch.zeros(2, 1, 8, 8))
    assert not trace.exists()


@pytest.mark.parametrize("text", ["9**9**9", "__import__('os')", "s0.__class__", "[x for x in ()]"])
def test_size_expressions_are_plain_arithmetic(tmp_path, text):
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("model.json"):
            return content
        document = json.loads(content)
        document["graph_module"]["planted"] = {"expr_str": text}
        return json.dumps(document).encode()

    path = rewritten(exported(tmp_path / "m.pt2"), tmp_path / "evil.pt2", change)
    with pytest.raises(ModelError, match="refused"):
        read_archive(path)


def test_damaged_archives_are_a_model_error(tmp_path):
    content = exported(tmp_path / "m.pt2").read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.pt2").write_bytes(content[:size])
        with pytest.raises(EdgewardError):
            read_archive(tmp_path / "cut.pt2")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/models/model.json", "{}")
    (tmp_path / "empty.pt2").write_bytes(buffer.getvalue())
    with pytest.raises(ModelError):
        read_archive(tmp_path / "empty.pt2")
