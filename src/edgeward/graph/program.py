"""`capture_program`: an exported ATen program becomes a `Network`."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from edgeward.core.errors import ModelError, UnsupportedOperators
from edgeward.graph.call import Call, Draft, NoPlace, Rule, Stored, record_shape
from edgeward.graph.comparison import different, first_difference, values_of
from edgeward.graph.evaluate import evaluate
from edgeward.graph.hints import hint
from edgeward.graph.mapping_elementwise import ELEMENTWISE
from edgeward.graph.mapping_layout import LAYOUT
from edgeward.graph.mapping_linear import LINEAR
from edgeward.graph.mapping_normalization import NORMALIZATION
from edgeward.graph.mapping_pooling import POOLING
from edgeward.graph.mapping_quantized import QUANTIZED
from edgeward.graph.network import CONSTANT, FOLDED, Network, Node, Value

RULES: Mapping[Any, Rule] = {**LINEAR, **QUANTIZED, **NORMALIZATION, **ELEMENTWISE, **POOLING, **LAYOUT}
INPUT = "input"
_aten = torch.ops.aten
# Of a stored tensor, these give the same tensor where the shape stays: its key in the state survives them.
_UNCHANGED = frozenset(
    {
        _aten.alias.default,
        _aten.clone.default,
        _aten.contiguous.default,
        _aten.detach.default,
        _aten.expand.default,
        _aten.lift_fresh_copy.default,
        _aten.view.default,
    }
)


def capture_program(program: ExportedProgram, *, several: bool = False) -> Network:
    """Translate an exported program with a dynamic batch axis.

    The way in for a model that arrives as a .pt2 file: `capture_program(torch.export.load(path))`. The program must
    have been exported in eval mode. `several` allows more than one input: their values are "input_0", "input_1", ...

    Guarantee: measured on three random records, the network computes what the program computes. Cost: two runs of them.
    Raises: `UnsupportedOperators` with all operators that have no place, `ModelError` for more than one input, for
    state that changes at inference, for a fixed batch size, and for a difference, naming the first node that differs.
    """
    found = translate(program, several=several)
    generator = torch.Generator().manual_seed(0)
    shapes = [found.network.values[name].shape for name in found.network.inputs]
    records = tuple(torch.randn((3, *shape), generator=generator) for shape in shapes)
    where = first_difference(found.program, found.draft, values_of(found.network, records), records)
    if where is not None:
        raise different("the network does not compute what the program computes", where)
    return found.network


@final
@dataclass(frozen=True)
class Translation:
    """A network, the functional program it was made of, and which value stands for which node of it."""

    network: Network
    program: ExportedProgram
    draft: Draft


def translate(program: ExportedProgram, *, several: bool = False) -> Translation:
    """Translate an exported program; nothing is executed but its constants."""
    program = _functional(program)
    draft = Draft()
    _refuse_mutation(program)
    inputs, parameters = _placeholders(program, draft, several)
    problems: list[tuple[str, str, str]] = []
    for node in _live(program.graph):
        if node.op == "call_function":
            _translate(node, draft, problems)
    if problems:
        raise UnsupportedOperators(tuple(dict.fromkeys(problems)))
    outputs = _outputs(program, draft, inputs)
    trainable = frozenset(key for key in draft.tensors if key in parameters)
    network = Network(inputs, outputs, tuple(draft.nodes), draft.values, draft.tensors, trainable)
    return Translation(network, program, draft)


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Return the program without in-place operators and with its layers whole: the decomposition by an empty table."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # torch.export warns about its own internals.
            warnings.simplefilter("ignore")
            functional: ExportedProgram = program.run_decompositions({})
    except Exception as error:
        raise ModelError(
            "the exported program cannot be made functional",
            expected="a program as torch.export.export returns it",
            came=f"{type(error).__name__}: {str(error)[:200]}",
            fix="export the module again in eval mode with this version of torch",
        ) from error
    return functional


def _refuse_mutation(program: ExportedProgram) -> None:
    kinds = (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION, OutputKind.PARAMETER_MUTATION)
    changed = [str(spec.target) for spec in program.graph_signature.output_specs if spec.kind in kinds]
    if changed:
        raise ModelError(
            "the network changes its state at inference",
            expected="a forward pass in eval mode that leaves inputs, parameters and buffers alone",
            came=f"writes to {', '.join(changed)}",
            fix="guard the update with `if self.training:`, and avoid in-place operators on the input",
        )


def _placeholders(program: ExportedProgram, draft: Draft, several: bool) -> tuple[tuple[str, ...], frozenset[str]]:
    """Enter inputs and stored tensors; return the inputs' names and the keys of the trainable tensors."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    inputs, parameters = [], set()
    for spec in program.graph_signature.input_specs:
        node, target = nodes[spec.arg.name], spec.target
        if spec.kind is InputKind.USER_INPUT:
            inputs.append(node)
        elif target in program.state_dict and spec.kind is not InputKind.CONSTANT_TENSOR:
            draft.stored[node] = Stored(target, program.state_dict[target].detach())
            parameters |= {target} if spec.kind is InputKind.PARAMETER else set()
        else:
            draft.stored[node] = Stored(f"{CONSTANT}{target}", program.constants[str(target)].detach())
    if not inputs or (len(inputs) > 1 and not several):
        raise ModelError(
            f"the network has {len(inputs)} inputs",
            expected="one input tensor [n, ...]",
            came=f"{len(inputs)} inputs",
            fix="wrap the network in a module that takes one tensor",
        )
    names = tuple(f"{INPUT}_{i}" for i in range(len(inputs))) if several else (INPUT,)
    for name, node in zip(names, inputs, strict=True):
        _enter_input(name, node, draft)
    return names, frozenset(parameters)


def _enter_input(name: str, node: fx.Node, draft: Draft) -> None:
    try:
        draft.values[name] = Value(name, record_shape(node.meta["val"]))
    except NoPlace as problem:
        raise ModelError(
            "the program has a fixed batch size",
            expected="a batch axis of any extent in front",
            came=f"an input of shape {list(node.meta['val'].shape)}",
            fix="export with dynamic_shapes={0: torch.export.Dim('batch')}; values must not depend on the batch size",
        ) from problem
    draft.names[node] = name


def _live(graph: fx.Graph) -> Iterator[fx.Node]:
    """Yield, in order, the nodes that some output depends on."""
    needed = set(graph.output_node().all_input_nodes)
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return (node for node in graph.nodes if node in needed)


def _layer(node: fx.Node) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    # A module that is called twice is marked "name@1" the second time.
    return str(stack[-1][0]).split("@")[0] if stack else ""


def _translate(node: fx.Node, draft: Draft, problems: list[tuple[str, str, str]]) -> None:
    """Map one call, or enter it as a stored tensor, or note why it has no place."""
    value = node.meta.get("val")
    if isinstance(value, torch.SymInt | int | float | bool):
        return
    known = [n in draft.stored or n in draft.names for n in node.all_input_nodes if _is_tensor(n)]
    try:
        if node.target is operator.getitem:
            _part_of(node, draft)
        elif all(n in draft.stored for n in node.all_input_nodes if _is_tensor(n)):
            _enter_stored(node, draft)
        elif node.target not in RULES:
            raise NoPlace(hint(str(node.target)))
        elif all(known):
            call = Call(draft, node, _layer(node), _arguments(node))
            draft.names[node] = RULES[node.target](call)
    except NoPlace as problem:
        problems.append((_layer(node) or "(the network itself)", str(node.target), problem.fix))


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor | tuple | list)


def _part_of(node: fx.Node, draft: Draft) -> None:
    whole: Any = node.args[0]
    index: Any = node.args[1]
    if whole in draft.stored_parts:
        draft.stored[node] = draft.stored_parts[whole][index]
    elif whole in draft.names:
        parts = draft.names[whole]
        if isinstance(parts, str) or index >= len(parts):
            raise NoPlace("use the first result only")
        draft.names[node] = parts[index]
        draft.moved[node] = draft.batch_axis(whole)


def _arguments(node: fx.Node) -> dict[str, Any]:
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = {argument.name: value for argument, value in zip(schema, node.args, strict=False)}
    defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
    return {**defaults, **given, **node.kwargs}


def _enter_stored(node: fx.Node, draft: Draft) -> None:
    """Evaluate a call that does not depend on the input, once and for all."""
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise NoPlace("draw no random numbers at inference")
    sources = [draft.stored[n] for n in node.all_input_nodes if _is_tensor(n)]
    derived = any(not s.key.startswith(CONSTANT) for s in sources)
    prefix = FOLDED if derived else CONSTANT
    result = evaluate(node, draft)
    if not isinstance(result, Tensor):
        draft.stored_parts[node] = [Stored(f"{prefix}{node.name}.{i}", part) for i, part in enumerate(result)]
    elif node.target in _UNCHANGED and sources[0].tensor.shape == result.shape:
        draft.stored[node] = sources[0]
    else:
        draft.stored[node] = Stored(f"{prefix}{node.name}", result)


def _outputs(program: ExportedProgram, draft: Draft, inputs: tuple[str, ...]) -> tuple[str, ...]:
    nodes = {node.name: node for node in program.graph.nodes}
    found: list[str] = []
    for spec in program.graph_signature.output_specs:
        node = nodes.get(getattr(spec.arg, "name", ""))
        name = draft.names.get(node) if node is not None else None
        if not isinstance(name, str):
            raise ModelError(
                "an output does not depend on the input",
                expected="one tensor [n, ...], or a tuple of them",
                came=str(getattr(spec.arg, "value", spec.arg)),
                fix="return the logits only",
            )
        if node is not None and draft.batch_axis(node) != 0:
            raise ModelError(
                "an output does not have the batch in front",
                expected="a tensor [n, ...]",
                came=f"the batch on axis {draft.batch_axis(node)}",
                fix="move the batch axis back before returning",
            )
        found.append(name if name not in inputs and name not in found else _named_again(name, draft))
    return tuple(found)


def _named_again(name: str, draft: Draft) -> str:
    """Return an identity of a value, so that every output is written by a node of its own."""
    fresh = draft.fresh("", "identity")
    draft.values[fresh] = Value(fresh, draft.values[name].shape)
    draft.nodes.append(Node(fresh, "", "identity", (name,), fresh))
    return fresh
