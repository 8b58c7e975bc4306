"""Channels that tests begin with: two ends in this process, and one whose other end is a bare socket."""

import socket

import pytest

from edgeward.backends.mpc.transport.channel import Channel
from edgeward.backends.mpc.transport.pair import local_pair
from edgeward.backends.mpc.transport.stream import SocketStream
from patience import PATIENCE


@pytest.fixture
def pair():
    channels = local_pair(timeout=PATIENCE)
    yield channels
    for channel in channels:
        channel.abort()


@pytest.fixture
def raw():
    """A channel whose other end is a bare socket."""
    here, there = socket.socketpair()
    channel = Channel(SocketStream(here), party=0, timeout=PATIENCE)
    yield channel, there
    channel.abort()
    there.close()
