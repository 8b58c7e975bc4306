"""Ports of this machine that nobody else is given as long as this process lives."""

import socket

_RESERVED: list[socket.socket] = []


def free_ports(count):
    """Return ports to listen at. Each stays bound here, without listening: the system then gives it to nobody else.

    A listener that allows a bound address to be used again (all of ours do) can still take it, and who connects before
    that is refused.
    """
    return [_reserve() for _ in range(count)]


def _reserve():
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
    _RESERVED.append(one)
    return one.getsockname()[1]
