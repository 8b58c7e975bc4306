"""`SplitDeployment`: a network in two worlds; the normal one sends int8 taps one way, the secure one answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final, get_args

from edgeward.backends.cleartext.container import canonical_json
from edgeward.backends.tee.assets import AssetMatrix, one_way_split
from edgeward.codegen.integer import IntegerGraph, IntegerValue
from edgeward.core.errors import CompositionError
from edgeward.graph.network import Network

TOP = 5
"""How many labels the policy "topk" lets out at most."""

Transfer = Literal["batch", "stream"]
OutputPolicy = Literal["label", "topk", "logits"]


@final
@dataclass(frozen=True)
class Traffic:
    """What crosses the border in one inference: entries into the secure world, bytes in, bytes out."""

    one_way: bool
    switches: int
    bytes: int
    returned_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return dict(vars(self))


@final
@dataclass(frozen=True)
class Border:
    """What crosses between the worlds: how each tap is rounded, what the policy lets out, and for how many classes.

    `logits` is how an int8 answer is read under the policy "logits"; `ends_in_argmax` says that the secure network
    gives an index itself. `query_limit` is how many inferences one device answers; None for any number.
    """

    taps: tuple[IntegerValue, ...]
    logits: IntegerValue
    classes: int
    policy: OutputPolicy = "label"
    ends_in_argmax: bool = True
    query_limit: int | None = None

    @property
    def labels(self) -> int:
        """How many labels leave: 1, the best five at most, or none where logits leave."""
        return {"label": 1, "topk": min(TOP, self.classes), "logits": 0}[self.policy]


@final
@dataclass(frozen=True, eq=False)
class SplitDeployment:
    """One network in two worlds.

    `normal` runs as float in the normal world; its first outputs are the taps, in the order of `secure.inputs`; one
    more output, where there is one, is the normal world's own answer. `secure` runs as int8 in the secure world and
    has one output: int8 logits, or the index of the class ("argmax") where the policy is "label". `strategy` is plain
    data for people and files, never interpreted here. "batch" hands over all taps at once (one switch), "stream" one
    by one. `query_limit` belongs to the policy: how many inferences one device answers, counted by the secure world
    against a number that is sealed with the weights; None for any number.

    Shapes: tap i of `normal` (C, H, W) or (F,) is input i of `secure` (H, W, C) or (F,).
    Guarantee: one way: nothing but the answer leaves the secure world.
    """

    name: str
    normal: Network
    secure: IntegerGraph
    strategy: Mapping[str, Any] = field(default_factory=dict)
    transfer: Transfer = "batch"
    policy: OutputPolicy = "label"
    assets: AssetMatrix = field(default_factory=one_way_split)
    query_limit: int | None = None

    def __post_init__(self) -> None:
        """Check that the two halves fit; all reasons in one error."""
        problems = _misfits(self)
        if problems:
            raise CompositionError(
                f"the split '{self.name}' does not fit together:\n    " + "\n    ".join(problems),
                expected="taps of the normal world in the order and shape of the secure graph's inputs",
                fix="cut both halves from one network with the same list of taps",
            )

    @property
    def tap_values(self) -> tuple[IntegerValue, ...]:
        """How the normal world quantises each tap."""
        return self.secure.value_of(self.secure.inputs)

    @property
    def border(self) -> Border:
        """What crosses between the worlds."""
        output = self.secure.outputs[0]
        before = next((n.inputs[0] for n in self.secure.nodes if n.output == output and n.operator == "argmax"), output)
        logits = self.secure.values[before]
        return Border(self.tap_values, logits, logits.bytes, self.policy, before != output, self.query_limit)

    @property
    def traffic(self) -> Traffic:
        """What one inference moves, as declared to the user and bound into the manifest."""
        border = self.border
        sent, returned = sum(value.bytes for value in border.taps), 4 * border.labels or border.classes
        switches = 1 if self.transfer == "batch" else len(self.secure.inputs)
        return Traffic(True, switches, sent, returned)

    @property
    def direct(self) -> Network | None:
        """The normal world alone, as whoever lacks the secure part would use it; None where it gives no answer."""
        if len(self.normal.outputs) == len(self.secure.inputs):
            return None
        return without_dead_nodes(self.normal, self.normal.outputs[-1:])

    @property
    def taps(self) -> tuple[str, ...]:
        """The values of `normal` that are handed over."""
        return self.normal.outputs[: len(self.secure.inputs)]

    def strategy_digest(self) -> bytes:
        """Return the SHA-256 of the strategy with name, transfer and policy."""
        plain = {"name": self.name, "transfer": self.transfer, "policy": self.policy, "strategy": dict(self.strategy)}
        return hashlib.sha256(canonical_json(plain).encode()).digest()


def without_dead_nodes(network: Network, outputs: tuple[str, ...]) -> Network:
    """Return the part of `network` that `outputs` need, with only the tensors of that part."""
    wanted, kept = set(outputs), []
    for node in reversed(network.nodes):
        if node.output in wanted:
            kept.append(node)
            wanted |= set(node.inputs)
    nodes = tuple(reversed(kept))
    keys = {key for node in nodes for key in node.tensors.values()}
    values = {name: network.values[name] for name in network.values if name in wanted or name in network.inputs}
    tensors = {key: network.tensors[key] for key in network.tensors if key in keys}
    return Network(network.inputs, outputs, nodes, values, tensors, network.parameters & keys)


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return (H, W, C) for (C, H, W), and any other shape as it is."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def _misfits(split: SplitDeployment) -> list[str]:
    found = []
    taps, outputs = split.secure.inputs, split.normal.outputs
    if not taps or len(outputs) not in (len(taps), len(taps) + 1):
        return [f"{len(outputs)} outputs of the normal world for {len(taps)} inputs of the secure graph"]
    for tap, output in zip(taps, outputs, strict=False):
        sent, read = channels_last(split.normal.values[output].shape), split.secure.values[tap].shape
        found += [f"tap {output} is {sent}, {tap} reads {read}"] if sent != read else []
    if split.transfer not in get_args(Transfer):
        found.append(f"transfer '{split.transfer}': expected one of {', '.join(get_args(Transfer))}")
    if split.policy not in get_args(OutputPolicy):
        found.append(f"policy '{split.policy}': expected one of {', '.join(get_args(OutputPolicy))}")
    if split.query_limit is not None and not 0 < split.query_limit < 1 << 64:
        found.append(f"query limit {split.query_limit}: expected a count from 1, or none")
    if len(split.secure.outputs) != 1:
        found.append(f"{len(split.secure.outputs)} outputs of the secure graph, expected one answer")
        return found
    last = next((n.operator for n in split.secure.nodes if n.output == split.secure.outputs[0]), "none")
    if last == "argmax" and split.policy != "label":
        found.append(
            f"policy '{split.policy}' with a secure graph that ends in argmax: it has a label to give, no more"
        )
    return found
