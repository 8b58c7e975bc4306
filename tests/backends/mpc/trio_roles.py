"""Assistant, server and client as three threads on this machine, over TLS or without."""

import threading
import time

from edgeward import mpc
from edgeward.backends.mpc.deployment import asking, assisting, serving
from patience import PATIENCE, SOON
from ports import free_ports

# Imported before there are threads, which would import them at once.
ROOMS = (asking, assisting, serving)
TRIO = ("assistant", "server", "client")


def assisted(keys, model, x, through=None, ask=None, **changes):
    """Run the three roles as threads; return what each gave: a result or its error.

    `keys` None: without TLS; `through` maps (from, to) to a port that stands between; `changes`: arguments by role.
    """
    reach = dict(zip(("assistant", "server"), free_ports(2), strict=True))
    terms = {"patience": PATIENCE, "timeout": PATIENCE, "parties": 3}

    def to(role, peer):
        return f"127.0.0.1:{through(role, peer, reach[peer]) if through else reach[peer]}"

    given = {
        "assistant": {"listen": f"127.0.0.1:{reach['assistant']}"},
        "server": {
            "listen": f"127.0.0.1:{reach['server']}",
            "assistant": to("server", "assistant"),
            "model": model,
        },
        "client": {"server": to("client", "server"), "assistant": to("client", "assistant")},
    }
    results, ended = dict.fromkeys(TRIO), {}

    def run(role):
        folder = None if keys is None else keys / role
        try:
            one = mpc.deploy(role, **{"keys": folder, **terms, **given[role], **changes.get(role, {})})
            if role == "client":
                with one:
                    answer = ask(one) if ask else one.run(x)
                results[role] = (answer, one.expense)
            else:
                results[role] = one.run()
        except Exception as error:
            results[role] = error
        ended[role] = time.monotonic()

    threads = [threading.Thread(target=run, args=(role,), name=role) for role in TRIO]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert not any(thread.is_alive() for thread in threads), results
    assert max(ended.values()) - min(ended.values()) < SOON, results
    return results
