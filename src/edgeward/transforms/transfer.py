"""Transfer: start a population from another's tensors, as a quantised student from its dense teacher."""

from __future__ import annotations

import torch

from edgeward.core.errors import ModelError
from edgeward.train.population import Population
from edgeward.transforms.transform import derived_buffers, refresh


@torch.no_grad()
def transfer(source: Population, target: Population) -> list[str]:
    """Copy every tensor of equal name and shape from `source` into `target`, model by model.

    Returns: the names in `target` that were left as initialised, scales that follow from weights excepted.
    Raises: `ModelError` when the populations differ in size or share no tensor.
    """
    if len(source) != len(target):
        raise ModelError(
            "tensors pass between populations of one size only",
            expected=f"{len(target)} models",
            came=f"{len(source)} models",
            fix="use source.select(...)",
        )
    given = {**source.params, **source.buffers}
    own = {**target.params, **target.buffers}
    fitting = [name for name, tensor in own.items() if name in given and given[name].shape == tensor.shape]
    if not fitting:
        raise ModelError(
            "the populations share no tensor",
            expected=", ".join(list(own)[:4]),
            came=", ".join(list(given)[:4]),
            fix="transform the factory that built the source",
        )
    for name in fitting:
        own[name].copy_(given[name])
    refresh(target)
    derived = derived_buffers(target)
    return [name for name in own if name not in fitting and name not in derived]
