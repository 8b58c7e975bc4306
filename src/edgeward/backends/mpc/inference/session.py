"""A party of a secure inference: hold the model once, then answer batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import final

import numpy as np
from jaxtyping import Float

from edgeward.backends.mpc.inference.plan import RESULT, Plan
from edgeward.backends.mpc.inference.step import Held
from edgeward.backends.mpc.offline.tuples import Material, Supply, TupleReusedError
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.protocols.linear import mask_all_weights
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import Shared
from edgeward.core.errors import ConfigError, DataError

Model = Mapping[str, np.ndarray]
"""The float tensors of a model by the names of its plan's secrets: known to the model's owner only."""


@final
class Request:
    """The material for one batch, worked on as far as it goes without the input; to be used once."""

    __slots__ = ("_drawn",)

    def __init__(self, drawn: Iterable[Sequence[Material]]) -> None:
        """Hold the material of every step, or what draws it step by step, until it is taken."""
        # A list of one, because taking from it cannot be interrupted by another thread.
        self._drawn = [drawn]

    def take(self) -> Iterable[Sequence[Material]]:
        """Return the material and forget it; a second call raises `TupleReusedError`."""
        try:
            return self._drawn.pop()
        except IndexError:
            raise TupleReusedError("this request was run before", fix="prepare another") from None


@final
class Session:
    """One party's side of a network on secret input: party 0 owns the records, party 1 the model.

    So the dealer's corrections go to the model's owner, and the owner of the records needs a seed of 32 bytes.

    A party's share of what it owns is the thing itself, and the other's is zero; every message is masked by a one-time
    value that the receiver does not know. Guarantee: as `Party`: against one semi-honest, static party, with a
    dealer that is trusted and offline. The owner of the records learns the answer to the last fraction bit, and what
    follows from it: many answers teach about the model, against which secure computation does nothing. The owner of
    the model learns no answer. Unaudited.
    """

    def __init__(
        self, party: Party, plan: Plan, supply: Supply | None, model: Model | None = None, *, held: Held | None = None
    ) -> None:
        """Open the masked weights: one round for all layers, once; uses the supply's material for `plan.setup`.

        `model` at party 1, None at party 0; `held` from an earlier session of both parties with the same model and
        dealer: then nothing is opened. Raises: `ConfigError` for the wrong party or tensors that do not fit.
        """
        if party.first != (model is None):
            raise ConfigError(
                "the model belongs to the second party",
                expected="the model at party 1 and none at party 0",
                came=f"{'a' if model is not None else 'no'} model at party {party.number}",
            )
        if party.ring != plan.ring:
            raise ConfigError("party and plan differ in the ring", expected=str(plan.ring), came=str(party.ring))
        self._party, self._plan, self._supply = party, plan, supply
        self._held = held or self._hold(None if model is None else encoded(plan, model))

    @property
    def held(self) -> Held:
        """Return what this party holds of the model: as secret as its shares."""
        return self._held

    def prepare(self, supply: Supply | None = None) -> Request:
        """Draw a batch's material, from `supply` if given, and do all that needs no input (half of the products)."""
        return Request(list(self._draw(supply)))

    def prepare_later(self, supply: Supply | None = None) -> Request:
        """Return a request that draws every step's material when the step runs.

        Memory holds one step's material instead of a batch's; the products that need no input are computed while the
        other party waits. Run requests of this kind one after the other: they draw in the order of the supply.
        """
        return Request(self._draw(supply))

    def _draw(self, supply: Supply | None) -> Iterator[Sequence[Material]]:
        ring, source = self._plan.ring, self._supply if supply is None else supply
        if source is None:
            raise ConfigError("no material to draw from", fix="give the supply of a batch")
        for step in self._plan.steps:
            materials = [source.draw(demand) for demand in step.demands(ring)]
            yield step.prepare(self._party, self._held, materials)

    def run(
        self, request: Request, records: Float[np.ndarray, " n *shape"] | None = None
    ) -> Float[np.ndarray, " n *classes"] | None:
        """Run the network; return the answer at party 0 and None at party 1.

        `records` at party 0, None at party 1. Cost: `cost_table` of the plan. Raises: `DataError` for records that do
        not fit, `TupleReusedError` for a request run before, and the link's errors.
        """
        party, plan = self._party, self._plan
        share = self._input(records)
        materials = request.take()
        values = {plan.input: Shared(share, plan.ring.fraction)}
        for (step, done), drawn in zip(plan.last_use(), materials, strict=True):
            results = step.run(party, [values[name] for name in step.inputs], self._held, drawn)
            for name in done:
                del values[name]
            values.update(zip(step.outputs, results, strict=True))
        return self._reveal(values[plan.output])

    def _hold(self, elements: Mapping[str, np.ndarray] | None) -> Held:
        plan = self._plan
        if self._supply is None:
            raise ConfigError("no material to open the weights", fix="give the supply of `plan.setup`")
        shares = own_shares(plan, elements)
        materials = [self._supply.draw(mask) for mask in plan.setup]
        opened = mask_all_weights(self._party, [shares[mask.name] for mask in plan.setup], materials)
        return Held({one.name: one for one in opened}, unmasked(plan, shares))

    def _input(self, records: np.ndarray | None) -> np.ndarray:
        plan = self._plan
        if self._party.first != (records is not None):
            raise ConfigError("the records belong to the first party", expected="records at party 0 and none at 1")
        if records is None:
            return np.zeros(plan.input_shape, plan.ring.dtype)
        if records.shape != plan.input_shape:
            raise DataError("records do not fit the plan", expected=str(plan.input_shape), came=str(records.shape))
        return plan.ring.encode(records)

    def _reveal(self, x: Shared) -> np.ndarray | None:
        """Give the first party the value of `x`; it sends zeros, so that both sides count the same."""
        party, ring = self._party, self._plan.ring
        mine = np.ascontiguousarray(x.elements)
        theirs = party.link.exchange(np.zeros_like(mine) if party.first else mine, RESULT)
        if not party.first:
            return None
        answer: np.ndarray = ring.decode(ring.wrap(mine + theirs.reshape(mine.shape)), x.fraction)
        return answer


def own_shares(plan: Plan, elements: Mapping[str, np.ndarray] | None) -> dict[str, Shared]:
    """Return a party's shares of the model's tensors: the tensors themselves at their owner, zeros at the other."""
    found = {}
    for secret in plan.secrets:
        own = np.zeros(secret.shape, plan.ring.dtype) if elements is None else elements[secret.name]
        found[secret.name] = Shared(own, secret.fraction)
    return found


def unmasked(plan: Plan, shares: Mapping[str, Shared]) -> dict[str, Shared]:
    """Return the shares of the tensors that are added and never opened."""
    return {secret.name: shares[secret.name] for secret in plan.secrets if not secret.masked}


def encoded(plan: Plan, model: Model) -> dict[str, np.ndarray]:
    """Return the model's tensors as ring elements. Raises: `ConfigError` naming all that are missing or misshapen."""
    wrong = [s.name for s in plan.secrets if s.name not in model or model[s.name].shape != s.shape]
    if wrong:
        raise ConfigError(
            f"{len(wrong)} tensors of the model do not fit the plan",
            expected="the model that was lowered to this plan",
            came=", ".join(wrong[:5]),
            fix="lower the network again",
        )
    return {s.name: Ring(plan.ring.bits, s.fraction).encode(model[s.name]) for s in plan.secrets}
