"""`capture_program`: an exported ATen program becomes a `Network`."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from edgeward.core.errors import ModelError, UnsupportedOperators
from edgeward.graph.call import Call, Draft, NoPlace, Rule, Stored, record_shape
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


def capture_program(program: ExportedProgram) -> Network:
    """Translate an exported program with one input and a dynamic batch axis; nothing is executed but its constants.

    The program must be functional (`run_decompositions({})`), as `torch.export.load` followed by that call gives it.

    Raises: `UnsupportedOperators` with all operators that have no place, `ModelError` for more than one input, for
    state that changes at inference, and for a fixed batch size.
    """
    draft = Draft()
    _refuse_mutation(program)
    parameters = _placeholders(program, draft)
    problems: list[tuple[str, str, str]] = []
    for node in _live(program.graph):
        if node.op == "call_function":
            _translate(node, draft, problems)
    if problems:
        raise UnsupportedOperators(tuple(dict.fromkeys(problems)))
    outputs = _outputs(program, draft)
    trainable = frozenset(key for key in draft.tensors if key in parameters)
    return Network((INPUT,), outputs, tuple(draft.nodes), draft.values, draft.tensors, trainable)


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


def _placeholders(program: ExportedProgram, draft: Draft) -> frozenset[str]:
    """Enter inputs and stored tensors; return the keys of the trainable ones."""
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
    if len(inputs) != 1:
        raise ModelError(
            f"the network has {len(inputs)} inputs",
            expected="one input tensor [n, ...]",
            came=f"{len(inputs)} inputs",
            fix="wrap the network in a module that takes one tensor",
        )
    try:
        draft.values[INPUT] = Value(INPUT, record_shape(inputs[0].meta["val"]))
    except NoPlace as problem:
        raise ModelError(
            "the program has a fixed batch size",
            expected="a batch axis of any extent in front",
            came=f"an input of shape {list(inputs[0].meta['val'].shape)}",
            fix="export with dynamic_shapes={0: torch.export.Dim('batch')}; values must not depend on the batch size",
        ) from problem
    draft.names[inputs[0]] = INPUT
    return frozenset(parameters)


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
    if whole in draft.names:
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
    result = _evaluate(node, draft)
    if not isinstance(result, Tensor):
        raise NoPlace("use operators with one result on parameters")
    if _depends_on_batch(node.meta["val"]):
        if not bool((result[:1] == result[1:]).all()):
            raise NoPlace("let no value depend on the batch size")
        result = result[:1]
    same = [
        s for s in sources if s.tensor.numel() == result.numel() and torch.equal(s.tensor.flatten(), result.flatten())
    ]
    if same and same[0].tensor.shape == result.shape:
        draft.stored[node] = same[0]
        return
    derived = any(not s.key.startswith(CONSTANT) for s in sources)
    draft.stored[node] = Stored(f"{FOLDED if derived else CONSTANT}{node.name}", result)


def _depends_on_batch(result: Tensor) -> bool:
    if not any(isinstance(extent, torch.SymInt) for extent in result.shape):
        return False
    record_shape(result)
    return True


def _evaluate(node: fx.Node, draft: Draft) -> Any:
    """Run a call on its stored tensors, with a batch of two where a size asks for one."""

    def real(argument: fx.Node) -> Any:
        if argument in draft.stored:
            return draft.stored[argument].tensor
        size = argument.meta["val"]
        return int(size.node.expr.subs(dict.fromkeys(size.node.expr.free_symbols, 2)))

    arguments = fx.map_arg(node.args, real)
    options = fx.map_arg(node.kwargs, real)
    with torch.no_grad():
        return node.target(*arguments, **options)  # type: ignore[operator]


def _outputs(program: ExportedProgram, draft: Draft) -> tuple[str, ...]:
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
        found.append(name if name != INPUT and name not in found else _named_again(name, draft))
    return tuple(found)


def _named_again(name: str, draft: Draft) -> str:
    """Return an identity of a value, so that every output is written by a node of its own."""
    fresh = draft.fresh("", "identity")
    draft.values[fresh] = Value(fresh, draft.values[name].shape)
    draft.nodes.append(Node(fresh, "", "identity", (name,), fresh))
    return fresh
