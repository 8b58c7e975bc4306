"""Whether a captured network computes what its module computes, and if not, from which node on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from edgeward.core.errors import ModelError
from edgeward.graph.call import Draft
from edgeward.graph.copying import copied
from edgeward.graph.network import Network
from edgeward.graph.semantics import apply

SLACK = 1e-5
"""Largest difference in float32, as a share of the largest answer; beyond it the comparison is repeated in float64."""
EXACT = 1e-9
"""The same in float64."""

Answers: TypeAlias = "tuple[Tensor, ...]"


def answers_of(module: nn.Module, records: tuple[Tensor, ...]) -> Answers:
    """Return the outputs of a module on copies of `records`, random numbers of its own not counted."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        found = module(*(record.clone() for record in records))
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def values_of(network: Network, records: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Return every value of a network for a batch of records, in the precision of the records."""
    kind = records[0].dtype
    tensors = {key: t.to(kind) if t.is_floating_point() else t for key, t in network.tensors.items()}
    values = dict(zip(network.inputs, records, strict=True))
    with torch.no_grad():
        for node in network.nodes:
            held = {role: tensors[key] for role, key in node.tensors.items()}
            inputs = [values[name] for name in node.inputs]
            shape = network.values[node.output].shape
            values[node.output] = apply(node, held, inputs, shape, len(records[0]))
    return values


def agree(ours: Answers, theirs: Answers, slack: float) -> bool:
    """Return whether two lists of outputs have equal shapes, and values within `slack` of the largest."""
    if len(ours) != len(theirs) or any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        return False
    return all(_close(a, b, slack) for a, b in zip(ours, theirs, strict=True))


def _close(a: Tensor, b: Tensor, slack: float) -> bool:
    a, b = a.double(), b.double()
    scale = float(b.nan_to_num(posinf=0.0, neginf=0.0).abs().max()) if b.numel() else 0.0
    return torch.allclose(a, b, 0.0, slack * scale, equal_nan=True)


def same_in_double(
    ours: Callable[[tuple[Tensor, ...]], Answers],
    module: nn.Module,
    records: tuple[Tensor, ...],
    other: tuple[Tensor, ...] | None = None,
) -> bool:
    """Return whether `ours` and a copy of `module` agree in float64, where rounding tips no sign and no step.

    `other` are the records that `ours` is given, where they are not those of the module. A module that fixes its own
    precision does not run so, and then the difference in float32 stands.
    """
    wide, given = (tuple(record.double() for record in each) for each in (records, other or records))
    try:
        return agree(ours(given), answers_of(copied(module).double(), wide), EXACT)
    except Exception:
        return False


def traced_values(program: ExportedProgram, records: tuple[Tensor, ...]) -> dict[fx.Node, Any]:
    """Return what every node of an exported program computes for a batch of records."""
    given = iter(records)
    arguments: list[Any] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            arguments.append(next(given))
        else:
            held: Mapping[str, Any] = {**program.state_dict, **program.constants}
            arguments.append(held[str(spec.target)])
    recorder = _Recorder(program.graph_module)
    with torch.no_grad():
        recorder.run(*(a.detach().clone() if isinstance(a, Tensor) else a for a in arguments))
    return recorder.found


@final
class _Recorder(fx.Interpreter):
    """Runs a graph and remembers every result."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        self.found[n] = result = super().run_node(n)
        return result


def different(what: str, where: str) -> ModelError:
    """Build the error of a network that does not compute what its module computes."""
    return ModelError(
        what,
        expected="equal answers to the same random records in evaluation mode",
        came=f"answers that differ from here on: {where}",
        fix="write this step with plain operators, and report it as a fault of the capture",
    )


def first_difference(
    program: ExportedProgram, draft: Draft, values: Mapping[str, Tensor], records: tuple[Tensor, ...]
) -> str | None:
    """Return the first node of `program` whose value is another in the network (`values`), None where all agree."""
    for node, theirs in traced_values(program, records).items():
        name = draft.names.get(node)
        if not isinstance(name, str) or not isinstance(theirs, Tensor):
            continue
        theirs = theirs.movedim(draft.batch_axis(node), 0)
        if values[name].shape != theirs.shape or not _close(values[name], theirs, SLACK):
            stack = list(node.meta.get("nn_module_stack", {}).values())
            layer = str(stack[-1][0]).split("@")[0] if stack else ""
            return f"{node.target} in " + (f"layer '{layer}'" if layer else "the network itself")
    return None


def first_layer(module: nn.Module, changed: nn.Module, records: tuple[Tensor, ...]) -> str:
    """Return the first layer that answers differently in two modules of the same structure."""
    expected, came = (_by_layer(each, records) for each in (module, changed))
    for name, theirs in expected.items():
        if name in came and not agree(came[name], theirs, SLACK):
            return f"layer '{name}'" if name else "the network itself"
    return "the network itself"


def _by_layer(module: nn.Module, records: tuple[Tensor, ...]) -> dict[str, Answers]:
    """Return the first answer of every layer, in the order in which they are given."""
    found: dict[str, Answers] = {}

    def keep(name: str, answer: Any) -> None:
        parts = answer if isinstance(answer, tuple | list) else (answer,)
        found.setdefault(name, tuple(part.clone() for part in parts if isinstance(part, Tensor)))

    hooks = [m.register_forward_hook(lambda _, __, a, name=n: keep(name, a)) for n, m in module.named_modules()]
    try:
        answers_of(module, records)
    finally:
        for hook in hooks:
            hook.remove()
    return found
