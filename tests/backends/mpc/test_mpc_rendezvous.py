"""How parties meet: certificates, versions, strangers, and messages altered on the way."""

import contextlib
import socket
import struct
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.keys import write_keys
from edgeward.backends.mpc.transport.network import Network
from edgeward.backends.mpc.transport.rendezvous import GREETING_BYTES, MAGIC, VERSION, Listener, Meeting, connect
from edgeward.backends.mpc.transport.tls import Credentials
from edgeward.core.errors import ConfigError

SESSION = bytes(range(32))
HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return write_keys(tmp_path_factory.mktemp("keys") / "all", ("server", "client", "dealer"))


def meeting(party, credentials=None, **more):
    names = ("server", "client")
    given = {"session": SESSION, "timeout": 5.0, "greeting_timeout": 5.0, **more}
    return Meeting(party, 1 - party, given.pop("peer_name", names[1 - party]), credentials=credentials, **given)


def meet(server, client, run=lambda channel: None):
    """Let two parties meet and run; return what each got: a result or its reason."""
    outcome = [None, None]

    def party(number, open_channel):
        try:
            with open_channel() as channel:
                outcome[number] = run(channel)
        except ChannelError as error:
            outcome[number] = error

    with Listener(HOST, 0, server) as listener:
        other = threading.Thread(target=party, args=(1, lambda: connect(HOST, listener.port, client, patience=5)))
        other.start()
        party(0, lambda: listener.accept(patience=5))
        other.join()
    return outcome


def reasons(outcome):
    return [getattr(one, "reason", one) for one in outcome]


@pytest.mark.parametrize("encrypted", [True, False])
def test_two_parties_meet_and_exchange(keys, encrypted):
    def run(channel):
        total = 0
        for count in (1, 1000, 300_000):
            total += int(channel.exchange(np.full(count, channel.party + 1), "step").sum())
        return total, channel.meter.reading()

    given = (keys["server"], keys["client"]) if encrypted else (None, None)
    (first, one), (second, two) = meet(meeting(0, given[0]), meeting(1, given[1]), run)
    assert (first, second) == (2 * 301_001, 301_001)
    assert one == two
    assert (one.sent, one.rounds) == (301_001 * 8, 3)


def test_both_may_send_much_before_they_receive_under_tls(keys):
    def run(channel):
        for number in range(3):
            channel.send(np.full(700_000, number), f"part {number}")
        return [int(channel.receive((700_000,), np.int64, f"part {n}").sum()) for n in range(3)]

    assert meet(meeting(0, keys["server"]), meeting(1, keys["client"]), run) == [[0, 700_000, 1_400_000]] * 2


def test_certificates_of_another_authority_are_refused(keys, tmp_path):
    foreign = write_keys(tmp_path / "foreign", ("server", "client"))
    for server, client in ((keys["server"], foreign["client"]), (foreign["server"], keys["client"])):
        assert reasons(meet(meeting(0, server), meeting(1, client))) == [Failure.UNTRUSTED] * 2


def test_a_trusting_client_of_another_authority_is_refused_by_the_server(keys, tmp_path):
    """The client accepts the server's authority, but its own certificate is of another."""
    foreign = write_keys(tmp_path / "foreign", ("client",))["client"]
    (foreign.folder / "ca.pem").write_bytes((keys["server"].folder / "ca.pem").read_bytes())
    server, client = meet(meeting(0, keys["server"]), meeting(1, foreign))
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


def test_a_valid_party_cannot_play_another(keys):
    """The dealer's certificate is of the right authority, and neither the client's nor the server's."""
    server, client = meet(meeting(0, keys["server"]), meeting(1, keys["dealer"]))
    assert server.reason is Failure.UNTRUSTED
    assert "a certificate of dealer" in str(server)
    assert client.reason in (Failure.GONE, Failure.UNTRUSTED)
    assert Failure.UNTRUSTED in reasons(meet(meeting(0, keys["dealer"]), meeting(1, keys["client"])))


def test_a_plain_party_and_a_tls_party_do_not_meet(keys):
    server, client = meet(meeting(0, keys["server"]), meeting(1))
    assert (server.reason, client.reason) == (Failure.FOREIGN, Failure.GONE)
    assert "it may want TLS" in str(client)
    server, client = meet(meeting(0), meeting(1, keys["client"]))
    assert server.reason is Failure.FOREIGN
    assert "TLS" in str(server)
    assert client.reason is Failure.FOREIGN


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
            listener.accept(patience=5)
        answer = b""
        with contextlib.suppress(OSError):
            while came := bare.recv(1000):
                answer += came
    return caught.value, answer


@pytest.mark.parametrize("content", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", bytes(100), b"\xff" * 100])
def test_a_plain_text_stranger(keys, content):
    for credentials in (keys["server"], None):
        error, _ = stranger(credentials, content)
        assert error.reason is Failure.FOREIGN


@pytest.mark.parametrize("version", [0, 2, 65535])
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


def test_a_stranger_who_says_little_is_given_up(keys):
    for credentials in (None, keys["server"]):
        assert stranger(credentials, b"", close=False, greeting_timeout=0.1)[0].reason is Failure.TIMED_OUT


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
            listener.accept(patience=5)
        dripping.join()
    assert caught.value.reason is Failure.TIMED_OUT


def test_a_stranger_leaves_the_listener_open(keys):
    with Listener(HOST, 0, meeting(0, keys["server"])) as listener:
        with socket.create_connection((HOST, listener.port)) as bare:
            bare.sendall(b"nonsense")
        with pytest.raises(ChannelError):
            listener.accept(patience=5)
        channels = []
        other = threading.Thread(
            target=lambda: channels.append(connect(HOST, listener.port, meeting(1, keys["client"]), patience=5))
        )
        other.start()
        channels.append(listener.accept(patience=5))
        other.join()
    assert len(channels) == 2
    for channel in channels:
        channel.abort()


def test_parties_that_run_something_else_both_stop():
    other = meeting(1, session=bytes(32))
    assert reasons(meet(meeting(0), other)) == [Failure.DISAGREEMENT] * 2
    same = Meeting(0, 1, "server", SESSION, timeout=5.0)
    assert reasons(meet(meeting(0), same)) == [Failure.DISAGREEMENT] * 2


def test_nobody_there():
    with socket.create_server((HOST, 0)) as taken:
        free = taken.getsockname()[1]
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
    with socket.create_server((HOST, 0)) as taken:
        free = taken.getsockname()[1]
    channels = []
    early = threading.Thread(target=lambda: channels.append(connect(HOST, free, meeting(1), patience=5)))
    early.start()
    time.sleep(0.15)
    with Listener(HOST, free, meeting(0)) as listener:
        channels.append(listener.accept(patience=5))
    early.join()
    assert sorted(channel.party for channel in channels) == [0, 1]
    for channel in channels:
        channel.abort()


def test_without_tls_only_on_this_machine():
    with pytest.raises(ConfigError, match="another machine needs TLS"):
        Listener("0.0.0.0", 0, meeting(0))  # noqa: S104


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


def meet_through(keys, alter, run):
    """Let two parties meet with somebody between them; return what each got, and what it took of the client's bytes."""
    outcome = [None, None]

    def party(number, open_channel):
        try:
            with open_channel() as channel:
                outcome[number] = run(channel)
        except ChannelError as error:
            outcome[number] = error

    with Listener(HOST, 0, meeting(0, keys["server"])) as listener:
        port, serving = between(listener.port, alter)
        other = threading.Thread(
            target=party, args=(1, lambda: connect(HOST, port, meeting(1, keys["client"]), patience=5))
        )
        other.start()
        party(0, lambda: listener.accept(patience=5))
        other.join()
        serving.join(5)
    return outcome


@pytest.mark.parametrize("place", [300, 5000, 100_000, 700_000])
def test_one_bit_altered_on_the_way_under_tls(keys, place):
    def alter(offset, content):
        changed = bytearray(content)
        if offset <= place < offset + len(content):
            changed[place - offset] ^= 0x10
        return bytes(changed)

    outcome = meet_through(keys, alter, lambda channel: channel.exchange(np.zeros(100_000, np.int64), "step"))
    assert outcome[0].reason in (Failure.MALFORMED, Failure.UNTRUSTED, Failure.FOREIGN)
    assert not isinstance(outcome[1], np.ndarray) or not outcome[1].any()


def test_a_connection_cut_at_any_of_fifty_points_gives_no_answer(keys):
    """The client's bytes end anywhere, from the first of the handshake to the last of its last message."""

    def run(channel):
        sizes = (1, 3000, 40_000, 2)
        return sum(int(channel.exchange(np.ones(size, np.int64), f"step {size}").sum()) for size in sizes)

    seen = []
    assert meet_through(keys, lambda _, content: seen.append(len(content)) or content, run) == [43_003] * 2
    # After the last message comes the goodbye only: one header in one record of TLS. A signature's length varies.
    end = sum(seen) - (32 + 22) - 10
    points = [0, 1, end - 1, *np.random.default_rng(5).integers(0, end, 47).tolist()]
    for point in points:

        def cut(offset, content, point=point):
            return content[: max(0, point - offset)]

        began = time.monotonic()
        server, client = meet_through(keys, cut, run)
        assert isinstance(server, ChannelError), f"cut after {point} bytes"
        assert server.reason is (Failure.GONE if point else Failure.FOREIGN)
        assert isinstance(client, ChannelError) or client == 43_003
        assert time.monotonic() - began < 5, "the issue's limit, far above what it takes"


def test_nothing_of_the_content_is_on_the_wire(keys):
    seen = bytearray()

    def listen_in(_, content):
        seen.extend(content)
        return content

    secret = np.frombuffer(b"a very secret share value " * 40, np.uint8)

    def send(port):
        with connect(HOST, port, meeting(1, keys["client"]), patience=5) as channel:
            channel.send(secret, "secret step")

    with Listener(HOST, 0, meeting(0, keys["server"])) as listener:
        port, serving = between(listener.port, listen_in)
        other = threading.Thread(target=send, args=(port,))
        other.start()
        with listener.accept(patience=5) as channel:
            assert (channel.receive(secret.shape, np.uint8, "secret step") == secret).all()
        other.join()
        serving.join(5)
    assert len(seen) > len(secret)
    assert b"secret" not in bytes(seen)
    assert MAGIC not in bytes(seen)


def test_a_meeting_has_two_parties_and_a_digest():
    for wrong in ({"session": b"short"}, {"party": 1}, {"party": 256}, {"peer": -1}):
        with pytest.raises(ConfigError, match="no such meeting"):
            Meeting(**{"party": 0, "peer": 1, "peer_name": "client", "session": SESSION, **wrong})


def test_a_throttled_deployment(keys):
    network = Network("fast", 1e9, 0.0)
    run = lambda channel: (channel.exchange(np.arange(9), "step").sum(), channel.shaped_bytes)  # noqa: E731
    outcome = meet(meeting(0, keys["server"], network=network), meeting(1, keys["client"], network=network), run)
    assert outcome == [(36, 104)] * 2


def test_credentials_that_cannot_be_used(tmp_path, keys):
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
    swapped.write_bytes((keys["client"].folder / "key.pem").read_bytes())
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

    assert meet(meeting(0, timeout=20.0), meeting(1, timeout=20.0), run) == [count, count]
