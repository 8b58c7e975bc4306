"""A realistic report of a run that never happened, built from core types; other rooms' tests may use it."""

from __future__ import annotations

import math
from typing import Any

from edgeward.core import AttackResult, Budget, Candidate, Claim, Cost, Estimate, Frontier, LayerCost, Measurement
from edgeward.core.frontier import Measured
from edgeward.core.measurement import Strongest
from edgeward.report import build_report

NEGATIVES = 1600
# recipe, settings, test accuracy, leakage (TPR at 1 % FPR), AUC, file bytes, device latency, bits of the inner weights
RUNS = (
    ("none", {}, 0.968, 0.312, 0.902, 52_310, 0.0041, 32),
    ("early_stop", {"patience": 3}, 0.961, 0.148, 0.771, 52_310, 0.0041, 32),
    ("prune_retrain", {"sparsity": 0.9}, 0.955, 0.121, 0.742, 20_874, 0.0038, 32),
    ("int8", {"weight_bits": 8, "activation_bits": 8}, 0.967, 0.301, 0.897, 14_620, 0.0012, 8),
    ("gecko:paper", {"alpha": 0.9, "temperature": 4.0}, 0.938, 0.041, 0.602, 6_212, 0.0009, 1),
    ("gecko:crossfit", {"alpha": 0.9, "folds": 4}, 0.951, 0.019, 0.548, 6_212, 0.0009, 1),
    ("dp_sgd", {"epsilon": 8.0, "delta": 1e-4, "clip": 1.0}, 0.874, 0.012, 0.512, 52_310, 0.0041, 32),
)
LAYERS = (("features.0", "conv2d", (16, 28, 28)), ("features.3", "conv2d", (32, 14, 14)), ("head", "linear", (10,)))


def roc(tpr: float, auc: float) -> tuple[tuple[float, float], ...]:
    """A concave curve from (0, 0) to (1, 1) through (0.01, tpr)."""
    power = min(1.0, math.log(max(tpr, 0.0101)) / math.log(0.01))
    steps = [10 ** (-3.2 + 3.2 * i / 16) for i in range(17)]
    return ((0.0, 0.0), *((x, min(1.0, x**power)) for x in steps))


def attack(name: str, tpr: float, auc: float, kind: str = "mislabelled") -> AttackResult:
    small = round(tpr * 0.3 * NEGATIVES)
    return AttackResult(
        name=name,
        auc=Estimate(auc, max(0.0, auc - 0.02), min(1.0, auc + 0.02), 2 * NEGATIVES, "hanley-mcneil"),
        balanced_accuracy=0.5 + 0.4 * (auc - 0.5),
        tpr_at_1pct=Estimate.proportion(round(tpr * NEGATIVES), NEGATIVES),
        tpr_at_0_1pct=Estimate.proportion(small, NEGATIVES),
        positives=NEGATIVES,
        negatives=NEGATIVES,
        realistic_tpr_at_1pct=0.9 * tpr,
        realistic_fpr=0.011,
        roc=roc(tpr, auc),
        kind=kind,
        realistic_balanced_accuracy=0.5 + 0.35 * (auc - 0.5),
    )


def strongest(kind: str, name: str, tpr: float) -> Strongest:
    return Strongest(name, tpr, Estimate.proportion(round(tpr * NEGATIVES), NEGATIVES), 3, kind)


def layers(bits: int) -> tuple[LayerCost, ...]:
    rows = []
    for i, (name, operator, shape) in enumerate(LAYERS):
        inner = bits if 0 < i < len(LAYERS) - 1 or bits == 8 else 32
        macs, weights = (112_896, 903_168, 15_680)[i], (144, 4_608, 15_680)[i]
        rows.append(
            LayerCost(name, operator, shape, macs, inner, inner, weights * inner / 8, float(macs * inner * inner))
        )
    return tuple(rows)


def cost(size: int, latency: float, bits: int) -> Cost:
    made = Cost().adding("declared", "layer graph", parameters=20_432, macs=1_031_744)
    made = made.adding("measured", "file on disk", file_bytes=size)
    made = made.adding("modelled", "profile cortex-m7, derived", device_latency_seconds=latency, peak_ram_bytes=25_088)
    made = made.adding("modelled", "profile cortex-m7, pJ/MAC", energy_joules=latency * 0.12)
    made = made.adding("measured", "this host, median of 50", host_latency_seconds=latency / 40, training_seconds=41.0)
    if bits == 1:
        made = made.adding("declared", "packed file", binary_weights=4_608, binary_weight_bytes=592)
    return made


def claims(recipe: str) -> tuple[Claim, ...]:
    found = [
        Claim(
            "training records",
            "black-box, confidences",
            "no attack listed finds more members at 1 % FPR than the strongest row says",
            "measured",
            "canary audit, 16 models",
        ),
        Claim(
            "budget",
            "nobody: physics",
            "the file, RAM and latency limits hold on the profile",
            "assumed",
            "device profile",
        ),
    ]
    if recipe == "dp_sgd":
        statement = "(8.0, 1e-4)-differential privacy per record, add/remove"
        found.append(Claim("training records", "any, sees the weights", statement, "proved", "RDP accountant, Poisson"))
    return tuple(found)


def measured(run: tuple[Any, ...]) -> Measured:
    recipe, config, accuracy, tpr, auc, size, latency, bits = run
    right = round(accuracy * 3000)
    measurement = Measurement(
        test_accuracy=Estimate.proportion(right, 3000),
        validation_accuracy=Estimate.proportion(round(accuracy * 600), 600),
        train_accuracy=Estimate.proportion(round(min(1.0, accuracy + 0.03) * 5400), 5400),
        audit_accuracy=Estimate(accuracy - 0.01, accuracy - 0.016, accuracy - 0.004, 16, "t over siblings"),
        attacks=(
            *(attack("lira:online", tpr, auc), attack("rmia", 0.9 * tpr, auc - 0.01), attack("gap", 0.011, 0.53)),
            *(attack("lira:online", tpr / 3, auc - 0.05, "natural"), attack("gap", 0.011, 0.51, "natural")),
        ),
        cost=cost(size, latency, bits),
        layers=layers(bits),
        claims=claims(recipe),
        mode="host",
        notes=("Batch norm was folded before export.",),
        extra={
            "runtime": "packed" if bits == 1 else "onnxruntime",
            "untested": ["white-box attacks that read weights", "robustness to adversarial inputs"],
            **({"epsilon": config["epsilon"], "accountant": "rdp"} if recipe == "dp_sgd" else {}),
        },
        kinds=(strongest("mislabelled", "lira:online", tpr), strongest("natural", "lira:online", tpr / 3)),
        worst=strongest("mislabelled", "lira:online", tpr),
    )
    return Measured(Candidate(recipe, config, {"seed": 0}), measurement)


def frontier(budget: Budget | None = None, runs: tuple[tuple[Any, ...], ...] = RUNS) -> Frontier:
    limits = budget or Budget(file_bytes="64KiB", latency="20ms", accuracy=0.85, tpr_at_1pct="5%", peak_ram="64KiB")
    return Frontier(tuple(measured(run) for run in runs), limits)


def make_report(budget: Budget | None = None, **changes: Any) -> dict[str, Any]:
    """Build the report; `changes` replace arguments of `build_report`."""
    arguments: dict[str, Any] = {
        "frontier": frontier(budget),
        "job": {
            "model": {"net": "small_cnn", "classes": 10},
            "data": {"source": "digits", "canaries": 200},
            "device": "cortex-m7",
            "seed": 0,
            "recipes": [run[0] for run in RUNS],
            "schedule": {"epochs": 30, "batch_size": 128},
        },
        "environment": {"python": "3.11.9", "torch": "2.13.0", "cpu": "x86-64, 2 cores", "threads": 1},
        "data": {
            "name": "digits",
            "classes": 10,
            "counts": {"train": 5400, "validation": 600, "holdout": 3000, "shadow": 900, "canaries": 200},
            "digest": "9f2c4ab07d11e0aa",
            "notes": ["12 duplicate rows were dropped before splitting"],
        },
        "device": {"name": "cortex-m7", "title": "Cortex-M7 at 280 MHz (NUCLEO-H7A3ZI)", "ram_bytes": 1_441_792},
        "threats": [{"threat": "membership", "shadows": 16, "canaries": 200, "access": "confidence"}],
        "failed": [{"recipe": "ternary", "reason": "layer head: 3-level weights have no place in the packed format"}],
        "command": "edgeward protect digits.toml --seed 0",
        "finished": True,
        **changes,
    }
    return build_report(**arguments)


ENUM_KEYS = frozenset({"schema", "mode", "kind", "asset", "basis", "id", "chosen"})


def poisoned(value: Any, text: str, key: str = "", *, keys: bool = False) -> Any:
    """Return `value` with every free text, and inside free tables every key, replaced by hostile `text`."""
    free = keys or key in {"job", "environment", "device", "config", "extra", "counts"}
    if isinstance(value, dict):
        names = {k: f"{text}{i}" if free else k for i, k in enumerate(value)}
        kept = {"name", "title"} if key == "device" else set()
        return {k if k in kept else names[k]: poisoned(item, text, k, keys=free) for k, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, text, key, keys=keys) for item in value]
    return text if isinstance(value, str) and (keys or key not in ENUM_KEYS) else value
