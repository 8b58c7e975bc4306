"""Somebody on the wire between two parties: bytes altered, a connection cut, content looked for."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from backends.mpc.meetings import HOST, meet, meeting
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.rendezvous import MAGIC, Listener, connect
from patience import PATIENCE, SOON

pytest_plugins = ["backends.mpc.deployment_fixtures"]


def between(listening_port, alter):
    """Listen; pass all bytes on to `listening_port`, the client's ones through `alter(offset, bytes)`."""
    door = socket.create_server((HOST, 0))

    def pump(source, target, change):
        offset = 0
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                passed = change(offset, content)
                target.sendall(passed)
                offset += len(content)
                if len(passed) < len(content):
                    break
            else:
                target.shutdown(socket.SHUT_WR)
                return
        # Both directions end, as when the party behind dies.
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve():
        with contextlib.suppress(OSError), door:
            client, _ = door.accept()
            with client, socket.create_connection((HOST, listening_port)) as server:
                back = threading.Thread(target=pump, args=(server, client, lambda _, content: content))
                back.start()
                pump(client, server, alter)
                back.join()

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    return door.getsockname()[1], serving


def meet_through(credentials, alter, run):
    """Let two parties meet with somebody between them; return what each got."""
    wires = []

    def through(port):
        there, serving = between(port, alter)
        wires.append(serving)
        return there

    outcome = meet(meeting(0, credentials["server"]), meeting(1, credentials["client"]), run, through)
    wires[0].join(PATIENCE)
    return outcome


@pytest.mark.parametrize("place", [300, 5000, 100_000, 700_000])
def test_one_bit_altered_on_the_way_under_tls(credentials, place):
    def alter(offset, content):
        changed = bytearray(content)
        if offset <= place < offset + len(content):
            changed[place - offset] ^= 0x10
        return bytes(changed)

    outcome = meet_through(credentials, alter, lambda channel: channel.exchange(np.zeros(100_000, np.int64), "step"))
    assert outcome[0].reason in (Failure.MALFORMED, Failure.UNTRUSTED, Failure.FOREIGN)
    assert not isinstance(outcome[1], np.ndarray) or not outcome[1].any()


def test_a_connection_cut_at_any_of_fifty_points_gives_no_answer(credentials):
    """The client's bytes end anywhere, from the first of the handshake to the last of its last message."""

    def run(channel):
        sizes = (1, 3000, 40_000, 2)
        return sum(int(channel.exchange(np.ones(size, np.int64), f"step {size}").sum()) for size in sizes)

    seen = []
    assert meet_through(credentials, lambda _, content: seen.append(len(content)) or content, run) == [43_003] * 2
    # After the last message comes the goodbye only: one header in one record of TLS. A signature's length varies.
    end = sum(seen) - (32 + 22) - 10
    points = [0, 1, end - 1, *np.random.default_rng(5).integers(0, end, 47).tolist()]
    for point in points:

        def cut(offset, content, point=point):
            return content[: max(0, point - offset)]

        began = time.monotonic()
        server, client = meet_through(credentials, cut, run)
        assert isinstance(server, ChannelError), f"cut after {point} bytes"
        assert server.reason is (Failure.GONE if point else Failure.FOREIGN)
        assert isinstance(client, ChannelError) or client == 43_003
        assert time.monotonic() - began < SOON


def test_nothing_of_the_content_is_on_the_wire(credentials):
    seen = bytearray()

    def listen_in(_, content):
        seen.extend(content)
        return content

    secret = np.frombuffer(b"a very secret share value " * 40, np.uint8)

    def send(port):
        with connect(HOST, port, meeting(1, credentials["client"]), patience=PATIENCE) as channel:
            channel.send(secret, "secret step")

    with Listener(HOST, 0, meeting(0, credentials["server"])) as listener:
        port, serving = between(listener.port, listen_in)
        other = threading.Thread(target=send, args=(port,))
        other.start()
        with listener.accept(patience=PATIENCE) as channel:
            assert (channel.receive(secret.shape, np.uint8, "secret step") == secret).all()
        other.join()
        serving.join(PATIENCE)
    assert len(seen) > len(secret)
    assert b"secret" not in bytes(seen)
    assert MAGIC not in bytes(seen)
