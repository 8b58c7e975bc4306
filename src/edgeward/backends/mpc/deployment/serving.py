"""`serve`: the owner of the model, who answers one client's batches and learns neither records nor answers."""

from __future__ import annotations

from collections.abc import Callable

from edgeward.backends.mpc.deployment.agreement import ASSISTANT, CLIENT, SERVER, Address, Terms, send_plan, welcome
from edgeward.backends.mpc.deployment.joining import Expense, Joined, Material, reach_dealer
from edgeward.backends.mpc.deployment.lifeline import Lifeline
from edgeward.backends.mpc.deployment.reception import Reception
from edgeward.backends.mpc.deployment.trio import RUN_BYTES, Assistance, Trio, await_client, invite, reach_assistant
from edgeward.backends.mpc.inference.lowering import Lowered
from edgeward.backends.mpc.replicated.execution import check_plan
from edgeward.backends.mpc.transport.meter import Meter
from edgeward.backends.mpc.transport.rendezvous import Listener
from edgeward.core.randomness import SecretBytes


def serve(
    lowered: Lowered,
    listen: Address,
    terms: Terms,
    material: Material,
    *,
    listening: Callable[[int], None] = lambda port: None,
    answered: Callable[[int], None] = lambda count: None,
) -> Expense:
    """Wait for a client, run batches as long as it wants some, and return what was counted; others are turned away.

    `listening` is told the port, `answered` the number of batches so far. Guarantee: as `Session`: one semi-honest,
    static party of the two sees no more than it must; the dealer is trusted and offline. The client receives the plan:
    architecture, shapes and formats are public. Raises: `ChannelError`, `StoreError`, `SupplyError`, `ConfigError`.
    """
    meeting = terms.meeting(SERVER, CLIENT)
    with Lifeline() as line:
        dealer = reach_dealer(material.dealer, SERVER, line, terms, terms.patience)
        with Listener(listen.host, listen.port, meeting) as listener, Reception(listener, terms) as reception:
            listening(listener.port)
            client = line.add(reception.next(lambda: None if dealer is None else dealer.check_quiet()))
            reception.fill()
            terms.note("the client is here")
            welcome(client)
            send_plan(client, lowered.plan)
            joined = Joined(lowered.plan, SERVER, client, line, terms, material, dealer, lowered.model)
            count = 0
            while joined.next_batch():
                count += 1
                answered(count)
            return joined.close()


def serve_with_assistant(
    lowered: Lowered,
    listen: Address,
    terms: Terms,
    place: Assistance,
    *,
    listening: Callable[[int], None] = lambda port: None,
    answered: Callable[[int], None] = lambda count: None,
) -> Expense:
    """As `serve`, with an assistant in the place of the dealer, who computes with both parties all the time.

    Guarantee: as `Trio`: one semi-honest, static party of three; no two may work together. Both others receive the
    plan. Raises: `ChannelError`, `UnsupportedOperators`, `ConfigError`.
    """
    check_plan(lowered.plan)
    meter = Meter()
    meeting = terms.meeting(SERVER, CLIENT, meter=meter)
    with Lifeline() as line:
        assistant = reach_assistant(place, SERVER, line, terms, terms.patience, meter)
        with Listener(listen.host, listen.port, meeting) as listener, Reception(listener, terms) as reception:
            listening(listener.port)
            client = line.add(reception.next(assistant.check_quiet))
            reception.fill()
            terms.note("the client is here")
            welcome(client)
            await_client(client)
            channels, run = {CLIENT: client, ASSISTANT: assistant}, SecretBytes.draw(RUN_BYTES).reveal()
            invite(channels, lowered.plan, run)
            return Trio(lowered.plan, SERVER, channels, run, terms, lowered.model).follow(answered)
