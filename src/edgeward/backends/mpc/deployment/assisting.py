"""`assist`: the third of three parties, who holds neither records nor model and learns neither, nor the answers."""

from __future__ import annotations

from collections.abc import Callable

from edgeward.backends.mpc.deployment.agreement import ASSISTANT, CLIENT, SERVER, TRIO_ROLES, Address, Terms, welcome
from edgeward.backends.mpc.deployment.joining import Expense
from edgeward.backends.mpc.deployment.lifeline import Lifeline
from edgeward.backends.mpc.deployment.reception import Reception
from edgeward.backends.mpc.deployment.trio import Trio, invited
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.meter import Meter
from edgeward.backends.mpc.transport.rendezvous import Listener


def assist(
    listen: Address,
    terms: Terms,
    *,
    plan: str = "",
    listening: Callable[[int], None] = lambda port: None,
    answered: Callable[[int], None] = lambda count: None,
) -> Expense:
    """Wait for a server and a client, compute with them as long as the client wants, and return what was counted.

    Args: `plan`: the digest the server's plan must have, if it is known; `listening` is told the port, `answered` the
    number of batches so far.
    Guarantee: as `Trio`: whoever runs this alone learns the plan (architecture and shapes) and the number of batches;
    together with the server or with the client it knows everything. Raises: `ChannelError`, `UnsupportedOperators`.
    """
    meter = Meter()
    meetings = [terms.meeting(ASSISTANT, peer, meter=meter) for peer in (SERVER, CLIENT)]
    with Lifeline() as line:
        channels: dict[int, Channel] = {}

        def watch() -> None:
            for channel in channels.values():
                channel.check_quiet()

        with Listener(listen.host, listen.port, *meetings) as listener, Reception(listener, terms) as reception:
            listening(listener.port)
            while len(channels) < len(meetings):
                channel = line.add(reception.next(watch, channels))
                number = CLIENT if channel.peer == CLIENT else SERVER
                channels[number] = channel
                terms.note(f"the {TRIO_ROLES[number]} is here")
            reception.fill()
            welcome(channels[CLIENT])
            agreed, run = invited(channels[SERVER], plan)
            terms.note(f"the server's plan is {agreed.digest}")
            return Trio(agreed, ASSISTANT, channels, run, terms).follow(answered)
