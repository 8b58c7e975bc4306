"""A realistic report of a mirror run that never happened, built from the types that make real ones."""

from __future__ import annotations

from typing import Any

from edgeward.backends.tee.assets import one_way_split
from edgeward.core import Estimate
from edgeward.report.splits import split_report

BUDGETS = (50, 500, 5000)
BLACK_BOX, NO_SHIELD = (0.31, 0.55, 0.74), (0.90, 0.91, 0.92)
# name, authorised accuracy, direct accuracy, stealing ratio per budget, secure RAM in bytes, overhead
SPLITS = (
    ("narrow", 0.889, 0.705, (1.31, 1.22, 1.09), 96 * 1024, 0.004),
    ("wide", 0.912, 0.702, (1.04, 1.01, 1.00), 610 * 1024, 0.009),
    ("deep, no answer", 0.915, None, (1.01, 1.00, 1.00), 3_400_000, 0.42),
)
QUESTIONS = ("Which assets, against whom?", "Are secure weights never in clear outside?", "Is rollback refused?")


def proportion(share: float, trials: int = 2000) -> dict[str, Any]:
    return Estimate.proportion(round(share * trials), trials).to_json()


def ratio(value: float) -> dict[str, Any]:
    return Estimate(value, value - 0.03, value + 0.03, 6000, "bootstrap").to_json()


def theft(i: int, times: float) -> dict[str, Any]:
    stolen = BLACK_BOX[i] * times
    return {
        "budget": BUDGETS[i],
        "attack": "head on taps" if times > 1.01 else "black box, fine-tuned",
        "rate": 0.001,
        "validation": stolen,
        "accuracy": proportion(stolen),
        "fidelity": proportion(stolen + 0.02),
        "black_box": proportion(BLACK_BOX[i]),
        "no_shield": proportion(NO_SHIELD[i]),
        "ratio_to_black_box": ratio(times),
        "ratio_to_no_shield": ratio(stolen / NO_SHIELD[i]),
        "passes": times <= 1.05,
        "tried": [{"variant": "fine-tuned", "rate": 0.001, "validation": stolen, "likelihood": -1.0}],
    }


def stealing(name: str, direct: float | None, times: tuple[float, ...], authorised: float) -> dict[str, Any]:
    held = max(times) <= 1.05
    return {
        "name": name,
        "verdict": f"{'confidential' if held else 'not confidential'}: at most {max(times):.2f} times the black box",
        "confidential": held,
        "bar": 1.05,
        "victim_accuracy": proportion(authorised),
        "direct_accuracy": None if direct is None else proportion(direct),
        "direct_reason": "" if direct is not None else "the part outside gives no answer of its own",
        "gap": None if direct is None else authorised - direct,
        "budgets": [theft(i, value) for i, value in enumerate(times)],
        "membership": None if direct is None else membership(),
        "membership_reason": "" if direct is not None else "the part outside gives no answer of its own",
        "recovered": None,
        "recovery": [],
        "attacker": {"epochs": 30, "steps": 200, "rates": [0.003, 0.001], "variants": ["as it is", "fine-tuned"]},
        "seeds": 3,
        "victim_queries": 5550,
        "trusted_disguises": 0,
        "notes": ["at 50 queries only 30 of the attackers' records choose the attack"],
    }


def membership() -> dict[str, Any]:
    auc = Estimate(0.512, 0.49, 0.534, 4000, "hanley-mcneil").to_json()
    return {"name": "gap", "auc": auc, "positives": 2000, "negatives": 2000}


def modelled(size: int, overhead: float) -> dict[str, Any]:
    return {
        "basis": "assumed",
        "definition": "(T - T_normal) / T_normal; T_normal: the unprotected network alone in the normal world",
        "transfer": "stream",
        "seconds_normal": 0.0310,
        "seconds_total": 0.0310 * (1 + overhead),
        "period_seconds": 0.0305,
        "overhead": overhead,
        "switches": 3,
        "bytes": 12_544,
        "secure_ram_bytes": size,
        "secure_ram_limit": 7_549_747,
        "memory_overhead": 0.2,
        "fits": True,
        "seconds": {"normal": 0.03, "handover": 1e-5, "switch": 4e-5, "memref": 2e-5, "copy": 3e-5, "secure": 2e-3},
        "instructions": {"switch": 52_000.0, "copy": 5_143.0, "memref": 22_200.0, "secure": 9_400_000.0},
        "ram": {"weights": size - 60_000, "arena": 2_656, "stack": 16_384, "code": 40_960},
        "saved": {"work": 8e-4, "calls": 2e-4},
        "sources": ["derived: rates of the profile 'rpi3-optee'", "measured: secure operators, counted instructions"],
    }


def split(name: str, authorised: float, direct: float | None, times: tuple[float, ...], size: int, over: float) -> Any:
    stolen = stealing(name, direct, times, authorised)
    return {
        "name": name,
        "describe": "public stream replace: 1 pw 8, 2 pw 16",
        "strategy": {"name": name, "preset": "public", "blocks": [{"stage": 1, "kind": "pw", "width": 8, "pool": 1}]},
        "authorised_accuracy": proportion(authorised),
        "traffic": {"one_way": True, "switches": 3, "bytes": 12_544, "returned_bytes": 4},
        "modelled": modelled(size, over),
        "stealing": stolen,
        "verdict": stolen["verdict"],
        "confidential": stolen["confidential"],
        "assets": one_way_split().to_json(),
        "checklist": [
            {"key": f"R{i + 1}", "question": text, "answer": "not provided" if i == 2 else "stated", "by": "the matrix"}
            for i, text in enumerate(QUESTIONS)
        ],
    }


def make_split_report(**changes: Any) -> dict[str, Any]:
    """Build the report; `changes` replace its fields."""
    report = {
        "schema": "edgeward.mirror/1",
        "edgeward": "0.1.0",
        "command": "edgeward mirror net:resnet --data  cifar10 --device rpi3-optee",
        "device": "rpi3-optee",
        "seed": 0,
        "data": "cifar10",
        "limits": {"secure_ram": 8 * 2.0**20, "overhead": 0.01, "switches": 8},
        "victim_accuracy": proportion(0.921),
        "largest_drop": 0.02,
        "budgets": list(BUDGETS),
        "public_prior": True,
        "splits": [split(*each) for each in SPLITS],
        "chosen": "wide",
        "choice": "the least stolen of 1 within the limits of device and accuracy",
        "environment": {"python": "3.11.9", "torch": "2.13.0", "cpu": "x86-64, 2 cores", "threads": 1},
        **changes,
    }
    return split_report(report)


KEPT = frozenset({"schema", "asset", "phase", "adversary", "status", "answer", "transfer", "chosen"})


def poisoned_split(value: Any, text: str, key: str = "") -> Any:
    """Return `value` with every free text replaced by hostile `text`; names of splits keep a number apart."""
    if isinstance(value, dict):
        return {k: poisoned_split(item, text, k) for k, item in value.items()}
    if isinstance(value, list):
        return [poisoned_split(item, text, key) for item in value]
    return text if isinstance(value, str) and key not in KEPT else value


def hostile_report(text: str) -> dict[str, Any]:
    """Return a valid report all of whose free texts are hostile."""
    report = poisoned_split(make_split_report(), text)
    for i, each in enumerate(report["splits"]):
        each["name"] = f"{text}{i}"
    return split_report({**report, "chosen": f"{text}1"})
