"""`capture`: an `nn.Module` becomes a `Network`."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from edgeward.core.errors import ModelError
from edgeward.graph.attention import straighten
from edgeward.graph.comparison import (
    SLACK,
    Answers,
    agree,
    answers_of,
    different,
    first_difference,
    first_layer,
    same_in_double,
    values_of,
)
from edgeward.graph.copying import copied, first_line
from edgeward.graph.network import Network
from edgeward.graph.program import Translation, translate

_DATA_DEPENDENT = ("data-dependent", "DataDependent", "Tensor.item", "_local_scalar_dense", "dynamic control flow")
_BATCH = ("ConstraintViolation", "constraint", "specialized", "Constraints violated")


def capture(module: nn.Module, input_shape: tuple[int, ...] | tuple[tuple[int, ...], ...]) -> Network:
    """Capture the eval-mode forward pass of `module` as a typed layer graph.

    Shapes: `input_shape` is that of one record, without the batch axis; a tuple of shapes for a module that takes
    several tensors, whose values are called "input_0", "input_1", ... Every value of the graph counts its shape per
    record; a module that returns a tuple (early exits) gives several outputs in order.

    Guarantee: `module` is not changed (a copy is traced, in eval mode, in float32 on the CPU), and the network owns its
    tensors. Tensors computed from the state only (a masked weight) are evaluated once and forbid `with_tensors`.
    Measured on random records, in batches of two and three: the module answers the same each time, and the network
    answers as the module does, before anything of it was rewritten for tracing.
    Cost: one copy of the weights, three forward passes on two or three records, one `torch.export`.

    Raises: `UnsupportedOperators` listing all operators without a place; `ModelError` when the module does not run on
    the shape, branches on data, mixes records, changes its state at inference or draws random numbers, and, naming the
    first node that differs, when the network would answer otherwise.

    >>> network = capture(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))
    >>> [(node.operator, network.values[node.output].shape) for node in network.nodes]
    [('reshape', (4,)), ('linear', (2,))]
    """
    traced = _copied(module)
    shapes = _check_arguments(module, input_shape)
    # Random records: zeros would hide a branch on data that happens to be taken at zero.
    generator = torch.Generator().manual_seed(0)
    records = tuple(torch.randn((3, *shape), generator=generator) for shape in shapes)
    two = tuple(record[:2] for record in records)
    answers = _try_out(traced, two)
    again = _answers_to_more(traced, records)
    straighten(traced)
    found = translate(_exported(traced, two), several=_several(input_shape))
    if not agree(tuple(answer[:2] for answer in again), answers, SLACK):
        _refuse_unsteady(module, two, records)
    _compare(module, found, records, again)
    return found.network


def _answers_to_more(module: nn.Module, records: tuple[Tensor, ...]) -> Answers:
    """Return the answers to another count of records; none where the module refuses that, as its export will tell."""
    try:
        return answers_of(module, records)
    except Exception:
        return ()


def _compare(module: nn.Module, found: Translation, records: tuple[Tensor, ...], answers: Answers) -> None:
    """Refuse a network that does not answer as the module does, naming the first node that differs."""

    def ours(given: tuple[Tensor, ...]) -> Answers:
        values = values_of(found.network, given)
        return tuple(values[name] for name in found.network.outputs)

    if agree(ours(records), answers, SLACK) or same_in_double(ours, _copied(module), records):
        return
    where = first_difference(found.program, found.draft, values_of(found.network, records), records)
    if where is None:
        changed = _copied(module)
        straighten(changed)
        where = first_layer(_copied(module), changed, records)
    raise different("the captured network does not compute what the module computes", where)


def _refuse_unsteady(module: nn.Module, two: tuple[Tensor, ...], records: tuple[Tensor, ...]) -> None:
    """Raise where records get other answers in a second call, or in a batch of another size; rounding apart."""
    fresh, wide = _copied(module), _copied(module).double()
    steady = agree(answers_of(fresh, two), answers_of(fresh, two), SLACK)

    def of_three(given: tuple[Tensor, ...]) -> Answers:
        return tuple(answer[:2] for answer in _answers_to_more(wide, given))

    if steady and same_in_double(of_three, fresh, two, records):
        return
    raise ModelError(
        "the module's answer to a record depends on its batch" if steady else "the module does not repeat its answers",
        expected="the same answer to the same record in evaluation mode, each time and in every batch",
        came="another answer in a batch of three than of two" if steady else "another answer in the second call",
        fix="let no value depend on x.shape[0]" if steady else "draw no random numbers and keep no state in eval mode",
    )


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
    """Return an eval-mode float32 CPU copy."""
    return copied(module).to("cpu", torch.float32).eval()


def _try_out(module: nn.Module, records: tuple[Tensor, ...]) -> Answers:
    """Run the module once, so that its own mistakes are not reported as those of the capture; return its answers.

    A module that writes to its input is given copies from now on: what it leaves in them is no part of its answer.
    """
    given = tuple(record.clone() for record in records)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            answer = module(*given)
    except Exception as error:
        raise ModelError(
            "the module does not run",
            expected=f"a module that takes float32 {', '.join(str(list(r.shape)) for r in records)}",
            came=f"{type(error).__name__}: {first_line(error)}",
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
    if not all(torch.equal(mine, record) for mine, record in zip(given, records, strict=True)):
        module.register_forward_pre_hook(lambda _, arguments: tuple(argument.clone() for argument in arguments))
    return tuple(answer.clone() for answer in answers)


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
            came=first_line(error),
            fix="replace `if tensor:` and `.item()` by arithmetic; let an early-exit network return all its exits",
        )
    if any(mark in text for mark in _BATCH):
        return ModelError(
            "the module fixes the batch size",
            expected="a forward pass for any number of records",
            came=first_line(error),
            fix="use x.shape[0] or -1 for the batch axis",
        )
    return ModelError(
        "torch.export cannot trace the module",
        expected="a module that torch.export accepts",
        came=f"{type(error).__name__}: {first_line(error)}",
        fix="try `torch.export.export(module, (records,))` on its own and change the layer it names",
    )
