"""The frame parser against what a sender of ours never makes."""

import struct

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.frames import (
    CHUNK_BYTES,
    HEADER_BYTES,
    Header,
    Incoming,
    Kind,
    chunks,
    tag,
    unpack,
    wire_bytes,
)

LABEL = "layer"


def frames(payload, *, label=LABEL, depth=1, first=0):
    """Return a message as a sender of ours makes it."""
    wire = b""
    for number, (start, stop) in enumerate(chunks(len(payload)), first):
        head = Header(Kind.DATA, stop == len(payload), tag(label), depth, stop - start, number, len(payload))
        wire += head.pack() + payload[start:stop]
    return wire


def reader(wire):
    """Return a parser of `wire`; the end of the bytes is a broken connection."""
    left = memoryview(wire)

    def fill(view):
        nonlocal left
        if len(left) < len(view):
            raise ChannelError(Failure.GONE)
        view[:] = left[: len(view)]
        left = left[len(view) :]

    return Incoming(fill)


def read(wire, count, *, label=LABEL, sent_depth=0):
    into = bytearray(count)
    depth = reader(wire).message(memoryview(into), label, sent_depth=sent_depth)
    return bytes(into), depth


def refused(wire, count, **more):
    with pytest.raises(ChannelError) as caught:
        read(wire, count, **more)
    return caught.value.reason


@pytest.mark.parametrize("count", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_a_message_comes_back_and_takes_what_is_declared(count):
    payload = np.random.default_rng(count).bytes(count)
    wire = frames(payload)
    assert len(wire) == wire_bytes(count)
    assert read(wire, count) == (payload, 1)


def test_two_messages_follow_each_other():
    parser = reader(frames(b"abc") + frames(b"defg", label="next", depth=2, first=1))
    first, second = bytearray(3), bytearray(4)
    assert parser.message(memoryview(first), LABEL, sent_depth=1) == 1
    assert parser.message(memoryview(second), "next", sent_depth=1) == 2
    assert (first, second) == (b"abc", b"defg")


@given(st.integers(0, 2 * CHUNK_BYTES), st.integers(0, 99))
def test_every_truncation_is_noticed(count, per_cent):
    wire = frames(bytes(count))
    kept = len(wire) * per_cent // 100
    assert refused(wire[:kept], count) is Failure.GONE


HEADERS = struct.Struct("<BBHIIIQQ")
GOOD = {"kind": 1, "last": 1, "zero": 0, "tag": tag(LABEL), "depth": 1, "length": 5, "sequence": 0, "total": 5}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": 0}, Failure.MALFORMED),
        ({"kind": 9}, Failure.MALFORMED),
        ({"zero": 1}, Failure.MALFORMED),
        ({"last": 2}, Failure.MALFORMED),
        ({"last": 0}, Failure.MALFORMED),
        ({"length": 4}, Failure.MALFORMED),
        ({"length": 6}, Failure.MALFORMED),
        ({"length": CHUNK_BYTES + 1, "total": 1 << 30}, Failure.MALFORMED),
        ({"total": 1 << 37}, Failure.MALFORMED),
        ({"length": 1 << 31, "total": 1 << 31}, Failure.MALFORMED),
        ({"total": 6, "length": 6}, Failure.OUT_OF_STEP),
        ({"total": 4, "length": 4}, Failure.OUT_OF_STEP),
        ({"tag": tag("another")}, Failure.OUT_OF_STEP),
        ({"sequence": 1}, Failure.MALFORMED),
        ({"sequence": 2**64 - 1}, Failure.MALFORMED),
        ({"depth": 0}, Failure.MALFORMED),
        ({"depth": 2}, Failure.MALFORMED),
        ({"depth": 2**32 - 1}, Failure.MALFORMED),
        ({"kind": 2, "length": 0, "total": 0}, Failure.ABORTED),
        ({"kind": 3, "length": 0, "total": 0}, Failure.FINISHED),
        ({"kind": 2}, Failure.MALFORMED),
    ],
)
def test_a_header_with_one_wrong_field_is_refused(change, reason):
    raw = HEADERS.pack(*{**GOOD, **change}.values())
    assert refused(raw + bytes(CHUNK_BYTES), 5) is reason


def test_the_unchanged_header_is_accepted():
    assert read(HEADERS.pack(*GOOD.values()) + b"hello", 5) == (b"hello", 1)


def test_a_depth_is_believed_up_to_one_more_than_we_sent():
    wire = frames(b"x", depth=8)
    assert read(wire, 1, sent_depth=7) == (b"x", 8)
    assert refused(wire, 1, sent_depth=6) is Failure.MALFORMED


def test_chunks_of_one_message_agree():
    wire = bytearray(frames(bytes(CHUNK_BYTES + 8), depth=1))
    struct.pack_into("<I", wire, HEADER_BYTES + CHUNK_BYTES + 8, 2)
    assert refused(bytes(wire), CHUNK_BYTES + 8, sent_depth=5) is Failure.MALFORMED


@given(st.binary(max_size=200), st.integers(0, 80), st.integers(0, 3))
def test_foreign_bytes_give_a_message_or_a_channel_error_and_nothing_else(wire, count, sent_depth):
    try:
        content, depth = read(wire, count, sent_depth=sent_depth)
    except ChannelError:
        return
    assert len(content) == count
    assert 1 <= depth <= sent_depth + 1


@given(st.one_of(st.binary(max_size=40), st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES)))
def test_a_header_is_read_as_it_is_written(raw):
    try:
        header = unpack(raw)
    except ChannelError:
        return
    assert header.pack() == raw


@given(st.data())
def test_any_altered_header_byte_gives_an_error(data):
    """One byte of a header altered: refused, since every field is checked against what is expected."""
    count = data.draw(st.sampled_from([1, 100, CHUNK_BYTES + 3]))
    wire = bytearray(frames(bytes(count)))
    starts = [0] if count <= CHUNK_BYTES else [0, HEADER_BYTES + CHUNK_BYTES]
    place = data.draw(st.sampled_from(starts)) + data.draw(st.integers(0, HEADER_BYTES - 1))
    value = data.draw(st.integers(0, 255))
    assume(value != wire[place])
    wire[place] = value
    refused(bytes(wire), count)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=5), st.data())
def test_frames_left_out_repeated_or_swapped_are_noticed(sizes, data):
    wires = [frames(bytes(size), first=number) for number, size in enumerate(sizes)]
    order = data.draw(st.lists(st.integers(0, len(wires) - 1), min_size=len(wires), max_size=len(wires)))
    parser = reader(b"".join(wires[place] for place in order))
    got = 0
    try:
        for size in sizes:
            parser.message(memoryview(bytearray(size)), LABEL, sent_depth=0)
            got += 1
    except ChannelError:
        pass
    assert got == next((n for n, place in enumerate(order) if n != place), len(order))


def test_the_peers_last_words_are_found_behind_what_nobody_waits_for():
    notice = Header(Kind.ABORT, True, 0, 0, 0, 3, 0).pack()
    with pytest.raises(ChannelError) as caught:
        reader(frames(bytes(CHUNK_BYTES + 1)) + frames(b"x", first=2) + notice).skip_to_notice()
    assert caught.value.reason is Failure.ABORTED
