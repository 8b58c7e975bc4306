"""Three processes over TLS, one of which is killed: the others stop in time, and no material is used twice."""

import itertools
import random
import signal

import numpy as np
import pytest

from backends.mpc.party_process import ROLES, Case, run_all
from backends.mpc.three_roles import drawn, right
from patience import PATIENCE, SOON
from ports import free_ports

pytest_plugins = ["backends.mpc.deployment_fixtures"]
SECONDS = SOON
"""What the others may take to stop."""
BATCHES = 3


@pytest.fixture(scope="module")
def world(net, plan, keys):
    """A small network's plan, its records and right answers, certificates."""
    x = drawn(BATCHES)
    return {"keys": keys, "plan": plan, "x": x, "right": right(net, x)}


def cases(world, stores, dying=None, dies_at=None):
    """Return the three roles' cases; the role `dying` is killed at its socket or disk call `dies_at`."""
    at, server = (f"127.0.0.1:{port}" for port in free_ports(2))
    keys, terms = world["keys"], {"patience": 4.0, "timeout": PATIENCE}
    kept = {"store": stores / "client"}, {"store": stores / "server"}
    given = {
        "dealer": {"listen": at, "folder": stores / "dealer", **terms},
        "server": {"listen": server, "dealer": at, "model": world["plan"], **terms, **kept[1]},
        "client": {"server": server, "dealer": at, **terms, **kept[0]},
    }
    return [
        Case(
            role,
            {"keys": keys / role, **given[role]},
            world["x"] if role == "client" else None,
            dies_at if role == dying else None,
            stores / "taken.log",
        )
        for role in ROLES
    ]


def clean(world, stores):
    """Run all three without a death; return the calls of each role."""
    ended = run_all(cases(world, stores))
    assert [one.error for one in ended] == ["", "", ""]
    np.testing.assert_allclose(ended[2].answer, world["right"], atol=1e-3)
    return {role: one.calls for role, one in zip(ROLES, ended, strict=True)}


def killed(world, stores, role, dies_at):
    """Kill one role and look at the others; then run again with the same stores."""
    ended = dict(zip(ROLES, run_all(cases(world, stores, role, dies_at)), strict=True))
    victim = ended.pop(role)
    for name, other in ended.items():
        place = f"{role} killed at call {dies_at}, {name}: {other.error or 'finished'}"
        assert other.code == 0, f"{place}: hung or crashed"
        if victim.code != 0:
            assert other.at - victim.at < SECONDS, f"{place}, {other.at - victim.at:.1f} s late"
        # A party whose work was done before the death may have finished; nobody stops without a word.
        assert (
            other.error.startswith("ChannelError")
            or (name != "client" and not other.error)
            or (other.answer is not None)
        ), place
        if other.answer is not None:
            np.testing.assert_allclose(other.answer, world["right"], atol=1e-3)
    clean(world, stores)
    drawn = (stores / "taken.log").read_text().splitlines()
    assert len(drawn) == len(set(drawn)), "a batch was drawn twice"


@pytest.fixture(scope="module")
def calls(world, tmp_path_factory):
    return clean(world, tmp_path_factory.mktemp("clean"))


@pytest.mark.parametrize("role", ROLES)
def test_a_party_that_dies_in_the_middle_stops_the_others(world, calls, tmp_path, role):
    killed(world, tmp_path, role, calls[role] // 2)


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_party_that_dies_before_it_stored_what_the_other_one_has_can_go_on(world, tmp_path, role):
    """The other store is full then: its party asks for nothing until both agree on what is worth keeping."""
    given, full = cases(world, tmp_path), "client" if role == "server" else "server"
    given[ROLES.index(role)].dies_storing = tmp_path / full
    given[ROLES.index("client")].records = None
    ended = dict(zip(ROLES, run_all(given), strict=True))
    victim = ended.pop(role)
    assert victim.code == -signal.SIGKILL
    for name, other in ended.items():
        assert other.error.startswith("ChannelError"), (name, other)
        assert other.at - victim.at < SECONDS
    assert [len([*(tmp_path / name).glob("*/batch-*")]) for name in (full, role)] == [2, 0]
    clean(world, tmp_path)


@pytest.mark.parametrize("role", ["server", *(pytest.param(role, marks=pytest.mark.slow) for role in ROLES[::2])])
def test_another_version_stops_everybody(world, tmp_path, role):
    given = cases(world, tmp_path)
    given[ROLES.index(role)].version = 0
    ended = run_all(given)
    assert all(one.error.startswith("ChannelError") for one in ended), ended
    assert any("another version" in one.error for one in ended)
    assert max(one.at for one in ended) - min(one.at for one in ended) < SECONDS


@pytest.mark.slow
def test_a_party_may_die_at_any_of_fifty_points(world, calls, tmp_path):
    draws = random.Random(4)
    for number, role in zip(range(50), itertools.cycle(ROLES), strict=False):
        stores = tmp_path / f"{number}"
        stores.mkdir()
        killed(world, stores, role, draws.randint(1, calls[role]))
