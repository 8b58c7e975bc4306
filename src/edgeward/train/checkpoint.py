"""Checkpoints of a running population: weights, optimiser state, parts' memory and the epoch, in one file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgeward.core.errors import ModelError
from edgeward.train.part import Context
from edgeward.train.population import Population


def save(path: Path, population: Population, optimizer: torch.optim.Optimizer, context: Context, tag: str) -> None:
    """Write everything needed to continue after `context.epoch`, atomically.

    `tag` names the run (its content hash); a checkpoint of another run is never resumed.
    """
    tensors = {f"model.{name}": t.detach() for name, t in {**population.params, **population.buffers}.items()}
    tensors |= {f"memory.{name}": t for name, t in context.memory.items()}
    for index, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": t for key, t in entry.items() if isinstance(t, Tensor)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state = {"epoch": str(context.epoch), "tag": tag, "stop": str(int(context.stop))}
    save_file({k: t.contiguous() for k, t in tensors.items()}, partial, metadata=state)
    partial.replace(path)


def restore(path: Path, population: Population, optimizer: torch.optim.Optimizer, context: Context, tag: str) -> bool:
    """Continue from `path` if it holds a checkpoint of the run `tag`; return whether it did.

    Raises `ModelError` for a file that is damaged; a checkpoint of another run is ignored.
    """
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("tag") != tag:
                return False
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ModelError(
            f"the checkpoint {path.name} is damaged",
            expected="a complete safetensors file",
            came=str(error),
            fix=f"delete {path.name}; training starts again",
        ) from error
    population.assign({k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")})
    context.memory.update({k.removeprefix("memory."): t for k, t in tensors.items() if k.startswith("memory.")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    context.epoch = int(metadata["epoch"])
    context.stop = metadata["stop"] == "1"
    return True
