"""Dealer, server and client as three threads over TLS on this machine, and a wire that harms what passes it."""

import contextlib
import socket
import threading
import time

import numpy as np
import torch
from torch import nn

from edgeward import mpc
from patience import PATIENCE, SOON
from ports import free_ports

SHAPE = (1, 6, 6)
ROLES = ("dealer", "server", "client")


def small_net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).eval()


def drawn(count, seed=0):
    return np.random.default_rng(seed).random((count, *SHAPE), np.float32)


def right(net, x):
    with torch.no_grad():
        return net(torch.from_numpy(np.asarray(x, np.float32))).numpy()


def deployed(keys, model, x, through=None, batches=None, ask=None, after=None, **changes):
    """Run the three roles as threads; return what each gave: a result or its error, and how long it took.

    `changes` are arguments by role; `through` maps (from, to) to a port that stands between; the client comes `after`.
    """
    dealer, server = free_ports(2)
    terms = {"patience": PATIENCE, "timeout": PATIENCE}
    reach = {"server": server, "dealer": dealer}

    def to(role, peer):
        return f"127.0.0.1:{through(role, peer, reach[peer]) if through else reach[peer]}"

    given = {
        "dealer": {"listen": f"127.0.0.1:{dealer}"},
        "server": {"listen": f"127.0.0.1:{server}", "dealer": to("server", "dealer"), "model": model},
        "client": {"server": to("client", "server"), "dealer": to("client", "dealer")},
    }
    results, ended = dict.fromkeys(ROLES), {}

    def run(role):
        try:
            if role == "client" and after is not None:
                assert after.wait(PATIENCE)
            one = mpc.deploy(role, **{"keys": keys / role, **terms, **given[role], **changes.get(role, {})})
            if role == "client":
                with one:
                    answer = ask(one) if ask else one.run(x)
                results[role] = (answer, one.expense)
            else:
                results[role] = one.run(batches=batches) if role == "dealer" else one.run()
        except Exception as error:
            results[role] = error
        ended[role] = time.monotonic()

    needs_dealer = changes.get("client", {}).get("dealer", "") is not None
    threads = [
        threading.Thread(target=run, args=(role,), name=role) for role in ROLES if role != "dealer" or needs_dealer
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    assert max(ended.values()) - min(ended.values()) < SOON
    return results


class Between:
    """A wire between two parties that passes bytes on, until it alters one or ends, after `after` bytes."""

    def __init__(self, target, after, mode, *, caller=False):
        self._target, self._after, self._mode, self._caller = target, after, mode, caller
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def join(self):
        self._thread.join(PATIENCE)

    def _accept(self):
        with self._listening:
            here, _ = self._listening.accept()
        with here, self._reach() as there:
            here.settimeout(PATIENCE)
            # What the party that was called says suffers, or what the caller says.
            passing = [
                threading.Thread(target=self._pass, args=(source, sink, harmed), daemon=True)
                for source, sink, harmed in ((here, there, self._caller), (there, here, not self._caller))
            ]
            for thread in passing:
                thread.start()
            for thread in passing:
                thread.join()

    def _reach(self):
        """Wait as long as a party would for one that is not listening yet."""
        for _ in range(round(PATIENCE / 0.05)):
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", self._target), timeout=PATIENCE)
            time.sleep(0.05)
        raise AssertionError("nobody listens")

    def _pass(self, source, sink, harmed):
        seen = 0
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 16):
                if harmed and seen <= self._after < seen + len(part):
                    at = self._after - seen
                    part = part[:at] if self._mode == "cut" else part[:at] + bytes([part[at] ^ 1]) + part[at + 1 :]
                sink.sendall(part)
                seen += len(part)
                if harmed and self._mode == "cut" and seen >= self._after:
                    break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
