"""`capture`: an `nn.Module` becomes a `Network`."""

from __future__ import annotations

import copy
import inspect
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from edgeward.core.errors import ModelError
from edgeward.graph.attention import straighten
from edgeward.graph.network import Network
from edgeward.graph.program import capture_program

_DATA_DEPENDENT = ("data-dependent", "DataDependent", "Tensor.item", "_local_scalar_dense", "dynamic control flow")
_BATCH = ("ConstraintViolation", "constraint", "specialized", "Constraints violated")


def capture(module: nn.Module, input_shape: tuple[int, ...] | tuple[tuple[int, ...], ...]) -> Network:
    """Capture the eval-mode forward pass of `module` as a typed layer graph.

    Shapes: `input_shape` is that of one record, without the batch axis; a tuple of shapes for a module that takes
    several tensors, whose values are called "input_0", "input_1", ... Every value of the graph counts its shape per
    record; a module that returns a tuple (early exits) gives several outputs in order.

    Guarantee: `module` is not changed (a copy is traced, in eval mode, in float32 on the CPU), and the network owns its
    tensors. Tensors computed from the state only (a masked weight) are evaluated once and forbid `with_tensors`.
    Cost: one copy of the weights, one forward pass on two records, one `torch.export`.

    Raises: `UnsupportedOperators` listing all operators without a place; `ModelError` when the module does not run on
    the shape, branches on data, mixes records, or changes its state at inference.

    >>> network = capture(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))
    >>> [(node.operator, network.values[node.output].shape) for node in network.nodes]
    [('reshape', (4,)), ('linear', (2,))]
    """
    traced = _copied(module)
    shapes = _check_arguments(module, input_shape)
    # Random records: zeros would hide a branch on data that happens to be taken at zero.
    generator = torch.Generator().manual_seed(0)
    records = tuple(torch.randn((2, *shape), generator=generator) for shape in shapes)
    _try_out(traced, records)
    straighten(traced)
    return capture_program(_exported(traced, records), several=_several(input_shape))


def _several(input_shape: object) -> bool:
    return isinstance(input_shape, tuple | list) and bool(input_shape) and isinstance(input_shape[0], tuple | list)


def _check_arguments(module: object, input_shape: Any) -> tuple[tuple[int, ...], ...]:
    """Return the shape of each input."""
    shapes = tuple(input_shape) if _several(input_shape) else (input_shape,)
    extents = all(isinstance(s, tuple | list) and all(isinstance(e, int) and e > 0 for e in s) for s in shapes)
    if not isinstance(module, nn.Module) or not extents:
        raise ModelError(
            "capture takes a module and the shape of one record",
            expected="an nn.Module and a tuple of positive integers",
            came=f"{type(module).__name__} and {input_shape!r}",
            fix="for instance capture(model, (3, 32, 32)), or ((16, 32, 32), (64,)) for a model of two inputs",
        )
    return shapes


def _copied(module: nn.Module) -> nn.Module:
    """Return an eval-mode float32 CPU copy; non-leaf tensors (weight norm) are copied by value."""
    memo: dict[int, Any] = {}
    for layer in module.modules():
        for value in vars(layer).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(module, memo).to("cpu", torch.float32).eval()
    except Exception as error:
        raise ModelError(
            "the module cannot be copied",
            expected="a module that copy.deepcopy accepts",
            came=f"{type(error).__name__}: {_first_line(error)}",
            fix="keep open files, locks, generators and the like out of the module's attributes",
        ) from error


def _try_out(module: nn.Module, records: tuple[Tensor, ...]) -> None:
    """Run the module once, so that its own mistakes are not reported as those of the capture."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            answer = module(*records)
    except Exception as error:
        raise ModelError(
            "the module does not run",
            expected=f"a module that takes float32 {', '.join(str(list(r.shape)) for r in records)}",
            came=f"{type(error).__name__}: {_first_line(error)}",
            fix="check input_shape: it is the shape of one record, without the batch axis",
        ) from error
    answers = answer if isinstance(answer, tuple | list) else (answer,)
    wrong = [a for a in answers if not isinstance(a, Tensor) or a.dim() == 0 or a.shape[0] != 2]
    if wrong or not answers:
        shown = [list(a.shape) if isinstance(a, Tensor) else type(a).__name__ for a in wrong]
        raise ModelError(
            "the module does not return one answer per record",
            expected="a tensor [n, ...], or a tuple of them",
            came=f"{shown} for n = 2",
            fix="return logits [n, classes]",
        )


def _exported(module: nn.Module, records: tuple[Tensor, ...]) -> ExportedProgram:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # torch.export warns about its own internals.
            warnings.simplefilter("ignore")
            return torch.export.export(module, records, dynamic_shapes=_batched(module, records))
    except Exception as error:
        raise _export_error(error) from error


def _batched(module: nn.Module, records: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """Return which axes vary: the first of every input, nested as torch.export wants it for `*arguments`."""
    axes = tuple({0: Dim.DYNAMIC} for _ in records)
    parameters = list(inspect.signature(module.forward).parameters.values())
    named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL][: len(records)]
    return axes[: len(named)] + ((axes[len(named) :],) if len(named) < len(records) else ())


def _export_error(error: Exception) -> ModelError:
    text = f"{type(error).__name__}: {error}"
    if any(mark in text for mark in _DATA_DEPENDENT):
        return ModelError(
            "the module decides on values of its input (data-dependent control flow)",
            expected="the same operators for every record",
            came=_first_line(error),
            fix="replace `if tensor:` and `.item()` by arithmetic; let an early-exit network return all its exits",
        )
    if any(mark in text for mark in _BATCH):
        return ModelError(
            "the module fixes the batch size",
            expected="a forward pass for any number of records",
            came=_first_line(error),
            fix="use x.shape[0] or -1 for the batch axis",
        )
    return ModelError(
        "torch.export cannot trace the module",
        expected="a module that torch.export accepts",
        came=f"{type(error).__name__}: {_first_line(error)}",
        fix="try `torch.export.export(module, (records,))` on its own and change the layer it names",
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else "no message"
