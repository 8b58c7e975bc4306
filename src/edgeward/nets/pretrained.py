"""`pretrained`: reference networks with published weights, read from the data folder and checked by SHA-256."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

import torch
from torch import Tensor, nn

from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.core.registry import Registry
from edgeward.data.files import SourceFile, read_source

State: TypeAlias = dict[str, Tensor]


@final
@dataclass(frozen=True)
class Pretrained:
    """One set of published weights and the network it belongs to.

    `read` turns the checked file into a state dict; `trained_on` names every record the weights have seen, which is
    what an audit must know; `inputs` says what the network takes; `fresh` lists tensors the file does not hold, which
    are drawn anew.
    """

    file: SourceFile
    build: Callable[[], nn.Module]
    read: Callable[[bytes], State]
    input_shape: tuple[int, ...]
    classes: int
    trained_on: str
    licence: str
    inputs: str = "pixels in [0, 1]"
    fresh: tuple[str, ...] = ()


PRETRAINED: Registry[Pretrained] = Registry("pretrained network")


def pretrained(name: str, *, root: Path | None = None, seed: Seed | None = None) -> nn.Module:
    """Return a network of `PRETRAINED` with its published weights, in eval mode.

    `root` is the data folder (default: the environment variable EDGEWARD_DATA); `seed` draws what the file does not
    hold, a new head for instance (default: Seed(0)). The networks take records as the data sets of edgeward deliver
    them: where the authors standardised their inputs, that is a fixed first layer.

    Guarantee: the file is the published one, byte for byte (SHA-256), and runs no code when it is read.
    Raises `DataError` with the place to get the file from where it is missing or altered, `ConfigError` for an unknown
    name.
    """
    entry = PRETRAINED[name]
    state = entry.read(read_source(root, entry.file))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed((seed or Seed(0)).value)
        module = entry.build()
    _fill(module, state, {*entry.fresh, *filter(_own, module.state_dict())}, name)
    return module.eval()


def _own(key: str) -> bool:
    """Return whether a tensor is the network's own constant or counter, which files of weights do not hold."""
    return key.startswith("standardize.") or key.endswith("num_batches_tracked")


def _fill(module: nn.Module, state: Mapping[str, Tensor], kept: set[str], name: str) -> None:
    """Copy `state` into `module`; exactly the tensors in `kept` stay as they are."""
    own = module.state_dict()
    wrong = sorted((own.keys() - kept) ^ (state.keys() - kept))
    wrong += [key for key in sorted(own.keys() & state.keys()) if own[key].shape != state[key].shape]
    if wrong:
        raise ModelError(
            f"the weights of '{name}' do not fit its network",
            expected="one tensor of the same shape for each of the network's",
            came=f"{len(wrong)} that differ, for instance {', '.join(wrong[:4])}",
            fix="report this: file and network are both checked",
        )
    module.load_state_dict({**own, **state})
