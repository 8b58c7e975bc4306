"""`InstructionModel`: instructions of each generated operator as a linear function of its shape, fitted to counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, final

import numpy as np

from edgeward.backends.tee.secure_steps import SecureStep, pieces
from edgeward.core.errors import ConfigError
from edgeward.devices import Basis, SecureWorldProfile, weakest

COPY = "copy"
"""The entry of the trusted application's copy between worlds: instructions per byte and per call."""

TILE, LANES, HALF = 4, 16, 8
"""The kernels' tile of pixels x channels, the elements of one vector, and of half a vector."""

_BLOCKED = frozenset({"depthwise", "max_pool2d", "avg_pool2d", "global_avg_pool"})


def kernel(step: SecureStep) -> str:
    """Return what a step is fitted with: its operator; grouped convolutions and factors per channel apart."""
    if step.operator == "mul" and step.inputs < 2 * step.outputs:
        return "gate"
    return "grouped" if step.groups > 1 else step.operator


def features(step: SecureStep) -> dict[str, float]:
    """Return what the count of a step is linear in: how often each loop body of its kernel runs, and 1 per call.

    Products run in vectors of 16 over tiles of 4 pixels x 4 channels, with narrower tiles at the edges and a scalar
    path for short rows; windows are gathered into rows; blocks of 16 channels serve pools and depthwise.
    """
    if step.operator in ("conv2d", "linear"):
        found = _products(step)
    elif step.operator in _BLOCKED:
        found = _blocks(step)
    else:
        found = {"outputs": step.outputs, "inputs": step.inputs, "pixels": step.pixels}
        found |= {"copies": step.whole_rows, "pieces": step.single_taps}
        if step.operator == "mul":
            vectors, tail = divmod(step.channels, HALF)
            found |= {"vectors": step.pixels * vectors, "tails": step.pixels * tail}
    return {**{name: float(value) for name, value in found.items()}, "calls": 1.0}


def _products(step: SecureStep) -> dict[str, float]:
    quads, pixels = divmod(step.pixels, TILE)
    wide, narrow = divmod(step.channels // step.groups, TILE)
    found: dict[str, float] = {"pixels": step.pixels * step.groups}
    if step.window > 1:
        width = step.depth // step.window
        rows = 0 if step.groups > 1 else step.whole_rows
        single = (step.single_taps + (step.whole_rows - rows) * round(step.window**0.5)) * step.groups
        found |= {"row copies": rows, "row pieces": rows * pieces(width * step.window**0.5)}
        found |= {"tap copies": single, "tap pieces": single * pieces(width)}
    if step.depth < LANES:
        whole = quads * TILE if step.depth >= HALF else 0
        short = (step.pixels - whole) * step.channels
        found |= {"short products": short * step.depth, "short outputs": short}
        found |= {"half tiles": whole // TILE * wide * step.groups, "half narrow": whole // TILE * narrow * step.groups}
        return found
    vectors = -(-step.depth // LANES) * step.groups
    found |= {"tiles": quads * wide * vectors, "narrow tiles": quads * narrow * vectors}
    found |= {"rows": pixels * wide * vectors, "dots": pixels * narrow * vectors}
    found |= {"wide stores": step.pixels * step.groups * wide, "narrow stores": step.pixels * step.groups * narrow}
    return found


def _blocks(step: SecureStep) -> dict[str, float]:
    positions, found = step.pixels * step.window, {"pixels": float(step.pixels), "inside": float(step.inside)}
    if step.channels >= LANES:
        blocks, tail = divmod(step.channels, LANES)
        found |= {"block positions": positions * blocks, "blocks": step.pixels * blocks}
        found |= {"border positions": (step.pixels - step.inside) * step.window * (blocks + bool(tail))}
        return found | {"last positions": positions * bool(tail), "last elements": positions * tail}
    if step.channels >= HALF:
        found |= {"half border positions": (step.pixels - step.inside) * step.window}
        found |= {"half positions": positions, "half elements": positions * (step.channels - HALF)}
        return found | {"halves": step.pixels}
    return found | {"few positions": positions, "few products": positions * step.channels, "few": step.outputs}


@final
@dataclass(frozen=True)
class InstructionModel:
    """Instructions per loop body and operator, all of them at least 0, and where they come from.

    Guarantee: modelled; `error` is the mean relative error over the single operators it was fitted to.
    """

    coefficients: Mapping[str, Mapping[str, float]]
    basis: Basis
    source: str
    error: float | None = None
    samples: int = 0
    per_operator: Mapping[str, float] = field(default_factory=dict)

    def instructions(self, step: SecureStep) -> float:
        """Return the modelled instructions of one step for one record."""
        known = self.coefficients.get(kernel(step)) or self.coefficients.get(step.operator) or self.coefficients["add"]
        return sum(known.get(name, 0.0) * value for name, value in features(step).items())

    def copying(self, byte_count: float, calls: int) -> float | None:
        """Return the modelled instructions of `calls` copies, `byte_count` bytes in all; None where not calibrated."""
        known = self.coefficients.get(COPY)
        return None if known is None else known["bytes"] * byte_count + known["calls"] * calls

    def total(self, steps: Sequence[SecureStep]) -> float:
        """Return the modelled instructions of all steps."""
        return sum(self.instructions(step) for step in steps)

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        plain = dict(vars(self))
        plain["coefficients"] = {name: dict(row) for name, row in self.coefficients.items()}
        plain["per_operator"] = dict(self.per_operator)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> InstructionModel:
        """Read back what `to_json` wrote. Raises: `ConfigError`."""
        try:
            return cls(**plain)
        except TypeError as error:
            raise ConfigError(
                "this is not an instruction model", expected="what `to_json` writes", came=str(error)
            ) from None


def fit(
    steps: Sequence[SecureStep], counts: Sequence[float], source: str, copy: Mapping[str, float] | None = None
) -> InstructionModel:
    """Fit one non-negative linear model per operator to counted instructions, least squares of the relative error.

    `copy` are the instructions of a copy per "bytes" and per "calls".
    """
    from scipy.optimize import nnls

    coefficients: dict[str, Mapping[str, float]] = {COPY: dict(copy)} if copy else {}
    errors: list[float] = []
    per_operator = {}
    for operator in sorted({kernel(step) for step in steps}):
        chosen = [(features(s), c) for s, c in zip(steps, counts, strict=True) if kernel(s) == operator]
        names = tuple(dict.fromkeys(name for row, _ in chosen for name in row))
        design = np.array([[row.get(name, 0.0) / count for name in names] for row, count in chosen])
        found, _ = nnls(design, np.ones(len(chosen)))
        coefficients[operator] = {name: float(value) for name, value in zip(names, found, strict=True)}
        relative = np.abs(design @ found - 1)
        errors += relative.tolist()
        per_operator[operator] = float(relative.mean())
    return InstructionModel(coefficients, "measured", source, float(np.mean(errors)), len(steps), per_operator)


def calibrated() -> InstructionModel | None:
    """Return the model fitted to counted aarch64 instructions of the shipped kernels; None where none was stored."""
    stored = files("edgeward.backends.tee") / "instructions.json"
    return InstructionModel.from_json(json.loads(stored.read_text(encoding="utf-8"))) if stored.is_file() else None


def from_profile(world: SecureWorldProfile) -> InstructionModel:
    """Return the coarse model of a device profile: its instructions per MAC and per element."""
    rates = world.instructions_per_mac
    gemm, depthwise, element = (rates[name].value for name in ("gemm", "depthwise", "elementwise"))
    tile = gemm * TILE * LANES
    products = {"tiles": tile * TILE, "narrow tiles": tile, "rows": tile, "dots": gemm * LANES}
    products |= {"half tiles": tile * TILE, "half narrow": tile, "short products": 4 * gemm}
    products |= {
        "wide stores": element * TILE,
        "narrow stores": element,
        "row pieces": float(LANES),
        "tap pieces": float(LANES),
    }
    blocks = {"block positions": depthwise * LANES, "last elements": depthwise, "few products": depthwise}
    blocks |= {"half positions": depthwise * HALF, "half elements": depthwise, "blocks": element * LANES}
    blocks |= {"halves": element * HALF, "few": element}
    table: dict[str, Mapping[str, float]] = {
        "conv2d": products,
        "linear": products,
        **{name: dict(blocks) for name in _BLOCKED},
        **{name: {"outputs": element} for name in ("add", "mul", "lookup", "argmax")},
        **{name: {"outputs": 1.0} for name in ("concat", "shortcut")},
    }
    basis = weakest(rates.values())
    return InstructionModel(table, basis, "instructions per MAC and element of the device profile")
