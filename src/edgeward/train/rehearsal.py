"""A rehearsal before the first epoch: whether a population trains and answers as its networks do one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edgeward.core.errors import EdgewardError, ModelError
from edgeward.graph.copying import copied, first_line
from edgeward.train.population import Population
from edgeward.train.state import fill, named_tensors

_ALONE = "the network does not train"
_TOGETHER = "the network does not train as one of a population"


def rehearse(population: Population, x: Float[Tensor, "s b ..."], classes: int) -> None:
    """Take one step with copies of the first models, together and alone, and compare what came of it.

    `x` are records of each of these models. Nothing of `population` changes but `writes_records`, which is found here.
    Guarantee: measured on these records: buffers change together where they change alone, and after a step the
    population answers as a fresh module with the state of its member does.
    Cost: a forward and a backward pass of three models on two records.
    Raises: `ModelError` naming the layer or the tensor that a population cannot carry.
    """
    if not population.params:
        raise _frozen(population)
    template, alone, later = (copied(population.template) for _ in range(3))
    few = population.select(range(len(x)))
    few = Population(template, {n: t.requires_grad_() for n, t in few.params.items()}, few.buffers)
    x = x.to(few.device)
    for module in (alone, later):
        fill(module.to(few.device), few.tensors(0))
    with torch.random.fork_rng(devices=[]):
        given = x[0].clone()
        answer = attempt(alone, _ALONE, lambda: alone.train()(given))
        check_answer(answer, len(x[0]), classes)
        population.writes_records = few.writes_records = not torch.equal(given, x[0])
        trained = [t for t in alone.parameters() if t.requires_grad]
        attempt(alone, _ALONE, lambda: torch.autograd.grad(answer.sum(), trained, allow_unused=True))
        before = {name: t[0].clone() for name, t in few.buffers.items()}
        attempt(template, _TOGETHER, lambda: _step(few, x))
        _compare_buffers(before, named_tensors(alone), few)
        fill(later, few.tensors(0))
        attempt(template, _TOGETHER, lambda: _compare_answers(few, later, x[0]))


def _step(few: Population, x: Tensor) -> None:
    answer = few.forward(x, training=True, per_model=True)
    torch.autograd.grad(answer.sum(), list(few.params.values()), allow_unused=True)


def attempt(module: nn.Module, what: str, action: Callable[[], Any]) -> Any:
    """Return what `action` returns; an error of its own becomes a `ModelError` that names the layer."""
    try:
        return action()
    except (EdgewardError, MemoryError):
        raise
    except Exception as error:
        few = isinstance(error, ValueError) and "more than 1 value per channel" in str(error)
        raise ModelError(
            what,
            expected="layers that run in training mode" + (", for many models at once" if what == _TOGETHER else ""),
            came=f"{_layer(module, action)}: {type(error).__name__}: {first_line(error)}",
            fix="give batches of at least two records" if few else "change the layer named above, or exchange it",
        ) from error


def _layer(module: nn.Module, action: Callable[[], Any]) -> str:
    """Run `action` again and return the name of the layer in which it fails."""
    inside: list[str] = []
    hooks = []
    for name, layer in module.named_modules():
        hooks.append(layer.register_forward_pre_hook(lambda *_, name=name: inside.append(name), prepend=True))
        hooks.append(layer.register_forward_hook(lambda *_: inside.__delitem__(-1)))
    try:
        action()
    except Exception:
        return f"layer '{inside[-1]}'" if inside and inside[-1] else "the network itself"
    finally:
        for hook in hooks:
            hook.remove()
    return "the network itself"


def check_answer(answer: Any, records: int, classes: int) -> None:
    """Refuse what is no tensor of logits [records, classes]; more logits than classes are allowed."""
    if not isinstance(answer, Tensor) or answer.dim() != 2 or len(answer) != records or answer.shape[1] < classes:
        raise ModelError(
            "the network is no classifier of these records",
            expected=f"one tensor of logits [{records}, {classes}] for {records} records, also in training mode",
            came=str(list(answer.shape)) if isinstance(answer, Tensor) else f"a {type(answer).__name__}",
            fix="return logits [n, classes], the same in training and in evaluation mode",
        )


def _compare_buffers(before: Mapping[str, Tensor], alone: Mapping[str, Tensor], few: Population) -> None:
    """Refuse buffers that a step changes in a module alone and not in a population, or the other way round."""
    wrong = []
    for name, start in before.items():
        ends = (alone[name].detach(), few.buffers[name][0])
        moved = [not torch.equal(start, end) for end in ends]
        wrong += [name] if moved[0] != moved[1] and not _close(*ends, 16.0) else []
    if wrong:
        raise ModelError(
            f"{len(wrong)} buffers of the network cannot be carried by a population",
            expected="buffers that forward changes in place, or assigns as a whole",
            came=", ".join(wrong[:6]),
            fix="write self.buffer.copy_(...) inside forward, and give every buffer memory of its own",
        )


@torch.no_grad()
def _compare_answers(few: Population, alone: nn.Module, x: Tensor) -> None:
    """Refuse a population whose eval-mode answers are not those of a fresh module with its member's state."""
    if not _agree(few, alone, x):
        # rounding may tip a sign or a step of a quantised network, in float64 practically never
        few.params, few.buffers = ({n: _double(t) for n, t in held.items()} for held in (few.params, few.buffers))
        if not _agree(few, alone.double(), x.double()):
            raise ModelError(
                "the network keeps a state outside its parameters and buffers",
                expected="answers in evaluation mode that follow from parameters and buffers alone",
                came="another answer from a fresh module with the same tensors after one training step",
                fix="make counters, caches and schedules that change answers buffers of their layer",
            )


def _agree(few: Population, alone: nn.Module, x: Tensor) -> bool:
    together, expected = few.forward(x, training=False, per_model=False)[0], alone.eval()(x.clone())
    if together.shape != expected.shape or together.dtype != expected.dtype:
        return False
    return _close(together, expected, torch.finfo(expected.dtype).eps ** -0.5)


def _close(a: Tensor, b: Tensor, roundings: float) -> bool:
    """Return whether two tensors differ by so many roundings of their largest entry at most."""
    if not b.is_floating_point():
        return torch.equal(a, b)
    scale = float(b.nan_to_num(posinf=0.0, neginf=0.0).abs().max()) if b.numel() else 0.0
    return torch.allclose(a, b, 0.0, roundings * torch.finfo(b.dtype).eps * scale, equal_nan=True)


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().double() if tensor.is_floating_point() else tensor


def _frozen(population: Population) -> ModelError:
    return ModelError(
        "there is nothing to train",
        expected="a parameter with requires_grad=True",
        came=f"{len(population.buffers)} tensors, all of them buffers or frozen",
        fix="leave the layers that shall learn unfrozen",
    )
