"""Weights from disk: safetensors, or checkpoints that hold nothing but tensors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeward.core.errors import ModelError

_LISTED = 12


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file or of a PyTorch checkpoint.

    A checkpoint is read with `weights_only=True`, so that a file cannot run code; it may be a state dict or a
    dictionary that holds one under "state_dict" or "model". The prefix "module." of data-parallel training is removed.

    Returns: name -> tensor on the CPU.
    Guarantee: no code of the file runs (assumed of PyTorch's restricted unpickler and of safetensors).
    Raises `ModelError` for a missing, truncated or foreign file and for one that holds more than tensors.
    """
    if not path.is_file():
        raise ModelError(
            f"there is no weights file '{path.name}'",
            expected="a .safetensors file or a PyTorch checkpoint",
            came=str(path),
            fix="check the path; relative paths of a job file start at the job file",
        )
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    return _strip_prefix(found)


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, name: str) -> None:
    """Copy `state` into `module`, or raise one `ModelError` that lists every key, shape and value that does not fit."""
    problems = mismatches(module, state)
    if problems:
        shown = problems[:_LISTED] + ([f"... and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else [])
        raise ModelError(
            f"the weights '{name}' do not fit the network:\n    " + "\n    ".join(shown),
            expected="exactly the network's tensors, with its shapes and finite values",
            came=f"{len(problems)} problems in {len(state)} tensors",
            fix="build the network with the arguments it was trained with, or export the weights again",
        )
    module.load_state_dict(dict(state))


def mismatches(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Return every reason why `state` is not a state of `module`: missing, unexpected, misshapen, not finite."""
    own = module.state_dict()
    problems = [f"missing: {key}" for key in own if key not in state]
    problems += [f"unexpected: {key}" for key in state if key not in own]
    for key in own.keys() & state.keys():
        ours, theirs = tuple(own[key].shape), tuple(state[key].shape)
        if ours != theirs:
            problems.append(f"shape of {key}: expected {list(ours)}, came {list(theirs)}")
        elif theirs and state[key].is_floating_point() and not bool(torch.isfinite(state[key]).all()):
            problems.append(f"NaN or infinity in {key}")
    return sorted(problems)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except Exception as error:
        raise ModelError(
            f"'{path.name}' is not a whole safetensors file",
            expected="a file written by safetensors",
            came=str(error).splitlines()[0][:200],
            fix="copy the file again, or save it again with safetensors.torch.save_file",
        ) from error


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    from pickle import UnpicklingError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ModelError(
            f"'{path.name}' is refused: it is not a file of plain tensors",
            expected="a state dict that torch.load(..., weights_only=True) reads; such a file cannot run code",
            came="a pickle that holds other objects, or damaged bytes",
            fix="in the program that wrote it: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')",
        ) from error
    except Exception as error:
        raise ModelError(
            f"'{path.name}' is not a whole PyTorch checkpoint",
            expected="a file written by torch.save(model.state_dict(), ...)",
            came=(str(error).splitlines() or [type(error).__name__])[0][:200],
            fix="copy the file again; a truncated download is the usual cause",
        ) from error
    return _tensors(content, path.name)


def _tensors(content: Any, name: str) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    others: list[str] = []
    if isinstance(content, Mapping):
        others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if not isinstance(content, Mapping) or others or not content:
        came = f"entries that are no tensors: {', '.join(others[:_LISTED])}" if others else f"{type(content).__name__}"
        raise ModelError(
            f"'{name}' is not a state dict",
            expected='a dictionary of tensors, or one that holds it under "state_dict" or "model"',
            came=came,
            fix="save model.state_dict()",
        )
    return {str(key): value.detach() for key, value in content.items()}


def _strip_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if state and all(key.startswith("module.") for key in state):
        return {key[len("module.") :]: value for key, value in state.items()}
    return state
