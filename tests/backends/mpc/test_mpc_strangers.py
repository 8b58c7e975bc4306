"""Who comes and is none of the parties: other versions, garbage, silence, a few bytes at a time."""

import contextlib
import socket
import struct
import threading
import time

import pytest

from backends.mpc.meetings import HOST, SESSION, meeting
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.rendezvous import GREETING_BYTES, MAGIC, VERSION, Listener, connect
from patience import PATIENCE

pytest_plugins = ["backends.mpc.deployment_fixtures"]


def stranger(credentials, content, *, close=True, **more):
    """Return why a listener refuses a stranger who says `content`, and what it answered."""
    with (
        Listener(HOST, 0, meeting(0, credentials, **more)) as listener,
        socket.create_connection((HOST, listener.port)) as bare,
    ):
        bare.sendall(content)
        if close:
            bare.shutdown(socket.SHUT_WR)
        with pytest.raises(ChannelError) as caught:
            listener.accept(patience=PATIENCE)
        answer = b""
        with contextlib.suppress(OSError):
            while came := bare.recv(1000):
                answer += came
    return caught.value, answer


@pytest.mark.parametrize("content", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", bytes(100), b"\xff" * 100])
def test_a_plain_text_stranger(credentials, content):
    for own in (credentials["server"], None):
        error, _ = stranger(own, content)
        assert error.reason is Failure.FOREIGN


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1, 65535])
def test_another_version_is_named_by_both_ends(version):
    error, answer = stranger(None, struct.pack("<4sHH", MAGIC, version, 4) + b"more")
    assert error.reason is Failure.VERSION
    assert f"version {version}" in str(error)
    assert f"version {VERSION}" in str(error)
    assert len(answer) == GREETING_BYTES
    assert struct.unpack("<4sH", answer[:6]) == (MAGIC, VERSION)


@pytest.mark.parametrize("kept", [0, 3, 8, 20, GREETING_BYTES - 1])
def test_a_greeting_cut_short(kept):
    whole = struct.pack("<4sHHB3x32s", MAGIC, VERSION, 36, 1, SESSION)
    # Who never says a word may be a port scan: the listener takes it for a stranger and goes on waiting.
    assert stranger(None, whole[:kept])[0].reason is (Failure.GONE if kept else Failure.FOREIGN)


def test_a_greeting_of_another_length():
    assert stranger(None, struct.pack("<4sHH", MAGIC, VERSION, 60000))[0].reason is Failure.MALFORMED


def test_a_stranger_who_says_little_is_given_up(credentials):
    for own in (None, credentials["server"]):
        assert stranger(own, b"", close=False, greeting_timeout=0.1)[0].reason is Failure.TIMED_OUT


def test_a_stranger_who_drips_bytes_is_given_up():
    with Listener(HOST, 0, meeting(0, greeting_timeout=0.3)) as listener:
        bare = socket.create_connection((HOST, listener.port))

        def drip():
            with contextlib.suppress(OSError), bare:
                for byte in struct.pack("<4sHHB3x32s", MAGIC, VERSION, 36, 1, SESSION):
                    bare.sendall(bytes([byte]))
                    time.sleep(0.05)

        dripping = threading.Thread(target=drip)
        dripping.start()
        with pytest.raises(ChannelError) as caught:
            listener.accept(patience=PATIENCE)
        dripping.join()
    assert caught.value.reason is Failure.TIMED_OUT


def test_a_stranger_leaves_the_listener_open(credentials):
    with Listener(HOST, 0, meeting(0, credentials["server"])) as listener:
        with socket.create_connection((HOST, listener.port)) as bare:
            bare.sendall(b"nonsense")
        with pytest.raises(ChannelError):
            listener.accept(patience=PATIENCE)
        channels = []
        other = threading.Thread(
            target=lambda: channels.append(
                connect(HOST, listener.port, meeting(1, credentials["client"]), patience=PATIENCE)
            )
        )
        other.start()
        channels.append(listener.accept(patience=PATIENCE))
        other.join()
    assert len(channels) == 2
    for channel in channels:
        channel.abort()
