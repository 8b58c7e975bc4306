"""`serve`: the owner of the model, who answers one client's batches and learns neither records nor answers."""

from __future__ import annotations

from collections.abc import Callable

from edgeward.backends.mpc.deployment.agreement import CLIENT, SERVER, Address, Terms, accept, send_plan
from edgeward.backends.mpc.deployment.joining import Expense, Joined, Material, reach_dealer
from edgeward.backends.mpc.deployment.lifeline import Lifeline
from edgeward.backends.mpc.inference.lowering import Lowered
from edgeward.backends.mpc.transport.rendezvous import Listener


def serve(
    lowered: Lowered,
    listen: Address,
    terms: Terms,
    material: Material,
    *,
    listening: Callable[[int], None] = lambda port: None,
    answered: Callable[[int], None] = lambda count: None,
) -> Expense:
    """Wait for a client, run batches as long as it wants some, and return what was counted.

    `listening` is told the port, `answered` the number of batches so far. Guarantee: as `Session`: one semi-honest,
    static party of the two sees no more than it must; the dealer is trusted and offline. The client receives the plan:
    architecture, shapes and formats are public. Raises: `ChannelError`, `StoreError`, `SupplyError`, `ConfigError`.
    """
    meeting = terms.meeting(SERVER, CLIENT)
    with Lifeline() as line:
        dealer = reach_dealer(material.dealer, SERVER, line, terms, terms.patience)
        with Listener(listen.host, listen.port, meeting) as listener:
            listening(listener.port)
            client = line.add(accept(listener, terms, lambda: None if dealer is None else dealer.check_quiet()))
        terms.note("the client is here")
        send_plan(client, lowered.plan)
        joined = Joined(lowered.plan, SERVER, client, line, terms, material, dealer, lowered.model)
        count = 0
        while joined.next_batch():
            count += 1
            answered(count)
        return joined.close()
