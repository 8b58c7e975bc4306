"""Evaluation of the calls of a program that do not depend on its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from edgeward.graph.call import Draft, NoPlace, record_shape


def evaluate(node: fx.Node, draft: Draft) -> Any:
    """Return the result of a call on stored tensors; of one that has a batch axis, its only row [1, ...].

    A call that sees the size of the batch is made for two sizes: its rows must not depend on it.
    """
    if not _sees_batch(node):
        return _run(node, draft, 2)
    rows = [_only_row(_run(node, draft, count), node) for count in (2, 3)]
    if not torch.equal(*rows):
        raise NoPlace("let no value depend on the batch size")
    return rows[0]


def _sees_batch(node: fx.Node) -> bool:
    sizes = (torch.SymInt, torch.SymFloat)
    return any(isinstance(source.meta.get("val"), sizes) for source in node.all_input_nodes)


def _only_row(result: Any, node: fx.Node) -> Tensor:
    if not isinstance(result, Tensor):
        raise NoPlace("let no value depend on the batch size")
    if not any(isinstance(extent, torch.SymInt) for extent in node.meta["val"].shape):
        return result
    record_shape(node.meta["val"])
    if not torch.equal(result, result[:1].expand_as(result)):
        raise NoPlace("let no value depend on the batch size")
    return result[:1]


def _run(node: fx.Node, draft: Draft, count: int) -> Any:
    """Make the call for a batch of `count` records."""

    def real(argument: fx.Node) -> Any:
        if argument in draft.stored:
            return draft.stored[argument].tensor
        expression = argument.meta["val"].node.expr
        number = expression.subs(dict.fromkeys(expression.free_symbols, count))
        return int(number) if number.is_integer else float(number)

    arguments = fx.map_arg(node.args, real)
    options = fx.map_arg(node.kwargs, real)
    try:
        with torch.no_grad():
            return node.target(*arguments, **options)  # type: ignore[operator]
    except Exception as error:
        raise NoPlace(f"compute it before the capture and store it as a buffer ({type(error).__name__})") from error
