"""Large messages both ways at once: one thread sends and receives, whatever the other end or another thread does."""

import random
import socket
import sys
import threading
import time
from linecache import getline
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.backends.mpc.transport import channel as channel_module
from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.frames import CHUNK_BYTES, HEADER_BYTES, Header, Kind, tag
from edgeward.backends.mpc.transport.keys import write_keys
from edgeward.backends.mpc.transport.pair import local_pair
from edgeward.backends.mpc.transport.stream import Deadline, SocketStream
from edgeward.backends.mpc.transport.tls import secure
from patience import PATIENCE, SOON

SHORT = 0.5
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


def test_an_end_that_reads_nothing_is_given_up_after_the_timeout():
    here, there = socket.socketpair()
    channel, failures = Channel(SocketStream(here), party=0, timeout=SHORT), []
    start = time.monotonic()
    exchanged(channel, np.zeros(MUCH, np.uint8), failures)
    assert failures == [Failure.TIMED_OUT]
    assert SHORT <= time.monotonic() - start < SOON
    there.close()


def test_an_end_that_reads_slowly_is_not(ends, monkeypatch):
    """However long it takes altogether: every wait for some bytes to leave or to come has all of the time."""
    channel, there = ends
    payload, waits, wait = bytes(8), [], SocketStream.wait

    def noted(self, timeout, **what):
        waits.append(timeout)
        return wait(self, timeout, **what)

    monkeypatch.setattr(SocketStream, "wait", noted)

    def slow():
        left = 3 * CHUNK_BYTES + 3 * HEADER_BYTES
        while left:
            left -= len(there.recv(min(left, 1 << 16)))
            time.sleep(0.005)
        there.sendall(
            b"".join(frame(Kind.DATA, payload * (CHUNK_BYTES // 8), n, 3 * CHUNK_BYTES, last=n == 2) for n in range(3))
        )

    other = parallel(slow)
    assert len(channel.exchange(np.zeros(3 * CHUNK_BYTES, np.uint8), "step")) == 3 * CHUNK_BYTES
    other.join()
    assert len(waits) > 3
    assert set(waits) == {PATIENCE}


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


class Crumbs(socket.socket):
    """A socket that takes and gives what it likes of what it is asked for, and often nothing."""

    def __init__(self, end, seed):
        super().__init__(fileno=end.detach())
        self._random = random.Random(seed)

    def _some(self, count):
        if self._random.random() < 0.2:
            raise BlockingIOError
        return self._random.choice([1, 5, 31, 33, 1000, 20_000, 1 << 17]) if count else 0

    def sendmsg(self, parts):
        joined = b"".join(parts)
        return self.send(joined[: self._some(len(joined))])

    def recv_into(self, view):
        return super().recv_into(view[: self._some(len(view))])


def connected(contexts=None, *, wrap=lambda end, place: end, peers=("client", "server")):
    """Both ends of a connection with the smallest buffers the system gives, over TLS with `contexts`."""
    ends = socket.socketpair()
    streams = []
    for place, end in enumerate(ends):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, 1)
        streams.append(SocketStream(wrap(end, place)))
    if contexts is not None:
        plain, made = streams, {}

        def greet(place):
            made[place] = secure(
                plain[place], contexts[place], [peers[place]], server=place == 0, deadline=Deadline(PATIENCE)
            )

        other = parallel(greet, 1)
        greet(0)
        other.join()
        streams = [made[0], made[1]]
    return [Channel(stream, party=place, timeout=PATIENCE) for place, stream in enumerate(streams)]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    keys = write_keys(tmp_path_factory.mktemp("keys") / "made")
    return keys["server"].context(server=True), keys["client"].context(server=False)


SIZES = st.lists(st.sampled_from([0, 1, 7, 8192, 8193, 50_000, CHUNK_BYTES // 8, CHUNK_BYTES // 8 + 1]), max_size=3)


@pytest.mark.parametrize("secured", [False, True])
@given(rounds=st.lists(st.tuples(st.booleans(), st.booleans(), SIZES), max_size=4), seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_any_split_of_the_bytes_gives_the_same_arrays(contexts, secured, rounds, seed):
    """Rounds that begin with a large message of either party, so that its sending thread may still be at work."""
    channels = connected(contexts if secured else None, wrap=lambda end, place: Crumbs(end, f"{seed} {place}"))
    failures = []

    def party(place):
        try:
            for number, (*early, sizes) in enumerate(rounds):
                values = [np.full(size, 10 * number + place) for size in sizes]
                if early[place]:
                    channels[place].send(np.full(30_000, place), "early")
                if early[1 - place]:
                    assert (channels[place].receive((30_000,), np.int64, "early") == 1 - place).all()
                came = channels[place].exchange_all(values, [f"{number}"] * len(sizes))
                assert [len(value) for value in came] == sizes
                assert all((value == 10 * number + 1 - place).all() for value in came)
            channels[place].close()
        except BaseException as error:
            failures.append(error)

    other = parallel(party, 1)
    party(0)
    other.join(3 * PATIENCE)
    for channel in channels:
        channel.abort()
    assert not other.is_alive()
    assert not failures


def tracing(place, often, seen):
    """Return a trace function that notes the lines of the transport and interrupts at one met `often` times."""
    room = str(Path(channel_module.__file__).parent)

    def trace(frame, event, argument):
        here = (frame.f_code.co_filename, frame.f_lineno)
        if not here[0].startswith(room):
            return None
        # The line of a `with` is met again before it ends: no signal comes there.
        if event == "line" and not getline(*here).lstrip().startswith("with "):
            seen[here] = seen.get(here, 0) + 1
            if here == place and seen[here] == often:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    return trace


def traced(trace, call, then=lambda: None):
    """Call under `trace`, then call `then` without it, both in one thread that ends before this returns.

    A trace function may interrupt where no signal can: at the line that leaves an `except` clause CPython (3.11 and
    later) then never takes the clause's exception off the thread's stack of exceptions being handled, and everything
    that is raised on that thread from there on has it as its context. The stack ends with the thread.
    """

    def run():
        sys.settrace(trace)
        try:
            call()
        except (KeyboardInterrupt, ChannelError):
            pass
        finally:
            sys.settrace(None)
        then()

    thread = threading.Thread(target=run, name="traced")
    thread.start()
    thread.join()


def interrupted_exchange(place, often, *, leaves):
    """Interrupt an exchange, write over what was sent, and return the lines met and what the other end received."""
    first, second = connected()
    value, came, seen = np.zeros(9000, np.int64), [], {}
    other = parallel(lambda: came.append(second.abort() if leaves else exchanged(second, np.zeros_like(value), [])))

    def goes_on():
        value[:] = 1
        # As long as the sending thread would need.
        time.sleep(0.01)
        first.abort()

    traced(tracing(place, often, seen), lambda: first.exchange(value, "step"), goes_on)
    other.join(PATIENCE)
    assert not other.is_alive(), place
    second.abort()
    return seen, came[0]


@pytest.mark.parametrize("leaves", [False, True])
def test_an_interrupt_at_any_line_lets_nothing_out_that_was_written_later(leaves, monkeypatch):
    monkeypatch.setattr(channel_module, "_LAST_WORDS_SECONDS", 0.01)
    seen, _ = interrupted_exchange(None, 0, leaves=leaves)
    assert len(seen) > 60
    for place, often in seen.items():
        _, came = interrupted_exchange(place, often // 2 + 1, leaves=leaves)
        assert came is None or not came.any(), place
    assert not any(thread.name == "edgeward-sender" for thread in threading.enumerate())


def waits_first():
    """Receive a byte that is there only at the second look: the stream's `except` clause is always left once."""

    class Slow(socket.socket):
        looks = 0

        def recv_into(self, view):
            self.looks += 1
            if self.looks == 1:
                raise BlockingIOError
            return super().recv_into(view)

    here, there = socket.socketpair()
    there.sendall(b"1")
    with there, Slow(fileno=here.detach()) as slow:
        SocketStream(slow).fill(memoryview(bytearray(1)), PATIENCE)


def test_an_interrupt_at_any_line_leaves_no_exception_being_handled():
    """Whoever raises afterwards, on this thread, must not have the interrupted call's exception as context."""
    seen = {}
    traced(tracing(None, 0, seen), waits_first)
    clauses = [place for place in seen if "return None" in getline(*place)]
    assert clauses, "the line that leaves the except clause was met"
    for place in seen:
        traced(tracing(place, 1, {}), waits_first)
        assert sys.exc_info() == (None, None, None), place


def test_labels_that_do_not_fit_send_nothing(ends):
    channel, there = ends
    with pytest.raises(ValueError, match="shorter"):
        channel.exchange_all([np.zeros(MUCH, np.uint8)] * 2, ["step"])
    assert channel.meter.reading().sent == 0
    there.sendall(frame(Kind.DATA, bytes(24), 0, 24))
    assert len(channel.exchange(np.zeros(3, np.int64), "step")) == 3


def test_an_exchange_sends_though_another_thread_receives(ends):
    channel, there = ends
    there.settimeout(PATIENCE)
    heard = []
    first = parallel(lambda: heard.append(channel.receive((3,), np.int64, "step")))
    while channel._receiving.acquire(blocking=False):
        channel._receiving.release()
        time.sleep(0.001)
    second = parallel(lambda: heard.append(channel.exchange(np.zeros(MUCH // 8, np.int64), "step")))
    read(there, MUCH + HEADER_BYTES * 4)
    there.sendall(frame(Kind.DATA, bytes(24), 0, 24))
    first.join(PATIENCE)
    there.sendall(b"".join(frame(Kind.DATA, bytes(n), i + 1, MUCH, last=i == 3) for i, n in enumerate(CUT)))
    second.join(PATIENCE)
    assert [len(value) for value in heard] == [3, MUCH // 8]


CUT = [CHUNK_BYTES] * 3 + [MUCH - 3 * CHUNK_BYTES]


def test_an_exchange_does_not_wait_for_what_another_thread_sends(ends):
    channel, there = ends
    there.settimeout(PATIENCE)
    heard = []
    exchange = parallel(lambda: heard.append(channel.exchange(np.zeros(3, np.int64), "step")))
    read(there, HEADER_BYTES + 24)
    # Nobody reads this: more than the buffers hold, from before the answer comes.
    channel.send(np.ones(MUCH, np.uint8), "other")
    there.sendall(frame(Kind.DATA, bytes(24), 0, 24))
    exchange.join(PATIENCE / 2)
    assert not exchange.is_alive()
    assert len(heard) == 1
    assert read(there, MUCH)[HEADER_BYTES : HEADER_BYTES + 9] == b"\1" * 9


def test_waiting_costs_no_processor_time(ends):
    channel, there = ends
    spent = []

    def exchange():
        start = time.thread_time()
        channel.exchange(np.zeros(MUCH, np.uint8), "step")
        spent.append(time.thread_time() - start)

    thread = parallel(exchange)
    time.sleep(SHORT)
    read(there, MUCH + HEADER_BYTES * len(CUT))
    time.sleep(SHORT)
    there.sendall(b"".join(frame(Kind.DATA, bytes(n), i, MUCH, last=i == 3) for i, n in enumerate(CUT)))
    thread.join(PATIENCE)
    assert spent[0] < SHORT / 2
