"""Writes tiny job files, and reads a run's results without what the clock put into them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from edgeward.job.tables import toml_table, toml_value

SHAPES = {"0.weight": (8, 12), "0.bias": (8,), "2.weight": (8, 8), "2.bias": (8,), "4.weight": (3, 8), "4.bias": (3,)}
NET = """
from torch import nn

def make():
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
"""
TIMINGS = {"host_latency_seconds", "training_seconds", "evaluation_seconds", "time"}


def blobs(count: int = 240, shape: tuple[int, ...] = (12,), classes: int = 3, seed: int = 0):
    """Return records that a small net can learn: one random centre for each class, and noise."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, classes, count)
    centres = generator.normal(size=(classes, *shape))
    return (centres[y] + 0.7 * generator.normal(size=(count, *shape))).astype(np.float32), y.astype(np.int64)


def write_job(folder: Path, *, name: str = "job", **changes: Any) -> Path:
    """Write a complete tiny job with its net and records into `folder`; `changes` replace whole sections."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(NET)
    if not (folder / "records.npz").exists():
        x, y = blobs()
        np.savez(folder / "records.npz", x=x, y=y)
    job = {
        "recipes": ["none"],
        "model": {"source": "net.py:make"},
        "data": {"source": "records.npz"},
        "train": {"epochs": 2, "rate": 0.01, "batch": 32},
        "threat": {"threat": "membership", "shadows": 4, "canaries": 12, "kinds": ["mislabelled"]},
        **changes,
    }
    tables = {key: value for key, value in job.items() if isinstance(value, dict) and key != "threat"}
    lines = [f"{key} = {toml_value(value)}" for key, value in job.items() if not isinstance(value, dict)]
    blocks = ["\n".join(["schema = 1", *lines]) + "\n"]
    blocks += [toml_table(f"[{key}]", table) for key, table in tables.items()]
    blocks.append(toml_table("[[threats]]", job["threat"]))
    path = folder / f"{name}.toml"
    path.write_text("\n".join(blocks))
    return path


def write_weights(path: Path, **changed: np.ndarray) -> Path:
    """Write weights that fit the net of `write_job`."""
    generator = np.random.default_rng(1)
    state = {key: generator.normal(size=shape).astype(np.float32) for key, shape in SHAPES.items()}
    save_file({**state, **{key.replace("_", "."): value for key, value in changed.items()}}, path)
    return path


def untimed(value: Any) -> Any:
    """Return plain JSON without the numbers that the clock makes."""
    if isinstance(value, dict):
        return {key: untimed(item) for key, item in value.items() if key not in TIMINGS}
    return [untimed(item) for item in value] if isinstance(value, list) else value


def outcome(run: Path) -> dict[str, Any]:
    """Return what a run found: every candidate, the choice, the failures."""
    report = json.loads((run / "report.json").read_text())
    return untimed({key: report[key] for key in ("candidates", "chosen", "failed", "finished")})


def leftovers(folder: Path) -> list[str]:
    """Return what a run that could not start must not leave behind."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix == ".partial" or path.name in ("bundle", "report.json", "report.html", "CARD.md", "candidates")
    )
