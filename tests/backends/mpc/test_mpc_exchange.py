"""Large messages both ways at once: one thread sends and receives, whatever the other end or another thread does."""

import socket
import threading
import time

import numpy as np
import pytest

from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.frames import CHUNK_BYTES, HEADER_BYTES, Header, Kind, tag
from edgeward.backends.mpc.transport.pair import local_pair
from edgeward.backends.mpc.transport.stream import SocketStream

PATIENCE = 2.0
# More than the sockets of both ends hold together.
MUCH = 4_000_000


@pytest.fixture
def ends():
    """A channel with small socket buffers whose other end is a bare socket."""
    here, there = socket.socketpair()
    channel = Channel(SocketStream(here), party=0, timeout=PATIENCE)
    yield channel, there
    channel.abort()
    there.close()


def exchanged(channel, value, failures):
    try:
        return channel.exchange(value, "step")
    except ChannelError as error:
        failures.append(error.reason)


def parallel(call, *arguments):
    thread = threading.Thread(target=call, args=arguments, daemon=True)
    thread.start()
    return thread


def read(end, count):
    content = b""
    while len(content) < count:
        content += end.recv(count - len(content))
    return content


def frame(kind, payload, sequence, total=0, *, last=True):
    return (
        Header(kind, last, tag("step") if payload else 0, int(bool(payload)), len(payload), sequence, total).pack()
        + payload
    )


def test_a_large_exchange_leaves_in_the_calling_thread(monkeypatch):
    first, second = local_pair(timeout=PATIENCE)
    senders, offer = set(), SocketStream.offer

    def noted(self, head, body, **named):
        senders.add(threading.current_thread().name)
        return offer(self, head, body, **named)

    monkeypatch.setattr(SocketStream, "offer", noted)
    other = parallel(second.exchange, np.zeros(MUCH, np.uint8), "step")
    came = first.exchange(np.ones(MUCH, np.uint8), "step")
    other.join()
    assert came.sum() == 0
    assert "edgeward-sender" not in senders
    first.abort()
    second.abort()


def test_what_another_thread_sends_meanwhile_leaves_though_nothing_comes(ends):
    channel, there = ends
    there.settimeout(PATIENCE)
    exchange = parallel(exchanged, channel, np.zeros(3, np.int64), [])
    read(there, HEADER_BYTES + 24)
    channel.send(np.ones(CHUNK_BYTES, np.uint8), "other")
    # The exchange still waits for its answer.
    assert read(there, HEADER_BYTES + CHUNK_BYTES)[HEADER_BYTES:] == b"\1" * CHUNK_BYTES
    there.sendall(frame(Kind.DATA, bytes(24), 0, 24))
    exchange.join(PATIENCE)
    assert not exchange.is_alive()


def test_sends_of_another_thread_and_large_exchanges_keep_one_order():
    first, second = local_pair(timeout=PATIENCE)

    def lone():
        first.send(np.full(200_000, 7), "lone")

    def speaks():
        sender = parallel(lone)
        sender.join()
        return first.exchange(np.full(MUCH // 8, 1), "step")

    def hears():
        lone = second.receive((200_000,), np.int64, "lone")
        return int(lone.sum()), second.exchange(np.full(MUCH // 8, 2), "step")

    heard = []
    other = parallel(lambda: heard.extend(hears()))
    came = speaks()
    other.join()
    assert heard[0] == 7 * 200_000
    assert set(np.unique(came)) == {2}
    assert set(np.unique(heard[1])) == {1}
    first.abort()
    second.abort()


def test_an_end_that_reads_nothing_is_given_up_after_the_timeout(ends):
    channel, _ = ends
    failures = []
    start = time.monotonic()
    exchanged(channel, np.zeros(MUCH, np.uint8), failures)
    assert failures == [Failure.TIMED_OUT]
    assert PATIENCE <= time.monotonic() - start < PATIENCE + 3


def test_an_end_that_reads_slowly_is_not(ends):
    channel, there = ends
    payload = bytes(8)

    def slow():
        left = 3 * CHUNK_BYTES + 3 * HEADER_BYTES
        while left:
            left -= len(there.recv(min(left, 1 << 16)))
            time.sleep(PATIENCE / 40)
        there.sendall(
            b"".join(frame(Kind.DATA, payload * (CHUNK_BYTES // 8), n, 3 * CHUNK_BYTES, last=n == 2) for n in range(3))
        )

    other = parallel(slow)
    assert len(channel.exchange(np.zeros(3 * CHUNK_BYTES, np.uint8), "step")) == 3 * CHUNK_BYTES
    other.join()


def test_an_end_that_closes_in_the_middle_is_gone(ends):
    channel, there = ends
    failures = []
    exchange = parallel(exchanged, channel, np.zeros(MUCH, np.uint8), failures)
    there.recv(1 << 16)
    there.close()
    exchange.join(PATIENCE)
    assert failures == [Failure.GONE]


@pytest.mark.parametrize(("kind", "reason"), [(Kind.ABORT, Failure.ABORTED), (Kind.BYE, Failure.FINISHED)])
def test_last_words_are_heard_though_sending_fails(ends, kind, reason):
    channel, there = ends
    failures = []
    exchange = parallel(exchanged, channel, np.zeros(MUCH, np.uint8), failures)
    there.recv(1 << 16)
    there.sendall(frame(kind, b"", 0))
    there.close()
    exchange.join(PATIENCE)
    assert failures == [reason]


def test_an_exchange_ends_when_another_thread_aborts(ends):
    channel, there = ends
    failures = []
    exchange = parallel(exchanged, channel, np.zeros(MUCH, np.uint8), failures)
    there.recv(1 << 16)
    channel.abort()
    exchange.join(PATIENCE)
    assert failures == [Failure.CLOSED]


def test_what_the_caller_reuses_after_an_exchange_has_left():
    first, second = local_pair(timeout=PATIENCE)
    value = np.zeros(MUCH, np.uint8)

    def reuses():
        first.exchange(value, "step")
        value[:] = 1

    other = parallel(reuses)
    time.sleep(0.05)
    assert second.exchange(np.zeros(MUCH, np.uint8), "step").sum() == 0
    other.join()
    first.abort()
    second.abort()
