"""Who comes while a party waits or works: slow strangers, scanners, a second client, a second server."""

import contextlib
import socket
import ssl
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from backends.mpc.three_roles import deployed, drawn, right
from edgeward import mpc
from edgeward.backends.mpc.deployment import reception as reception_module
from edgeward.backends.mpc.deployment.agreement import Terms
from edgeward.backends.mpc.deployment.reception import Reception
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.rendezvous import Listener, connect
from patience import PATIENCE, SOON
from ports import free_ports

pytest_plugins = ["backends.mpc.deployment_fixtures"]
HOST = "127.0.0.1"
CLIENT, SERVER = 0, 1


@pytest.fixture
def waiting(keys):
    """Return a server's reception, its port, and what it noted."""
    notes = []
    terms = Terms(keys / "server", patience=PATIENCE, note=notes.append)
    meeting = replace(terms.meeting(SERVER, CLIENT), greeting_timeout=PATIENCE)
    with Listener(HOST, 0, meeting) as listener, Reception(listener, terms) as reception:
        yield reception, listener.port, notes


def arriving(keys, port, found):
    """Connect as the client, in a thread that puts its channel or error into `found`."""

    def come():
        try:
            found.append(connect(HOST, port, Terms(keys / "client").meeting(CLIENT, SERVER), patience=PATIENCE))
        except ChannelError as error:
            found.append(error)

    thread = threading.Thread(target=come)
    thread.start()
    return thread


@pytest.mark.parametrize("count", [1, 31, 80])
def test_strangers_who_say_nothing_keep_nobody_waiting(keys, waiting, count):
    reception, port, _ = waiting
    found, start = [], time.monotonic()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection((HOST, port)))
        come = arriving(keys, port, found)
        channel = reception.next(lambda: None)
        come.join()
    assert time.monotonic() - start < SOON
    assert channel.peer == CLIENT
    for one in (channel, *found):
        one.abort()


def test_the_check_is_made_while_a_stranger_says_nothing(waiting):
    reception, port, _ = waiting

    def check():
        if time.monotonic() - start > 0.5:
            raise ChannelError(Failure.GONE)

    start = time.monotonic()
    with socket.create_connection((HOST, port)), pytest.raises(ChannelError) as caught:
        reception.next(check)
    assert caught.value.reason is Failure.GONE
    assert time.monotonic() - start < SOON


def scan(port, keys):
    """Knock as a scanner does: with TLS, without a certificate, trusting anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        contextlib.suppress(OSError),
        socket.create_connection((HOST, port)) as bare,
        context.wrap_socket(bare) as wrapped,
    ):
        wrapped.recv(100)


def test_a_scanner_without_a_certificate_is_a_stranger(keys, waiting):
    reception, port, notes = waiting
    scan(port, keys)
    found = []
    come = arriving(keys, port, found)
    channel = reception.next(lambda: None)
    come.join()
    assert any("stranger" in note for note in notes)
    for one in (channel, *found):
        one.abort()


def test_nobody_comes(keys, monkeypatch):
    monkeypatch.setattr(reception_module, "_SLICE_SECONDS", PATIENCE)
    terms = Terms(keys / "server", patience=0.3)
    with Listener(HOST, 0, terms.meeting(SERVER, CLIENT)) as listener, Reception(listener, terms) as reception:
        with pytest.raises(ChannelError, match="nobody"):
            reception.next(lambda: None)
        start = time.monotonic()
    # Nobody waits for the end of a slice.
    assert time.monotonic() - start < SOON


def test_a_second_client_hears_that_the_server_is_busy_and_stops_nobody(keys, plan, net):
    dealer, server = free_ports(2)
    given = {"keys": keys / "client", "server": f"{HOST}:{server}", "dealer": f"{HOST}:{dealer}", "patience": PATIENCE}

    def ask(client):
        one = client.run(drawn(1))
        with pytest.raises(ChannelError) as caught, mpc.deploy("client", **given):
            pass
        assert caught.value.reason is Failure.BUSY
        assert "one client at a time" in str(caught.value)
        return one, client.run(drawn(2, 1))

    notes = []
    done = deployed(
        keys,
        plan,
        None,
        ask=ask,
        dealer={"listen": f"{HOST}:{dealer}"},
        server={"listen": f"{HOST}:{server}", "dealer": f"{HOST}:{dealer}", "note": notes.append},
        client=given,
    )
    assert isinstance(done["client"], tuple), done
    for answer, x in zip(done["client"][0], (drawn(1), drawn(2, 1)), strict=True):
        np.testing.assert_allclose(answer, right(net, x), atol=1e-3)
    assert any("a further client was turned away" in note for note in notes)


def heard(channel):
    try:
        return str(channel.receive((1,), np.uint8, "welcome"))
    except ChannelError as error:
        return str(error.reason)


def test_two_clients_that_come_at_once_are_one_served_and_one_turned_away(keys, waiting):
    reception, port, _ = waiting
    found = []
    both = [arriving(keys, port, found) for _ in range(2)]
    served = reception.next(lambda: None)
    reception.fill()
    for thread in both:
        thread.join()
    assert len(found) == 2
    served.send(np.ones(1, np.uint8), "welcome")
    assert sorted(map(heard, found)) == ["Failure.BUSY", "[1]"]
    for one in (served, *found):
        one.abort()


def test_a_second_server_at_the_dealer_is_turned_away(keys, plan, net):
    (dealer,) = free_ports(1)
    at, here, reasons, notes = f"{HOST}:{dealer}", threading.Event(), [], []
    arrived = threading.Event()

    def note(line):
        notes.append(line)
        if "server is here" in line:
            here.set()

    def second():
        assert here.wait(PATIENCE)
        meeting = Terms(keys / "server").meeting(1, 2)
        channel = connect(HOST, dealer, meeting, patience=PATIENCE)
        with pytest.raises(ChannelError) as caught:
            channel.receive((1,), np.uint8, "deal")
        reasons.append(caught.value.reason)
        arrived.set()

    intruding = threading.Thread(target=second)
    intruding.start()
    done = deployed(
        keys,
        plan,
        drawn(1),
        after=arrived,
        dealer={"listen": at, "note": note},
        server={"dealer": at},
        client={"dealer": at},
    )
    intruding.join()
    assert reasons == [Failure.BUSY]
    assert isinstance(done["client"], tuple), done
    np.testing.assert_allclose(done["client"][0], right(net, drawn(1)), atol=1e-3)
    assert any("a further server was turned away" in one for one in notes)
