"""Three processes that hold shares, over TLS: one of them is killed and the others stop in time, without an answer."""

import itertools
import random

import numpy as np
import pytest

from backends.mpc.party_process import Case, run_all
from backends.mpc.three_roles import drawn, right
from backends.mpc.trio_roles import TRIO
from edgeward import mpc
from patience import PATIENCE, SOON
from ports import free_ports

pytest_plugins = ["backends.mpc.deployment_fixtures"]
SECONDS = SOON
"""What the others may take to stop."""
BATCHES = 3


@pytest.fixture(scope="module")
def world(net, plan, trio_keys):
    """A small network's plan, its records, right and simulated answers, and certificates."""
    x = drawn(BATCHES)
    with mpc.simulate(parties=3) as run:
        simulated = np.concatenate([run(plan, x[i : i + 1]) for i in range(BATCHES)])
    return {"keys": trio_keys, "plan": plan, "x": x, "right": right(net, x), "simulated": simulated}


def cases(world, dying=None, dies_at=None):
    """Return the three roles' cases; the role `dying` is killed at its socket call `dies_at`."""
    at, server = (f"127.0.0.1:{port}" for port in free_ports(2))
    given = {
        "assistant": {"listen": at},
        "server": {"listen": server, "assistant": at, "model": world["plan"]},
        "client": {"server": server, "assistant": at},
    }
    terms = {"parties": 3, "patience": 4.0, "timeout": PATIENCE}
    return [
        Case(
            role,
            {"keys": world["keys"] / role, **terms, **given[role]},
            world["x"] if role == "client" else None,
            dies_at if role == dying else None,
        )
        for role in TRIO
    ]


@pytest.fixture(scope="module")
def calls(world):
    """Run all three without a death; return the socket calls of each role."""
    ended = run_all(cases(world))
    assert [one.error for one in ended] == ["", "", ""]
    np.testing.assert_allclose(ended[2].answer, world["right"], atol=1e-3)
    np.testing.assert_allclose(ended[2].answer, world["simulated"], atol=1e-3)
    return {role: one.calls for role, one in zip(TRIO, ended, strict=True)}


def killed(world, role, dies_at):
    """Kill one role and look at the others; return how late the last of them ended, or None where nobody died."""
    ended = dict(zip(TRIO, run_all(cases(world, role, dies_at)), strict=True))
    victim = ended.pop(role)
    for name, other in ended.items():
        place = f"{role} killed at call {dies_at}, {name}: {other.error or 'finished'}"
        assert other.code == 0, f"{place}: hung or crashed"
        if victim.code != 0:
            assert other.at - victim.at < SECONDS, f"{place}, {other.at - victim.at:.1f} s late"
        # A party whose work was done before the death may have finished; nobody stops without a word.
        done = other.answer is not None if name == "client" else not other.error
        assert done or other.error.startswith("ChannelError"), place
        if other.answer is not None:
            np.testing.assert_allclose(other.answer, world["right"], atol=1e-3)
    return max(other.at for other in ended.values()) - victim.at if victim.code != 0 else None


@pytest.mark.parametrize("role", TRIO)
def test_a_party_that_dies_in_the_middle_stops_the_others(world, calls, role):
    assert killed(world, role, calls[role] // 2) is not None


@pytest.mark.parametrize("role", ["assistant", *(pytest.param(role, marks=pytest.mark.slow) for role in TRIO[1:])])
def test_another_version_stops_everybody(world, role):
    given = cases(world)
    given[TRIO.index(role)].version = 0
    ended = run_all(given)
    assert all(one.error.startswith("ChannelError") for one in ended), ended
    assert any("another version" in one.error for one in ended)
    assert max(one.at for one in ended) - min(one.at for one in ended) < SECONDS


@pytest.mark.slow
def test_a_party_may_die_at_any_of_fifty_points(world, calls):
    draws = random.Random(4)
    late = [killed(world, role, draws.randint(1, calls[role])) for _, role in zip(range(50), itertools.cycle(TRIO))]
    assert sum(one is not None for one in late) > 40
