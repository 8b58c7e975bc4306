"""`Client`: the owner of the records, who alone learns the answers."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import final

import numpy as np
from jaxtyping import Float

from edgeward.backends.mpc.deployment.agreement import (
    ASSISTANT,
    CLIENT,
    SERVER,
    Address,
    Terms,
    check_digest,
    receive_plan,
    welcomed,
)
from edgeward.backends.mpc.deployment.joining import Expense, Joined, Material, reach_dealer
from edgeward.backends.mpc.deployment.lifeline import Lifeline
from edgeward.backends.mpc.deployment.trio import Assistance, Trio, arrive, invited, reach_assistant
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.inference.reference import check_range
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.meter import Meter
from edgeward.backends.mpc.transport.rendezvous import connect
from edgeward.core.errors import ConfigError, DataError

_THIRD_PATIENCE = 3.5
"""The server has reached the dealer, or the assistant, already, and waits meanwhile."""


@final
class Client:
    """As a `with` block: meets server and dealer, then answers calls; `expense` holds the counts after the block.

    Guarantee: as `Session`: the server and the dealer learn how many records there are, and nothing else of them; one
    semi-honest, static party, a dealer that is trusted and offline. With an `Assistance` in the place of the dealer's
    material as `Trio`: one semi-honest, static party of three. After any error no answer may be used.
    """

    def __init__(self, server: Address, terms: Terms, material: Material | Assistance, *, plan: str = "") -> None:
        """Prepare; nothing is sent before the block. `plan`: the digest the server's plan must have, if it is known."""
        self._server, self._terms, self._material, self._expected = server, terms, material, plan
        self._line = Lifeline()
        self._joined: Joined | Trio | None = None
        self._left = False
        self._plan: Plan | None = None
        self.expense: Expense | None = None

    @property
    def plan(self) -> Plan:
        """Return the plan the server sent. Raises: `ConfigError` outside the block."""
        if self._plan is None:
            raise ConfigError("there is no plan yet", fix="use the client in a `with` block")
        return self._plan

    def check(self, records: np.ndarray) -> None:
        """Raise `DataError` for records that the plan does not take."""
        shape = self.plan.input_shape[1:]
        good = records.ndim == len(shape) + 1 and records.shape[1:] == shape and len(records) > 0
        if not good or records.dtype.kind not in "fiu" or not np.isfinite(records).all():
            raise DataError(
                "these records do not fit the server's network",
                expected=f"finite numbers of shape {list(shape)} per record",
                came=f"{records.dtype} {list(records.shape)}",
                fix="scale and arrange the records as in training",
            )

    def run(
        self, records: Float[np.ndarray, " n *shape"], answered: Callable[[int, int], None] = lambda done, total: None
    ) -> Float[np.ndarray, " n *classes"]:
        """Return the network's answer for each record, all of them or none; batches as the server's plan has them.

        The last batch is filled with zeros, which cost as much as records; `answered` is told how many batches are
        done, and of how many. Before anything is sent, and without telling anybody, the client looks at the steps that
        follow from its records alone, up to the first weights; what lies behind only the server can look at, on records
        of its own. Raises: `DataError`, of these `OutOfRange`; `SupplyError`, and the link's errors.
        """
        if self._joined is None:
            raise ConfigError("the client is not connected", fix="use it in a `with` block")
        self.check(records)
        check_range(self.plan, None, records.astype(np.float64))
        size, answers = self.plan.input_shape[0], []
        if isinstance(self._joined, Joined):
            self._joined.check_supply(-(-len(records) // size))
        for start in range(0, len(records), size):
            part = records[start : start + size].astype(np.float64)
            fill = np.zeros((size - len(part), *part.shape[1:]))
            answer = self._joined.batch(np.concatenate([part, fill]))
            if answer is None:
                raise TypeError("the owner of the records always learns the answer")
            answers.append(answer[: len(part)])
            answered(len(answers), -(-len(records) // size))
        return np.concatenate(answers)

    def fetch(self, count: int) -> None:
        """Fill the stores of both parties up to `count` batches and leave; nothing else may follow in the block."""
        if self._joined is None:
            raise ConfigError("the client is not connected", fix="use it in a `with` block")
        self._joined.fetch(count)
        self._left = True

    def __enter__(self) -> Client:
        """Connect, receive the plan, meet the dealer, open the weights. Raises: `ChannelError` and others."""
        self._line.__enter__()
        try:
            given = self._material
            self._joined = self._assisted(given) if isinstance(given, Assistance) else self._supplied(given)
        except BaseException as error:
            self._line.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _supplied(self, material: Material) -> Joined:
        server = self._reach(None)
        dealer = reach_dealer(material.dealer, CLIENT, self._line, self._terms, _THIRD_PATIENCE)
        plan = receive_plan(server)
        check_digest(plan, self._expected)
        self._keep(plan)
        return Joined(plan, CLIENT, server, self._line, self._terms, material, dealer)

    def _assisted(self, place: Assistance) -> Trio:
        meter = Meter()
        server = self._reach(meter)
        assistant = reach_assistant(place, CLIENT, self._line, self._terms, _THIRD_PATIENCE, meter)
        arrive(server, assistant, self._terms.timeout)
        plan, run = invited(server, self._expected)
        self._keep(plan)
        return Trio(plan, CLIENT, {SERVER: server, ASSISTANT: assistant}, run, self._terms)

    def _reach(self, meter: Meter | None) -> Channel:
        meeting = self._terms.meeting(CLIENT, SERVER, meter=meter)
        self._terms.note(f"looking for the server at {self._server}")
        server = self._line.add(connect(self._server.host, self._server.port, meeting, patience=self._terms.patience))
        # Before a word to anybody else: a client that is turned away must not stop those who are at work.
        welcomed(server)
        return server

    def _keep(self, plan: Plan) -> None:
        self._plan = plan
        self._terms.note(f"the server's plan is {plan.digest}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the server that no batch follows, or that this party failed."""
        joined, self._joined = self._joined, None
        if joined is not None and error is None:
            try:
                if not self._left:
                    joined.leave()
                self.expense = joined.close()
            except BaseException as late:
                self._line.__exit__(type(late), late, late.__traceback__)
                raise
        self._line.__exit__(kind, error, trace)
