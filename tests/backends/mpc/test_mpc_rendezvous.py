"""How parties meet: certificates, names, addresses, and those who come late or not at all."""

import socket
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from backends.mpc.meetings import HOST, SESSION, meet, meeting, reasons
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.keys import write_keys
from edgeward.backends.mpc.transport.network import Network
from edgeward.backends.mpc.transport.rendezvous import Listener, Meeting, connect
from edgeward.backends.mpc.transport.tls import Credentials
from edgeward.core.errors import ConfigError
from patience import PATIENCE
from ports import free_ports

pytest_plugins = ["backends.mpc.deployment_fixtures"]


@pytest.mark.parametrize("encrypted", [True, False])
def test_two_parties_meet_and_exchange(credentials, encrypted):
    def run(channel):
        total = 0
        for count in (1, 1000, 300_000):
            total += int(channel.exchange(np.full(count, channel.party + 1), "step").sum())
        return total, channel.meter.reading()

    given = (credentials["server"], credentials["client"]) if encrypted else (None, None)
    (first, one), (second, two) = meet(meeting(0, given[0]), meeting(1, given[1]), run)
    assert (first, second) == (2 * 301_001, 301_001)
    assert one == two
    assert (one.sent, one.rounds) == (301_001 * 8, 3)


def test_both_may_send_much_before_they_receive_under_tls(credentials):
    def run(channel):
        for number in range(3):
            channel.send(np.full(700_000, number), f"part {number}")
        return [int(channel.receive((700_000,), np.int64, f"part {n}").sum()) for n in range(3)]

    assert (
        meet(meeting(0, credentials["server"]), meeting(1, credentials["client"]), run) == [[0, 700_000, 1_400_000]] * 2
    )


def test_certificates_of_another_authority_are_refused(credentials, tmp_path):
    foreign = write_keys(tmp_path / "foreign", ("server", "client"))
    for server, client in ((credentials["server"], foreign["client"]), (foreign["server"], credentials["client"])):
        assert reasons(meet(meeting(0, server), meeting(1, client))) == [Failure.UNTRUSTED] * 2


def test_a_trusting_client_of_another_authority_is_refused_by_the_server(credentials, tmp_path):
    """The client accepts the server's authority, but its own certificate is of another."""
    foreign = write_keys(tmp_path / "foreign", ("client",))["client"]
    (foreign.folder / "ca.pem").write_bytes((credentials["server"].folder / "ca.pem").read_bytes())
    server, client = meet(meeting(0, credentials["server"]), meeting(1, foreign))
    assert (server.reason, client.reason) == (Failure.UNTRUSTED, Failure.UNTRUSTED)
    assert "our certificate was refused" in str(client)


def test_an_expired_certificate_is_refused_and_named(tmp_path):
    then = datetime.now(timezone.utc) - timedelta(days=400)
    both = write_keys(tmp_path / "old", ("server", "client"), days=30, now=then)
    outcome = meet(meeting(0, both["server"]), meeting(1, both["client"]))
    assert reasons(outcome) == [Failure.UNTRUSTED] * 2
    assert all("expired" in str(one) for one in outcome)


def test_a_certificate_of_the_future_is_refused(tmp_path):
    later = datetime.now(timezone.utc) + timedelta(days=2)
    both = write_keys(tmp_path / "new", ("server", "client"), now=later)
    outcome = meet(meeting(0, both["server"]), meeting(1, both["client"]))
    assert reasons(outcome) == [Failure.UNTRUSTED] * 2
    assert "not yet valid" in str(outcome[1])


def test_a_valid_party_cannot_play_another(credentials):
    """The dealer's certificate is of the right authority, and neither the client's nor the server's."""
    server, client = meet(meeting(0, credentials["server"]), meeting(1, credentials["dealer"]))
    assert server.reason is Failure.UNTRUSTED
    assert "a certificate of dealer" in str(server)
    assert client.reason in (Failure.GONE, Failure.UNTRUSTED)
    assert Failure.UNTRUSTED in reasons(meet(meeting(0, credentials["dealer"]), meeting(1, credentials["client"])))


def test_a_plain_party_and_a_tls_party_do_not_meet(credentials):
    server, client = meet(meeting(0, credentials["server"]), meeting(1))
    assert (server.reason, client.reason) == (Failure.FOREIGN, Failure.GONE)
    assert "it may want TLS" in str(client)
    server, client = meet(meeting(0), meeting(1, credentials["client"]))
    assert server.reason is Failure.FOREIGN
    assert "TLS" in str(server)
    assert client.reason is Failure.FOREIGN


def test_parties_that_run_something_else_both_stop():
    other = meeting(1, session=bytes(32))
    assert reasons(meet(meeting(0), other)) == [Failure.DISAGREEMENT] * 2
    same = Meeting(0, 1, "server", SESSION, timeout=PATIENCE)
    assert reasons(meet(meeting(0), same)) == [Failure.DISAGREEMENT] * 2


def test_nobody_there():
    (free,) = free_ports(1)
    for call in (
        lambda: connect(HOST, free, meeting(1), patience=0.2),
        lambda: connect("no-such-host.invalid", free, meeting(1), patience=0.2),
    ):
        with pytest.raises(ChannelError) as caught:
            call()
        assert caught.value.reason is Failure.UNREACHABLE
    with Listener(HOST, 0, meeting(0)) as listener, pytest.raises(ChannelError) as caught:
        listener.accept(patience=0.05)
    assert caught.value.reason is Failure.UNREACHABLE
    with socket.create_server((HOST, 0)) as taken, pytest.raises(ConfigError, match="cannot listen"):
        Listener(HOST, taken.getsockname()[1], meeting(0))


def test_the_other_party_may_start_later():
    (free,), channels = free_ports(1), []
    early = threading.Thread(target=lambda: channels.append(connect(HOST, free, meeting(1), patience=PATIENCE)))
    early.start()
    time.sleep(0.15)
    with Listener(HOST, free, meeting(0)) as listener:
        channels.append(listener.accept(patience=PATIENCE))
    early.join()
    assert sorted(channel.party for channel in channels) == [0, 1]
    for channel in channels:
        channel.abort()


def test_without_tls_only_on_this_machine():
    with pytest.raises(ConfigError, match="another machine needs TLS"):
        Listener("0.0.0.0", 0, meeting(0))  # noqa: S104


def test_a_meeting_has_two_parties_and_a_digest():
    for wrong in ({"session": b"short"}, {"party": 1}, {"party": 256}, {"peer": -1}):
        with pytest.raises(ConfigError, match="no such meeting"):
            Meeting(**{"party": 0, "peer": 1, "peer_name": "client", "session": SESSION, **wrong})


def test_a_throttled_deployment(credentials):
    network = Network("fast", 1e9, 0.0)
    run = lambda channel: (channel.exchange(np.arange(9), "step").sum(), channel.shaped_bytes)  # noqa: E731
    outcome = meet(
        meeting(0, credentials["server"], network=network), meeting(1, credentials["client"], network=network), run
    )
    assert outcome == [(36, 104)] * 2


def test_credentials_that_cannot_be_used(tmp_path, credentials):
    with pytest.raises(ConfigError, match="holds no credentials"):
        Credentials(tmp_path).context(server=True)
    both = write_keys(tmp_path / "new", ("server", "client"))
    key = both["server"].folder / "key.pem"
    key.chmod(0o640)
    with pytest.raises(ConfigError, match="read by others"):
        both["server"].context(server=True)
    key.chmod(0o600)
    both["server"].context(server=True)
    key.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot be read"):
        both["server"].context(server=True)
    swapped: Path = both["client"].folder / "key.pem"
    swapped.write_bytes((credentials["client"].folder / "key.pem").read_bytes())
    with pytest.raises(ConfigError, match="cannot be read"):
        both["client"].context(server=False)


@pytest.mark.slow
def test_a_party_may_compute_for_long_while_the_other_sends_to_it():
    """Over TCP with a closed window: no time-out of the system may end what our own still allows."""
    count = 4_000_000

    def run(channel):
        if channel.party == 0:
            time.sleep(8)
        return int(channel.exchange(np.ones(count, np.int64), "step").sum())

    assert meet(meeting(0, timeout=PATIENCE), meeting(1, timeout=PATIENCE), run) == [count, count]
