"""Dealer, server and client over TLS on this machine: answers, costs, stores, and everything that must be refused."""

import contextlib
import logging
import socket
import threading
import time

import numpy as np
import pytest
from torch import nn

from backends.mpc.three_roles import ROLES, SHAPE, Between, deployed, drawn, right
from edgeward import mpc
from edgeward.backends.mpc.deployment import agreement
from edgeward.backends.mpc.deployment.lifeline import Lifeline
from edgeward.backends.mpc.offline.sealing import StoreError
from edgeward.backends.mpc.offline.tuples import SupplyError
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.keys import write_keys
from edgeward.backends.mpc.transport.pair import local_pair
from edgeward.core.errors import ConfigError, DataError, EdgewardError
from patience import PATIENCE
from ports import free_ports

pytest_plugins = ["backends.mpc.deployment_fixtures"]


def test_several_batches_are_answered_and_metered_as_declared(keys, plans, net):
    x = drawn(5)
    done = deployed(keys, plans[2], x)
    answer, expense = done["client"]
    np.testing.assert_allclose(answer, right(net, x), atol=1e-3)
    assert (expense.batches, done["server"].batches) == (3, 3)
    assert expense.agrees
    assert done["server"].agrees
    with mpc.simulate() as run:
        run(plans[2], x[:2])
    assert (expense.online.bytes, expense.online.rounds) == (3 * run.costs.online.bytes, 3 * run.costs.online.rounds)
    assert (expense.setup, done["server"].setup) == (run.costs.setup, run.costs.setup)
    said = expense.to_json()
    assert (said["kind"], said["adversary"][:11], said["trusted"][:10]) == ("deployment", "semi-honest", "the dealer")
    # The dealer sent the server its corrections, and the client hardly more than seeds.
    assert done["dealer"].to_server > 100 * expense.batches > 0
    assert done["dealer"].batches >= 3


def test_calls_may_follow_each_other_and_records_may_be_refused_in_between(keys, plans, net):
    first, second = drawn(1, 1), drawn(2, 2)

    def ask(client):
        one = client.run(first)
        with pytest.raises(DataError, match="do not fit"):
            client.run(np.zeros((1, 2, 6, 6), np.float32))
        return one, client.run(second)

    done = deployed(keys, plans[1], None, ask=ask)
    (one, two), expense = done["client"]
    np.testing.assert_allclose(np.concatenate([one, two]), right(net, np.concatenate([first, second])), atol=1e-3)
    assert expense.batches == 3


def test_stores_go_on_where_they_stopped_and_then_without_a_dealer(keys, plans, net, tmp_path):
    kept = {role: {"store": tmp_path / role} for role in ("server", "client")}
    kept["dealer"] = {"folder": tmp_path / "dealer"}
    ahead = {role: {**kept[role], **({"ahead": 4} if role != "dealer" else {})} for role in ROLES}
    first = deployed(keys, plans[1], drawn(1), **ahead)
    second = deployed(keys, plans[1], drawn(1, 1), **ahead)
    assert first["client"][1].setup.bytes > 0
    # The weights stay opened, and the dealer goes on with the same masks.
    assert second["client"][1].setup.bytes == 0
    assert second["dealer"].resumed
    assert not first["dealer"].resumed
    fetched = deployed(keys, plans[1], None, ask=lambda client: client.fetch(4), **ahead)
    assert not [one for one in fetched.values() if isinstance(one, Exception)]
    alone = {role: {**kept[role], "dealer": None} for role in ("server", "client")}
    third = deployed(keys, plans[1], drawn(2, 2), **alone)
    np.testing.assert_allclose(third["client"][0], right(net, drawn(2, 2)), atol=1e-3)
    for run, seed in ((first, 0), (second, 1)):
        np.testing.assert_allclose(run["client"][0], right(net, drawn(1, seed)), atol=1e-3)
    empty = deployed(keys, plans[1], drawn(9), **alone)
    assert isinstance(empty["client"], EdgewardError)
    assert isinstance(empty["server"], EdgewardError)
    assert "SupplyError" in {type(empty[role]).__name__ for role in ("server", "client")}


def test_another_model_never_meets_the_masks_of_the_first(keys, plans, net, tmp_path):
    kept = {role: {"store": tmp_path / role} for role in ("server", "client")}
    kept["dealer"] = {"folder": tmp_path / "dealer"}
    deployed(keys, plans[1], drawn(1), **kept)
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).eval()
    done = deployed(keys, mpc.lowered(other, SHAPE), drawn(1), **kept)
    np.testing.assert_allclose(done["client"][0], right(other, drawn(1)), atol=1e-3)
    assert not done["dealer"].resumed
    assert done["client"][1].setup.bytes > 0


def test_a_dealer_may_deal_too_little(keys, plans):
    done = deployed(keys, plans[1], drawn(3), batches=2)
    assert all(isinstance(done[role], EdgewardError) for role in ("server", "client"))
    assert any(isinstance(done[role], SupplyError) for role in ("server", "client"))


def test_one_party_with_a_dealer_and_one_without_are_refused(keys, plans, tmp_path):
    done = deployed(keys, plans[1], drawn(1), server={"dealer": None, "store": tmp_path}, dealer={"patience": 1.0})
    assert isinstance(done["server"], ConfigError)
    assert isinstance(done["client"], ConfigError)
    assert isinstance(done["dealer"], ChannelError)


def test_a_plan_of_another_digest_is_refused(keys, plans):
    done = deployed(keys, plans[1], drawn(1), client={"plan": "0" * 64}, dealer={"patience": 1.0})
    assert done["client"].reason is Failure.DISAGREEMENT
    assert isinstance(done["server"], ChannelError)


@pytest.mark.parametrize("role", ["client", *(pytest.param(role, marks=pytest.mark.slow) for role in ROLES[:2])])
def test_a_wrong_certificate_stops_everybody(keys, plans, tmp_path, role):
    write_keys(tmp_path / "foreign")
    changes = {name: {"patience": 3.0} for name in ROLES}
    changes[role]["keys"] = tmp_path / "foreign" / role
    done = deployed(keys, plans[1], drawn(1), **changes)
    assert all(isinstance(one, ChannelError) for one in done.values())
    assert Failure.UNTRUSTED in {one.reason for one in done.values()}


def test_the_server_cannot_be_the_client(keys, plans, monkeypatch):
    # A party that means harm does not look at its own certificate.
    monkeypatch.setattr(agreement, "check_identity", lambda credentials, name: None)
    done = deployed(keys, plans[1], drawn(1), client={"keys": keys / "server"}, dealer={"patience": 1.0})
    assert Failure.UNTRUSTED in {done[role].reason for role in ("server", "client")}
    assert all(isinstance(one, ChannelError) for one in done.values())


def test_another_release_is_refused(keys, plans, monkeypatch):
    digest = {True: bytes(32), False: bytes([1]) * 32}
    monkeypatch.setattr(agreement, "_session", lambda: digest[threading.current_thread().name == "client"])
    done = deployed(keys, plans[1], drawn(1), client={"patience": 2.0})
    assert all(isinstance(one, ChannelError) for one in done.values())
    assert done["server"].reason is Failure.DISAGREEMENT


@pytest.mark.parametrize(
    ("link", "after"), [(("client", "server"), 4300), (("server", "dealer"), 3000), (("client", "dealer"), 1900)]
)
@pytest.mark.parametrize("mode", ["cut", "alter"])
def test_bytes_that_are_altered_or_missing_stop_everybody(keys, plans, link, after, mode):
    wires = []

    def through(role, peer, port):
        if (role, peer) != link:
            return port
        wires.append(Between(port, after, mode))
        return wires[0].port

    done = deployed(keys, plans[1], drawn(3), through=through)
    wires[0].join()
    errors = [one for one in done.values() if isinstance(one, ChannelError)]
    assert len(errors) == 3, done
    assert {error.reason for error in errors} & {Failure.GONE, Failure.MALFORMED, Failure.UNTRUSTED}


def test_a_store_that_cannot_be_written_stops_everybody(keys, plans, tmp_path, monkeypatch):
    from edgeward.backends.mpc.deployment.store import TupleStore

    put = TupleStore.put

    def full(self, index, records):
        if index == 1:
            raise StoreError("'batch' cannot be written or read", came="No space left on device")
        put(self, index, records)

    monkeypatch.setattr(TupleStore, "put", full)
    done = deployed(keys, plans[1], drawn(4), server={"store": tmp_path})
    assert isinstance(done["server"], StoreError)
    assert all(isinstance(done[role], ChannelError) for role in ("dealer", "client"))


def test_a_stranger_does_not_end_the_wait(keys, plans, net):
    noted = []
    dealer, server = free_ports(2)
    stop, turned_away = threading.Event(), threading.Event()

    def note(line):
        noted.append(line)
        if "stranger" in line:
            turned_away.set()

    def knock():
        while not stop.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", server), timeout=PATIENCE) as stranger,
            ):
                stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
                stop.set()
            time.sleep(0.02)

    knocking = threading.Thread(target=knock)
    knocking.start()
    done = deployed(
        keys,
        plans[1],
        drawn(1),
        after=turned_away,
        dealer={"listen": f"127.0.0.1:{dealer}"},
        server={"listen": f"127.0.0.1:{server}", "dealer": f"127.0.0.1:{dealer}", "note": note},
        client={"server": f"127.0.0.1:{server}", "dealer": f"127.0.0.1:{dealer}"},
    )
    stop.set()
    knocking.join()
    assert isinstance(done["client"], tuple), done
    assert any("stranger" in note for note in noted)
    np.testing.assert_allclose(done["client"][0], right(net, drawn(1)), atol=1e-3)


def test_no_secret_is_in_logs_notes_errors_or_outputs(keys, plans, net, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    x, notes, wires = drawn(2), [], []

    def through(role, peer, port):
        if (role, peer) != ("client", "server"):
            return port
        wires.append(Between(port, 6000, "alter"))
        return wires[0].port

    said = {role: {"note": notes.append} for role in ROLES}
    good = deployed(keys, plans[1], x, **said)
    bad = deployed(keys, plans[1], x, through=through, **said)
    wires[0].join()
    assert all(isinstance(one, ChannelError) for one in bad.values()), bad
    text = "\n".join(
        [*map(repr, good.values()), *map(str, bad.values()), *map(repr, bad.values()), *notes, caplog.text]
    )
    text += "".join(capfd.readouterr())
    numbers = [*net[0].weight.detach().reshape(-1)[:9], *x.reshape(-1)[:9], *np.asarray(good["client"][0]).reshape(-1)]
    answer = repr(good["client"][0])
    for number in numbers:
        shown = f"{float(number):.6f}".rstrip("0")
        assert shown[1:] not in text.replace(answer, "")


def test_a_line_that_failed_tells_its_cause_and_not_the_consequence():
    ours, theirs = local_pair()
    cause, line = ChannelError(Failure.GONE), Lifeline()

    def body():
        with line:
            line.add(ours)
            line.fail(cause)
            ours.receive((1,), np.uint8, "step")

    with pytest.raises(ChannelError) as caught:
        body()
    assert caught.value is cause
    with pytest.raises(ChannelError) as told:
        theirs.receive((1,), np.uint8, "step")
    assert told.value.reason is Failure.ABORTED


@pytest.mark.parametrize("text", ["here", ":80", "host:", "host:70000", "host:1x"])
def test_addresses_that_cannot_be_read(text):
    with pytest.raises(ConfigError, match="cannot be read"):
        mpc.deploy("client", keys=None, server=text)


def test_roles_and_models_are_checked():
    with pytest.raises(ConfigError, match="unknown role"):
        mpc.deploy("spy", keys=None)
    with pytest.raises(ConfigError, match="brings the model"):
        mpc.deploy("server", keys=None)
    for ahead in (0, 1 << 16, 1 << 40):
        with pytest.raises(ConfigError, match="no such number of batches"):
            mpc.deploy("client", keys=None, ahead=ahead)
    with pytest.raises(ConfigError, match="no such deployment"):
        mpc.simulate(parties=7)
