"""`Population`: S models of one architecture held as stacked tensors and run as one batched computation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, final

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call, vmap

from edgeward.core.errors import ModelError
from edgeward.core.randomness import Seed
from edgeward.train.dense import dense_layers, run_dense

Factory: TypeAlias = Callable[[], nn.Module]


def build(factory: Factory, seed: Seed) -> nn.Module:
    """Call `factory` with torch's global generator seeded and restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed.value)
        return factory()


def _laid_out(stacked: Tensor) -> Tensor:
    """Return stacked matrices in the memory order of their gradients (inputs before outputs), which saves a copy."""
    return stacked.mT.contiguous().mT if stacked.dim() == 3 else stacked


@final
@dataclass
class Population:
    """S sibling models: `template` gives the structure, `params` and `buffers` the stacked state [S, ...].

    Cost: one batched kernel per operator instead of S; memory is S times one model and its activations.
    """

    template: nn.Module
    params: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def __post_init__(self) -> None:
        """Lay the parameters out alike in every population: products round by memory order."""
        self.params = {name: _laid_out(tensor) for name, tensor in self.params.items()}

    @classmethod
    def initialise(cls, factory: Factory, seeds: Sequence[Seed], device: str = "cpu") -> Population:
        """Build one model per seed and stack them."""
        return cls.stack([build(factory, seed) for seed in seeds], device)

    @classmethod
    def stack(cls, models: Sequence[nn.Module], device: str = "cpu") -> Population:
        """Stack the states of sibling models; raises `ModelError` when their shapes differ."""
        params: dict[str, Tensor] = {}
        buffers: dict[str, Tensor] = {}
        for target, entries in (
            (params, [dict(m.named_parameters()) for m in models]),
            (buffers, [dict(m.named_buffers()) for m in models]),
        ):
            for name in entries[0]:
                shapes = {tuple(e[name].shape) for e in entries if name in e}
                if len(shapes) != 1 or any(name not in e for e in entries):
                    raise ModelError(
                        f"the models cannot be stacked at '{name}'",
                        expected="one architecture with equal shapes",
                        came=f"{len(shapes)} different shapes",
                        fix="build every model with the same factory",
                    )
                target[name] = torch.stack([e[name].detach() for e in entries]).to(device)
        return cls(models[0], params, buffers)

    def __len__(self) -> int:
        """Return S."""
        return len(next(iter(self.params.values())))

    def forward(self, x: Tensor, *, training: bool, per_model: bool) -> Tensor:
        """Run all models: `x` is [S, B, ...] if `per_model`, else [B, ...] shared; returns [S, B, C].

        In training mode buffers (running statistics) are updated in place, per model.
        """
        self.template.train(training)
        layers = dense_layers(self.template, x.dim()) if per_model else None
        if layers is not None:
            return run_dense(layers, self.params, x)
        call = partial(functional_call, self.template)
        run = vmap(
            lambda p, b, v: call((p, b), (v,)),
            in_dims=(0, 0, 0 if per_model else None),
            randomness="different",
        )
        result: Tensor = run(self.params, self.buffers, x)
        return result

    @torch.no_grad()
    def logits(self, x: Float[Tensor, "n ..."], *, chunk: int = 4096) -> Float[Tensor, "S n C"]:
        """Return the eval-mode logits of every model on the same records."""
        device = next(iter(self.params.values())).device
        pieces = [self.forward(part.to(device), training=False, per_model=False) for part in torch.split(x, chunk)]
        return torch.cat(pieces, dim=1)

    def state(self, index: int) -> dict[str, Tensor]:
        """Return the state dict of one model."""
        return {name: t[index].detach().clone() for name, t in {**self.params, **self.buffers}.items()}

    def member(self, index: int, factory: Factory) -> nn.Module:
        """Return one model as an ordinary module built by `factory`, in eval mode."""
        module = build(factory, Seed(0))
        module.load_state_dict(self.state(index))
        return module.eval()

    def select(self, indices: Sequence[int]) -> Population:
        """Return the sub-population at `indices` (copies)."""
        rows = torch.as_tensor(list(indices))
        params = {name: t.detach()[rows].clone() for name, t in self.params.items()}
        return Population(self.template, params, {name: t[rows].clone() for name, t in self.buffers.items()})

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
