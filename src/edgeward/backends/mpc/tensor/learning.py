"""Training on secret data: steps of stochastic gradient descent on secret parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from edgeward.backends.mpc.tensor.secret import SecretTensor
from edgeward.core.errors import ConfigError


@final
class Descent:
    """Stochastic gradient descent with momentum; rate and momentum are public."""

    def __init__(self, parameters: Sequence[SecretTensor], rate: float, momentum: float = 0.0) -> None:
        """Track `parameters`."""
        if rate <= 0 or not 0 <= momentum < 1:
            raise ConfigError("no such descent", expected="rate > 0, momentum in [0, 1)", came=f"{rate}, {momentum}")
        self._parameters = [parameter.track() for parameter in parameters]
        self._rate, self._momentum = rate, momentum
        self._moving: list[SecretTensor | None] = [None] * len(parameters)

    def step(self) -> None:
        """Move every parameter against its gradient, and forget the gradients. Cost: a truncation or two each."""
        for i, parameter in enumerate(self._parameters):
            change = parameter.gradient
            if change is None:
                continue
            moving = self._moving[i]
            if moving is not None:
                change = change + moving * self._momentum
            if self._momentum:
                change = SecretTensor(change.protocols, change.short())
                self._moving[i] = change
            parameter.assign(parameter.detach() - change * self._rate)
