"""How two parties of a test meet, in two threads on this machine."""

import threading

from edgeward.backends.mpc.transport.failures import ChannelError
from edgeward.backends.mpc.transport.rendezvous import Listener, Meeting, connect
from patience import PATIENCE

SESSION = bytes(range(32))
HOST = "127.0.0.1"


def meeting(party, credentials=None, **more):
    names = ("server", "client")
    given = {"session": SESSION, "timeout": PATIENCE, "greeting_timeout": PATIENCE, **more}
    return Meeting(party, 1 - party, given.pop("peer_name", names[1 - party]), credentials=credentials, **given)


def meet(server, client, run=lambda channel: None, through=lambda port: port):
    """Let two parties meet and run; return what each got: a result or its reason.

    `through` maps the server's port to the one that the client calls.
    """
    outcome = [None, None]

    def party(number, open_channel):
        try:
            with open_channel() as channel:
                outcome[number] = run(channel)
        except ChannelError as error:
            outcome[number] = error

    with Listener(HOST, 0, server) as listener:
        port = through(listener.port)
        other = threading.Thread(target=party, args=(1, lambda: connect(HOST, port, client, patience=PATIENCE)))
        other.start()
        party(0, lambda: listener.accept(patience=PATIENCE))
        other.join()
    return outcome


def reasons(outcome):
    return [getattr(one, "reason", one) for one in outcome]
