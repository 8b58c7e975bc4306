"""Whether a file computes what its network computes: compared on random and extreme records when it is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from edgeward.backends.executable import Executable
from edgeward.core.errors import ModelError
from edgeward.graph.network import Network, Node
from edgeward.graph.semantics import apply

TIPPED = 4.0
"""How many times the mean effect of rounding by chance a file may deviate by."""
_FLOAT, _SIGN, _STEP = 1e-6, 1e-4, 0.05
_WORK, _DRAWS = 2e9, (2, 16)
Outputs: TypeAlias = list[np.ndarray]


@final
@dataclass(frozen=True)
class Rounding:
    """A value that a form keeps on a grid of 256 points: its step, and the ends of the grid."""

    step: float
    low: float
    high: float


def require_faithful(
    network: Network, executable: Executable, *, name: str, drift: float, rounded: Mapping[str, Rounding]
) -> None:
    """Refuse a file whose answers drift from those of the network it was written from.

    Args: `name` of the form; `drift` its declared error; `rounded` the values that the form rounds though the network
    keeps them in float, by name.
    Guarantee: on each kind of drawn record, every output differs on average by at most
    `drift` (1 + largest |output|) + 4 e, where e is the most that chance does to the network's own answers in 2 draws,
    and in 16 before a file is refused: every value moved by a millionth, inputs of quantised layers by a twentieth of a
    step and their biases by half a step of the products, inputs of binary layers by a ten-thousandth, `rounded` values
    by half a step. So a step that is tipped here and there passes, and a lost bias does not, unless it matters less
    than that. Records on which the network's own answers are not finite say nothing.
    Cost: three passes of the network and one of the file over 9 to 23 records, fewer the larger the network.
    Raises: `ModelError`.
    """
    for kind, records in probes(network).items():
        expected, found = _run(network, records, rounded), executable.run_all(records)
        # Few draws can miss a step that is tipped for all records at once: more are drawn before a file is refused.
        for draws in _DRAWS:
            chance = _chance(network, records, rounded, expected, draws)
            far = [_excess(theirs, ours, drift, e) for theirs, ours, e in zip(expected, found, chance, strict=True)]
            if not any(far):
                break
        else:
            place, allowed = next((place, each) for place, each in enumerate(far) if each)
            raise _unfaithful(name, kind, network.outputs[place], found[place], expected[place], allowed)


def _known(answers: np.ndarray) -> np.ndarray:
    """Mark the records whose answers are finite."""
    marks: np.ndarray = np.isfinite(answers).reshape(len(answers), -1).all(1)
    return marks


def _excess(theirs: np.ndarray, ours: np.ndarray, drift: float, chance: float) -> float:
    """Return what is allowed where an output differs by more, else 0."""
    known = _known(theirs)
    if not known.any():
        return 0.0
    error = np.abs(ours[known].astype(np.float64) - theirs[known]).mean(0)
    allowed = drift * (1 + float(np.abs(theirs[known]).max(initial=0))) + TIPPED * chance
    return 0.0 if bool((error <= allowed).all()) else allowed  # NaN is an excess


def _unfaithful(name: str, kind: str, output: str, ours: np.ndarray, theirs: np.ndarray, allowed: float) -> ModelError:
    known = _known(theirs)
    ours, theirs = ours[known], theirs[known]
    error = np.nan_to_num(np.abs(ours.astype(np.float64) - theirs).mean(0), nan=math.inf)
    worst = np.unravel_index(int(error.argmax()), error.shape)
    pairs = f"{ours[0][worst]:.6g} in place of {theirs[0][worst]:.6g}"
    return ModelError(
        f"the {name} file does not compute what the network computes",
        expected=f"a mean difference of at most {allowed:.3g} at every output, over {len(ours)} {kind} records",
        came=f"{error.max():.3g} at {output}{list(map(int, worst))}, for instance {pairs}",
        fix="ship the network in another form, and report this: the form or its runtime is at fault "
        "(8-bit products saturate on x86 processors without VNNI)",
    )


def probes(network: Network) -> dict[str, np.ndarray]:
    """Return records by kind, drawn with a fixed seed: float32 [n, ...input shape]."""
    shape = network.input_shape()
    count = int(np.clip(_WORK / max(_multiplications(network), 1), 2, 6))
    draw = np.random.default_rng(0)
    spike = np.zeros((1, math.prod(shape)))
    spike[0, draw.integers(spike.shape[1])] = 10.0
    alternating = np.where(np.arange(spike.shape[1]) % 2, 10.0, -10.0)[None]
    flat = [np.zeros_like(spike), spike, alternating, np.full_like(spike, 10.0), np.full_like(spike, -10.0)]
    found = {
        "normal": draw.standard_normal((count, *shape)),
        "uniform": draw.random((count, *shape)),
        "extreme": np.concatenate(flat).reshape(len(flat), *shape),
    }
    if (ends := _declared(network)) is not None:
        found["calibrated"] = draw.uniform(*ends, (count, *shape))
    return {kind: records.astype(np.float32) for kind, records in found.items()}


def _declared(network: Network) -> tuple[float, float] | None:
    """Return the range that a quantised layer declares for the network's input."""
    for node in network.consumers(network.inputs[0]):
        if _rounds(node):
            step, zero = (float(network.tensor(node, f"activation_{role}")) for role in ("scale", "zero_point"))
            return -zero * step, (2 ** int(node.attributes["activation_bits"]) - 1 - zero) * step
    return None


def _multiplications(network: Network) -> float:
    """Return about how many a record needs."""
    held = [(node, network.tensor(node, "weight")) for node in network.nodes if "weight" in node.tensors]
    return float(sum(network.values[node.output].elements * w.numel() / max(1, w.shape[0]) for node, w in held))


def _rounds(node: Node) -> bool:
    return node.operator.startswith("quantized_") and int(node.attributes["activation_bits"]) < 32


def _chance(
    network: Network, records: np.ndarray, rounded: Mapping[str, Rounding], expected: Sequence[np.ndarray], draws: int
) -> list[float]:
    """Return per output how far rounding by chance moves the network's answers: mean over records, largest of draws."""
    generator = torch.Generator().manual_seed(0)
    found = [0.0] * len(expected)
    for _ in range(draws):
        for place, moved in enumerate(_run(network, records, rounded, generator)):
            known = _known(expected[place])
            gap = np.nan_to_num(np.abs(moved - expected[place])[known])
            found[place] = max(found[place], float(gap.mean(0).max(initial=0)) if known.any() else 0.0)
    return found


def _run(
    network: Network,
    records: np.ndarray,
    rounded: Mapping[str, Rounding],
    generator: torch.Generator | None = None,
) -> Outputs:
    """Interpret the network, `rounded` values kept within their grids; with a generator, values moved by chance."""
    values = {network.inputs[0]: _kept(torch.from_numpy(records), rounded.get(network.inputs[0]), generator)}
    last = {value: node.name for node in network.nodes for value in node.inputs}
    with torch.no_grad():
        for node in network.nodes:
            held = {role: network.tensors[key] for role, key in node.tensors.items()}
            inputs = [_before(node, held, values[name], generator) for name in node.inputs]
            answer = apply(node, held, inputs, network.values[node.output].shape, len(records))
            answer = _on_grid(node, held, answer, generator)
            values[node.output] = _kept(answer, rounded.get(node.output), generator)
            for spent in set(node.inputs) - set(network.outputs):
                if last[spent] == node.name:
                    del values[spent]
    return [values[name].double().numpy() for name in network.outputs]


def _before(node: Node, held: Mapping[str, Tensor], x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Move what a layer is about to round."""
    if generator is None:
        return x
    if _rounds(node):
        return _moved(x, float(held["activation_scale"]) * _STEP, generator)
    return _moved(x, _SIGN * _largest(x), generator) if node.operator.startswith("binary_") else x


def _on_grid(node: Node, held: Mapping[str, Tensor], y: Tensor, generator: torch.Generator | None) -> Tensor:
    """Move the bias of a layer that rounds its inputs: runtimes of integers put it on the grid of the products."""
    if generator is None or not _rounds(node) or "bias" not in held:
        return y
    steps = held["weight_scale"].reshape(-1) * held["activation_scale"]
    moved = (torch.rand(steps.shape, generator=generator) - 0.5) * steps
    return y + (moved if node.operator == "quantized_linear" else moved.view(-1, 1, 1))


def _kept(x: Tensor, grid: Rounding | None, generator: torch.Generator | None) -> Tensor:
    """Keep a value within its grid, and move it."""
    x = x if grid is None else x.clamp(grid.low, grid.high)
    if generator is None or not x.is_floating_point():
        return x
    return _moved(x, _FLOAT * _largest(x) if grid is None else grid.step / 2, generator)


def _moved(x: Tensor, reach: float, generator: torch.Generator) -> Tensor:
    return x + (2 * torch.rand(x.shape, generator=generator) - 1) * reach


def _largest(x: Tensor) -> float:
    return float(x.abs().nan_to_num(posinf=0.0).max()) if x.numel() else 0.0
