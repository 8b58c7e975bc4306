"""`Population`: S models of one architecture held as stacked tensors and run as one batched computation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, final

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call, vmap

from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.train.carrying import Carrying
from edgeward.train.dense import dense_layers, run_dense
from edgeward.train.state import aliases, fill, places, refuse_unstackable, volatile

Factory: TypeAlias = Callable[[], nn.Module]


def build(factory: Factory, seed: Seed) -> nn.Module:
    """Call `factory` with torch's global generator seeded and restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed.value)
        return factory()


def _laid_out(stacked: Tensor) -> Tensor:
    """Return stacked matrices in the memory order of their gradients (inputs before outputs), which saves a copy."""
    return stacked.mT.contiguous().mT if stacked.dim() == 3 else stacked


def _kind(tensor: Tensor) -> str:
    """Say what siblings must have in common."""
    frozen = "" if tensor.requires_grad or not isinstance(tensor, nn.Parameter) else ", frozen"
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}{frozen}"


def _different(name: str, kinds: Iterable[str]) -> ModelError:
    return ModelError(
        f"the models cannot be stacked at '{name}'",
        expected="one architecture with equal shapes and types, frozen in the same places",
        came=" and ".join(sorted(kinds)),
        fix="build every model with the same factory",
    )


@final
@dataclass
class Population:
    """S sibling models: `template` gives the structure, `params` and `buffers` the stacked state [S, ...].

    `params` are what training moves; frozen parameters (`requires_grad=False`) stand among the `buffers`. A tensor with
    several names (tied weights, a layer in two places) is held once, under its first name.
    Cost: one batched kernel per operator instead of S; memory is S times one model and its activations.
    """

    template: nn.Module
    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    writes_records: bool = False
    """Whether forward changes its input in place: every call then gets a copy of the records."""
    _runs: Carrying = field(init=False, repr=False, compare=False)
    _aliases: dict[str, str] = field(init=False, repr=False, compare=False)
    _places: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Lay the parameters out alike in every population: products round by memory order."""
        self.params = {name: _laid_out(tensor) for name, tensor in self.params.items()}
        self._aliases, self._places = aliases(self.template), places(self.template)
        self._runs = Carrying(self.template)

    @classmethod
    def initialise(cls, factory: Factory, seeds: Sequence[Seed], device: str = "cpu") -> Population:
        """Build one model per seed and stack them."""
        return cls.stack([build(factory, seed) for seed in seeds], device)

    @classmethod
    def stack(cls, models: Sequence[nn.Module], device: str = "cpu") -> Population:
        """Stack the states of sibling models; raises `ModelError` when their tensors differ or cannot be stacked."""
        for model in models:
            refuse_unstackable(model)
        params: dict[str, Tensor] = {}
        buffers: dict[str, Tensor] = {}
        entries = [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in models]
        for name, tensor in entries[0].items():
            kinds = {_kind(e[name]) if name in e else "absent" for e in entries}
            if len(kinds) != 1:
                raise _different(name, kinds)
            target = params if tensor.requires_grad and isinstance(tensor, nn.Parameter) else buffers
            target[name] = torch.stack([e[name].detach() for e in entries]).to(device)
        if extra := next((name for e in entries for name in e if name not in entries[0]), None):
            raise _different(extra, {"absent", "present"})
        return cls(models[0], params, buffers)

    def __len__(self) -> int:
        """Return S."""
        return len(self._any())

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self._any().device

    def _any(self) -> Tensor:
        return next(iter({**self.params, **self.buffers}.values()))

    def held(self, name: str) -> Tensor:
        """Return a stacked tensor by any of its names, trained or not."""
        first = self._aliases.get(name, name)
        return self.params[first] if first in self.params else self.buffers[first]

    def forward(self, x: Tensor, *, training: bool, per_model: bool) -> Tensor:
        """Run all models: `x` is [S, B, ...] if `per_model`, else [B, ...] shared; returns [S, B, C].

        In training mode buffers (running statistics) are updated in place, per model.
        """
        self._runs.train(training)
        x = x.clone() if self.writes_records else x
        layers = dense_layers(self.template, x.dim()) if per_model else None
        if layers is not None:
            return run_dense(layers, {**self.params, **self.buffers}, x)
        if self.writes_records and not per_model:
            x, per_model = x.expand(len(self), *x.shape).contiguous(), True
        run = vmap(self._one, in_dims=(0, 0, 0 if per_model else None), randomness="different")
        with warnings.catch_warnings():
            # slower operators still run; nobody but PyTorch can do anything about them
            warnings.filterwarnings("ignore", message="There is a performance drop")
            result: Tensor = run(self.params, self.buffers, x)
        # an in-place update with a value that carries gradients would chain the steps of training
        self.buffers = {name: b.detach() if b.requires_grad else b for name, b in self.buffers.items()}
        return result

    def _one(self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Any:
        held = {**params, **buffers}
        state = {f"inner.{place}": held[name] for place, name in self._places.items()}
        # not tie_weights: it would put a layer that stands in two places back in the wrong order
        return functional_call(self._runs, state, (x,), tie_weights=False)

    @torch.no_grad()
    def logits(self, x: Float[Tensor, "n ..."], *, chunk: int = 4096) -> Float[Tensor, "S n C"]:
        """Return the eval-mode logits of every model on the same records."""
        device = self.device
        pieces = [self.forward(part.to(device), training=False, per_model=False) for part in torch.split(x, chunk)]
        return torch.cat(pieces, dim=1)

    def tensors(self, index: int) -> dict[str, Tensor]:
        """Return all tensors of one model, under every name they have."""
        own = {name: t[index].detach().clone() for name, t in {**self.params, **self.buffers}.items()}
        return own | {name: own[first] for name, first in self._aliases.items()}

    def state(self, index: int) -> dict[str, Tensor]:
        """Return the state dict of one model: tied tensors under each name, without non-persistent buffers."""
        left = volatile(self.template)
        return {name: tensor for name, tensor in self.tensors(index).items() if name not in left}

    def member(self, index: int, factory: Factory) -> nn.Module:
        """Return one model as an ordinary module built by `factory`, in eval mode."""
        module = build(factory, Seed(0))
        fill(module, self.tensors(index))
        return module.eval()

    def alike(self) -> bool:
        """Return whether all models hold the same values in what no state dict stores."""
        left = [self.held(name) for name in volatile(self.template)]
        return all(torch.equal(tensor, tensor[:1].expand_as(tensor)) for tensor in left)

    def select(self, indices: Sequence[int]) -> Population:
        """Return the sub-population at `indices` (copies)."""
        rows = torch.as_tensor(list(indices))
        params = {name: t.detach()[rows].clone() for name, t in self.params.items()}
        buffers = {name: t[rows].clone() for name, t in self.buffers.items()}
        return Population(self.template, params, buffers, self.writes_records)

    def clone(self) -> Population:
        """Return an independent copy."""
        return self.select(range(len(self)))

    def save(self, path: Path) -> None:
        """Write the stacked state as safetensors, atomically."""
        partial_path = path.with_suffix(".partial")
        save_file({k: v.detach().contiguous() for k, v in {**self.params, **self.buffers}.items()}, partial_path)
        partial_path.replace(path)

    def load(self, path: Path) -> None:
        """Read back what `save` wrote into this population's tensors."""
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ModelError(
                f"the stored population {path.name} is damaged",
                expected="a complete safetensors file",
                came=str(error),
                fix=f"delete {path.name}; training starts again",
            ) from error
        self.assign(state)

    def assign(self, state: Mapping[str, Tensor]) -> None:
        """Copy stacked tensors into this population; names and shapes must match exactly."""
        own = {**self.params, **self.buffers}
        shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
        stored = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if stored != shapes:
            differing = sorted(n for n in shapes.keys() | stored.keys() if shapes.get(n) != stored.get(n))[:4]
            raise ModelError(
                "the stored population is of another architecture",
                expected=", ".join(f"{name} {shapes.get(name, 'absent')}" for name in differing),
                came=", ".join(f"{name} {stored.get(name, 'absent')}" for name in differing),
                fix="delete the stored file or use the same factory",
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])
