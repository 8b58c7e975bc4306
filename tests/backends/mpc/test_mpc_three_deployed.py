"""Assistant, server and client, who hold shares: answers, costs, and everything that must be refused."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import pytest

from backends.mpc.three_roles import Between, drawn, right
from backends.mpc.trio_roles import TRIO, assisted
from backends.mpc.whole_runs import seeded
from edgeward import mpc
from edgeward.backends.mpc.deployment import agreement, serving, trio
from edgeward.backends.mpc.deployment.agreement import Terms
from edgeward.backends.mpc.inference.step import Step
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.keys import write_keys
from edgeward.core.errors import ConfigError, DataError, UnsupportedOperators
from edgeward.nets import lenet, vit
from ports import free_ports

pytest_plugins = ["backends.mpc.deployment_fixtures"]


def test_lenet_is_answered_and_metered_as_declared_at_every_party():
    net = seeded(lenet)
    x = np.random.default_rng(1).random((2, 1, 28, 28), np.float32)
    plan = mpc.lowered(net, (1, 28, 28), 1)
    done = assisted(None, plan, x)
    answer, expense = done["client"]
    np.testing.assert_allclose(answer, right(net, x), atol=2e-3)
    with mpc.simulate(parties=3) as run:
        simulated = np.concatenate([run(plan, x[i : i + 1]) for i in range(2)])
    np.testing.assert_allclose(answer, simulated, atol=1e-3)
    assert run.declared.rows == expense.table.rows
    for one in (expense, done["server"], done["assistant"]):
        assert one.agrees
        assert one.batches == 2


def test_attention_is_answered_and_metered_as_declared_at_every_party():
    net = seeded(lambda: vit(channels=1, size=8, dimension=16, depth=1, heads=2))
    x = np.random.default_rng(1).random((2, 1, 8, 8), np.float32)
    done = assisted(None, mpc.lowered(net, (1, 8, 8), 1), x)
    answer, expense = done["client"]
    np.testing.assert_allclose(answer, right(net, x), atol=2e-3)
    with mpc.simulate(parties=3) as run:
        np.testing.assert_allclose(answer, run(net, x), atol=1e-3)
    assert {"attention", "layer_norm"} <= {row.operator for row in expense.table.rows}
    for one in (expense, done["server"], done["assistant"]):
        assert (one.batches, one.agrees) == (2, True)


def test_several_batches_over_tls(trio_keys, plans, net):
    x = drawn(5)
    done = assisted(trio_keys, plans[2], x)
    answer, expense = done["client"]
    np.testing.assert_allclose(answer, right(net, x), atol=1e-3)
    for one in (expense, done["server"], done["assistant"]):
        assert (one.batches, one.agrees) == (3, True)
        said = one.to_json()
        assert (said["kind"], said["adversary"]) == ("deployment", "semi-honest, static, one of three parties")
        assert "no two" in said["trusted"]
        assert said["offline_bytes_received"] == 0


def test_only_the_client_learns_the_answer(trio_keys, plans):
    done = assisted(trio_keys, plans[1], drawn(1))
    tables = [done["client"][1].table, done["server"].table, done["assistant"].table]
    sent = [{row.label: row.online.bytes for row in table.rows} for table in tables]
    assert [row["result"] for row in sent] == [0, 3 * 8, 0]
    assert [row["input"] for row in sent] == [36 * 8, 0, 0]
    assert not isinstance(done["server"], tuple)
    assert not isinstance(done["assistant"], tuple)


def test_calls_may_follow_each_other_and_records_may_be_refused_in_between(trio_keys, plans, net):
    def ask(client):
        one = client.run(drawn(1, 1))
        with pytest.raises(DataError, match="do not fit"):
            client.run(np.zeros((1, 2, 6, 6), np.float32))
        return np.concatenate([one, client.run(drawn(2, 2))])

    done = assisted(trio_keys, plans[1], None, ask=ask)
    np.testing.assert_allclose(done["client"][0], right(net, np.concatenate([drawn(1, 1), drawn(2, 2)])), atol=1e-3)


def test_a_client_may_leave_without_a_question(trio_keys, plans):
    done = assisted(trio_keys, plans[1], None, ask=lambda client: client.plan.digest)
    assert done["client"][0] == plans[1].plan.digest
    assert done["assistant"].batches == 0
    assert done["assistant"].agrees


@pytest.mark.parametrize("role", TRIO)
def test_a_certificate_of_another_authority_stops_everybody(trio_keys, plans, tmp_path, role):
    write_keys(tmp_path / "foreign", TRIO)
    changes = {name: {"patience": 2.0} for name in TRIO}
    changes[role]["keys"] = tmp_path / "foreign" / role
    done = assisted(trio_keys, plans[1], drawn(1), **changes)
    assert all(isinstance(one, ChannelError) for one in done.values())
    assert Failure.UNTRUSTED in {one.reason for one in done.values()}


@pytest.mark.parametrize(("role", "shown"), [("assistant", "client"), ("client", "assistant"), ("server", "client")])
def test_a_certificate_of_another_role_stops_everybody(trio_keys, plans, role, shown, monkeypatch):
    # A party that means harm does not look at its own certificate.
    monkeypatch.setattr(agreement, "check_identity", lambda credentials, name: None)
    changes = {name: {"patience": 2.0} for name in TRIO}
    changes[role]["keys"] = trio_keys / shown
    done = assisted(trio_keys, plans[1], drawn(1), **changes)
    assert all(isinstance(one, ChannelError) for one in done.values())
    told = [str(one) for one in done.values() if one.reason is Failure.UNTRUSTED]
    assert any(f"a certificate of {shown}" in text or f"not valid for '{role}'" in text for text in told)


@pytest.mark.parametrize("role", ["client", "assistant"])
def test_who_insists_on_another_plan_stops_everybody(trio_keys, plans, role):
    done = assisted(trio_keys, plans[1], drawn(1), **{role: {"plan": "0" * 64}})
    assert done[role].reason is Failure.DISAGREEMENT
    assert all(isinstance(one, ChannelError) for one in done.values())


def test_a_server_that_names_two_networks_is_found_out_before_anything_is_shared(trio_keys, plans, monkeypatch):
    def invite(channels, plan, run):
        for number, channel in channels.items():
            trio.invite({number: channel}, plans[1].plan if number else plans[2].plan, run)

    monkeypatch.setattr(serving, "invite", invite)
    shared = []
    monkeypatch.setattr(trio, "hold", lambda *given: shared.append(given))
    done = assisted(trio_keys, plans[1], drawn(1))
    assert not shared
    assert all(isinstance(one, ChannelError) for one in done.values())
    assert Failure.DISAGREEMENT in {one.reason for one in done.values()}


def test_two_parties_and_three_do_not_mix(trio_keys, plans, monkeypatch):
    pair = Terms.meeting

    def meeting(terms, party, peer, **given):
        parties = 2 if threading.current_thread().name == "client" else terms.parties
        return pair(replace(terms, parties=parties), party, peer, **given)

    monkeypatch.setattr(Terms, "meeting", meeting)
    done = assisted(trio_keys, plans[1], drawn(1))
    assert all(isinstance(one, ChannelError) for one in done.values())
    assert Failure.DISAGREEMENT in {done["client"].reason, done["server"].reason}


@pytest.mark.parametrize(
    ("link", "after", "caller"),
    [
        (("client", "server"), 8000, False),
        (("server", "assistant"), 8000, False),
        (("client", "assistant"), 1650, False),
        (("client", "server"), 2300, True),
        (("server", "assistant"), 3800, True),
        (("client", "assistant"), 9000, True),
    ],
)
@pytest.mark.parametrize("mode", ["cut", "alter"])
def test_bytes_that_are_altered_or_missing_stop_everybody(trio_keys, plans, link, after, caller, mode):
    wires = []

    def through(role, peer, port):
        if (role, peer) != link:
            return port
        wires.append(Between(port, after, mode, caller=caller))
        return wires[0].port

    done = assisted(trio_keys, plans[1], drawn(9), through=through)
    wires[0].join()
    errors = [one for one in done.values() if isinstance(one, ChannelError)]
    assert len(errors) == 3, done
    assert {error.reason for error in errors} & {Failure.GONE, Failure.MALFORMED, Failure.UNTRUSTED}


def test_a_further_client_is_told_that_the_parties_are_busy(trio_keys, plans, net):
    (assistant, server), told = free_ports(2), []
    at = {"server": f"127.0.0.1:{server}", "assistant": f"127.0.0.1:{assistant}"}

    def ask(client):
        with pytest.raises(ChannelError) as caught, mpc.deploy("client", keys=trio_keys / "client", parties=3, **at):
            pass
        told.append(caught.value.reason)
        return client.run(drawn(1))

    changes = {"server": {"listen": at["server"], "assistant": at["assistant"]}, "client": at}
    done = assisted(trio_keys, plans[1], None, ask=ask, assistant={"listen": at["assistant"]}, **changes)
    assert told == [Failure.BUSY]
    np.testing.assert_allclose(done["client"][0], right(net, drawn(1)), atol=1e-3)


@final
class Warp(Step):
    """A step that three parties have no protocol for."""

    def run(self, party, values, held, materials):
        raise NotImplementedError

    def clear(self, simulator, values, model, masks):
        raise NotImplementedError


def test_what_three_parties_cannot_run_is_refused_before_anybody_is_met(keys, plans):
    steps = (Warp("0:x", "layer", "warp", (plans[1].plan.input,), (plans[1].plan.output,)),)
    with pytest.raises(UnsupportedOperators, match="two parties and a dealer"):
        mpc.deploy(
            "server", keys=keys / "server", parties=3, model=replace(plans[1], plan=replace(plans[1].plan, steps=steps))
        ).run()


@pytest.mark.parametrize("given", [{"dealer": None}, {"store": Path("store")}, {"ahead": 5}])
def test_what_belongs_to_a_dealer_is_refused(given):
    with pytest.raises(ConfigError, match="three parties have no dealer"):
        mpc.deploy("client", keys=None, parties=3, **given)


def test_more_refusals(plans):
    with pytest.raises(ConfigError, match="two parties have no assistant"):
        mpc.deploy("client", keys=None, assistant="127.0.0.1:1")
    with pytest.raises(ConfigError, match="unknown role"):
        mpc.deploy("dealer", keys=None, parties=3)
    with pytest.raises(ConfigError, match="no such deployment"):
        mpc.deploy("client", keys=None, parties=4)
    done = assisted(None, plans[1], None, ask=lambda client: client.fetch(2))
    assert isinstance(done["client"], ConfigError)
    assert all(isinstance(done[role], ChannelError) for role in ("server", "assistant"))
