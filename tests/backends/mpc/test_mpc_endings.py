"""How a channel between two parties ends: honestly, by a failure at either end, or by a signal."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from backends.mpc.channel_reasons import reason
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.frames import CHUNK_BYTES, Header, Kind, tag
from edgeward.backends.mpc.transport.pair import local_pair, run_parties
from edgeward.backends.mpc.transport.stream import SocketStream
from patience import PATIENCE, SOON

pytest_plugins = ["backends.mpc.channel_fixtures"]


def test_an_honest_end_is_told_from_a_broken_one(pair):
    first, second = pair
    first.send(np.arange(3), "last")
    closing = threading.Thread(target=first.close)
    closing.start()
    np.testing.assert_array_equal(second.receive((3,), np.int64, "last"), np.arange(3))
    assert reason(second.receive, (3,), np.int64, "more") is Failure.FINISHED
    closing.join()
    assert reason(first.send, np.arange(3), "more") is Failure.CLOSED
    first.close()


def test_a_failing_party_stops_the_other_and_its_own_error_is_raised():
    def fails(channel):
        channel.exchange(np.zeros(1, np.int64), "step")
        raise LookupError("no tuples left")

    seen = []

    def waits(channel):
        channel.exchange(np.zeros(1, np.int64), "step")
        try:
            channel.receive((1,), np.int64, "next")
        except ChannelError as error:
            seen.append(error.reason)
            raise

    for order in ((fails, waits), (waits, fails)):
        with pytest.raises(LookupError, match="no tuples left"):
            run_parties(*order, timeout=PATIENCE)
    assert seen == [Failure.ABORTED, Failure.ABORTED]


def test_parties_at_different_steps_both_stop():
    errors = []

    def party(label):
        def run(channel):
            try:
                channel.exchange(np.zeros(1, np.int64), label)
            except ChannelError as error:
                errors.append(error.reason)
                raise

        return run

    with pytest.raises(ChannelError, match="another step"):
        run_parties(party("layer 1"), party("layer 2"), timeout=PATIENCE)
    assert Failure.OUT_OF_STEP in errors
    assert set(errors) <= {Failure.OUT_OF_STEP, Failure.ABORTED}


def test_the_same_error_is_raised_again_and_holds_no_content(raw):
    channel, there = raw
    there.sendall(Header(Kind.DATA, True, tag("step"), 1, 8, 0, 8).pack() + b"SECRET")
    there.close()
    with pytest.raises(ChannelError) as first:
        channel.receive((1,), np.int64, "step")
    assert first.value.reason is Failure.GONE
    assert "SECRET" not in str(first.value)
    for call in (lambda: channel.send(np.zeros(1, np.int64), "x"), lambda: channel.receive((1,), np.int64, "x")):
        assert reason(call) is Failure.GONE


@pytest.mark.parametrize("kept", [0, 1, 31, 32, 33, 32 + 799])
def test_a_peer_that_dies_within_a_frame(raw, kept):
    channel, there = raw
    there.sendall((Header(Kind.DATA, True, tag("step"), 1, 800, 0, 800).pack() + bytes(800))[:kept])
    there.close()
    assert reason(channel.receive, (100,), np.int64, "step") is Failure.GONE


def test_a_frame_that_claims_too_much_takes_no_memory_and_ends_the_channel(raw):
    channel, there = raw
    there.sendall(Header(Kind.DATA, False, tag("step"), 1, CHUNK_BYTES, 0, 1 << 35).pack())
    assert reason(channel.receive, (100,), np.int64, "step") is Failure.OUT_OF_STEP
    there.settimeout(PATIENCE)
    assert there.recv(32)[0] == Kind.ABORT


def test_a_silent_peer_is_given_up():
    here, there = socket.socketpair()
    with there:
        channel = Channel(SocketStream(here), party=0, timeout=0.1)
        assert reason(channel.receive, (1,), np.int64, "step") is Failure.TIMED_OUT
        assert there.recv(32)[0] == Kind.ABORT


def test_a_peer_that_never_reads_is_given_up():
    here, there = socket.socketpair()
    with there:
        channel = Channel(SocketStream(here), party=0, timeout=0.2)
        channel.send(np.zeros(4_000_000, np.int64), "step")
        assert reason(channel.close) is Failure.TIMED_OUT


def test_a_peer_that_never_reads_is_given_up_while_we_receive():
    here, there = socket.socketpair()
    with there:
        channel = Channel(SocketStream(here), party=0, timeout=0.2)
        channel.send(np.zeros(4_000_000, np.int64), "step")
        assert reason(channel.receive, (1,), np.int64, "answer") is Failure.TIMED_OUT


def test_sending_to_a_dead_peer_tells_its_last_words(raw):
    channel, there = raw
    there.sendall(Header(Kind.ABORT, True, 0, 0, 0, 0, 0).pack())
    there.close()

    def send_on():
        for _ in range(100):
            channel.send(np.zeros(100_000, np.int64), "step")
            time.sleep(0.001)

    assert reason(send_on) is Failure.ABORTED


def test_an_interrupted_reception_ends_the_channel(pair, monkeypatch):
    first, second = pair
    first.send(np.zeros(1, np.int64), "step")
    fill = SocketStream.fill

    def interrupted(self, view, timeout):
        fill(self, view[:7], timeout)
        raise KeyboardInterrupt

    monkeypatch.setattr(SocketStream, "fill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        second.receive((1,), np.int64, "step")
    monkeypatch.undo()
    assert reason(second.receive, (1,), np.int64, "step") is Failure.INTERRUPTED
    assert reason(first.receive, (1,), np.int64, "step") is Failure.ABORTED


def test_an_interrupted_sending_ends_the_channel(pair, monkeypatch):
    def interrupted(self, head, body):
        raise KeyboardInterrupt

    monkeypatch.setattr(SocketStream, "offer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pair[0].send(np.zeros(1, np.int64), "step")
    monkeypatch.undo()
    assert reason(pair[0].send, np.zeros(1, np.int64), "step") is Failure.INTERRUPTED
    assert reason(pair[1].receive, (1,), np.int64, "step") is Failure.GONE


def test_no_thread_and_no_socket_stays():
    before, descriptors = (
        threading.active_count(),
        len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
    )
    for ending in ("close", "abort"):
        first, second = local_pair(timeout=PATIENCE)
        first.send(np.zeros(200_000, np.int64), "left")
        other = threading.Thread(target=getattr(first, ending))
        other.start()
        getattr(second, ending)()
        other.join()
    assert threading.active_count() <= before
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) <= descriptors


CHILD = """
import socket, sys
import numpy as np
from edgeward.backends.mpc.transport.rendezvous import Meeting, connect
channel = connect("127.0.0.1", int(sys.argv[1]), Meeting(1, 0, "first", bytes(32), timeout=300.0))
while True:
    channel.exchange(np.zeros(300_000, np.int64), "step")
"""


def test_a_killed_process_is_noticed_at_once():
    """SIGKILL at arbitrary points of a stream of exchanges."""
    from edgeward.backends.mpc.transport.rendezvous import Listener, Meeting

    with Listener("127.0.0.1", 0, Meeting(0, 1, "second", bytes(32), timeout=PATIENCE)) as listener:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(listener.port)], stderr=subprocess.DEVNULL)
        channel = listener.accept(patience=PATIENCE)
        for _ in range(3):
            channel.exchange(np.zeros(300_000, np.int64), "step")
        child.send_signal(signal.SIGKILL)
        child.wait()
        began = time.monotonic()

        def go_on():
            while True:
                channel.exchange(np.zeros(300_000, np.int64), "step")

        assert reason(go_on) is Failure.GONE
    assert time.monotonic() - began < SOON
