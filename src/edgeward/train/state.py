"""The tensors of a module under every name they have, and which modules a population cannot hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from edgeward.core.errors import ModelError


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers under all their names: tied ones under each, and what no state dict stores."""
    return dict(_every(module))


def _every(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def aliases(module: nn.Module) -> dict[str, str]:
    """Return the further names of tensors that have several, each with the first name of its tensor.

    >>> tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> tied[1].weight = tied[0].weight
    >>> aliases(tied)
    {'1.weight': '0.weight'}
    """
    first: dict[int, str] = {}
    return {name: first[id(t)] for name, t in _every(module) if first.setdefault(id(t), name) != name}


def places(module: nn.Module) -> dict[str, str]:
    """Return one name for each place that holds a tensor, with the first name of the tensor there.

    A tied weight has a place in each layer; a layer in two places of a network is one place for each of its tensors.
    """
    first, taken, found = aliases(module), set(), {}
    owners = dict(module.named_modules(remove_duplicate=False))
    for name, _ in _every(module):
        path, _, own = name.rpartition(".")
        if (id(owners[path]), own) not in taken:
            taken.add((id(owners[path]), own))
            found[name] = first.get(name, name)
    return found


def volatile(module: nn.Module) -> frozenset[str]:
    """Return the names of tensors that no state dict stores: non-persistent buffers."""
    return frozenset(named_tensors(module)) - frozenset(module.state_dict())


@torch.no_grad()
def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into a module of the same structure, under all names, non-persistent buffers included.

    Raises: `ModelError` naming what is absent or has another shape.
    """
    own = named_tensors(module)
    wrong = [name for name in own if name not in tensors or tensors[name].shape != own[name].shape]
    wrong += [name for name in tensors if name not in own]
    if wrong:
        raise ModelError(
            "the tensors belong to another architecture",
            expected=", ".join(f"{n} {tuple(own[n].shape) if n in own else 'absent'}" for n in wrong[:4]),
            came=", ".join(f"{n} {tuple(tensors[n].shape) if n in tensors else 'absent'}" for n in wrong[:4]),
            fix="use the factory that the population was built with, and let it build the same structure each time",
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def refuse_unstackable(module: nn.Module) -> None:
    """Raise one `ModelError` naming every tensor that siblings could not each have for themselves.

    These are layers without a shape yet (lazy ones), and parameters that share memory with another tensor without
    being the same one (a transposed view in a parameter of its own): a step on one would move the other in PyTorch's
    own loop, and would not here.
    """
    problems = [f"{name} has no shape yet" for name, t in _every(module) if is_lazy(t)]
    if not problems:
        problems = [f"{a} shares memory with {b}" for a, b in _overlaps(module)]
    if problems:
        raise ModelError(
            f"{len(problems)} tensors cannot be stacked with those of siblings",
            expected="tensors with a shape and memory of their own; tied ones are one parameter under two names",
            came="; ".join(problems[:6]),
            fix="run a lazy layer once inside the factory; tie with `self.b.weight = self.a.weight`, transpose later",
        )


def _overlaps(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield pairs of distinct tensors in the same memory, at least one of which is trained."""
    seen: dict[int, list[tuple[str, Tensor]]] = {}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.numel():
            continue
        held = seen.setdefault(tensor.untyped_storage().data_ptr(), [])
        for other, there in held:
            if (tensor.requires_grad or there.requires_grad) and _meet(tensor, there):
                yield name, other
        held.append((name, tensor))


def _meet(a: Tensor, b: Tensor) -> bool:
    """Return whether the spans of two tensors in one storage overlap, in bytes."""
    spans = []
    for t in (a, b):
        start = t.storage_offset() * t.element_size()
        last = sum((extent - 1) * stride for extent, stride in zip(t.shape, t.stride(), strict=True))
        spans.append((start, start + (last + 1) * t.element_size()))
    return spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1]
