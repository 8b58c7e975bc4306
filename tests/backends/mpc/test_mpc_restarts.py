"""Stores that do not match any more: lost batches, a copy put back, a dealer that forgot, more than a store holds."""

import contextlib
import shutil

import numpy as np
import pytest

from backends.mpc.three_roles import ROLES, deployed, drawn, right
from edgeward.backends.mpc.deployment.claim import Claim
from edgeward.backends.mpc.deployment.store import TupleStore
from edgeward.backends.mpc.offline.sealing import StoreError
from edgeward.backends.mpc.offline.tuples import SupplyError
from edgeward.backends.mpc.transport.failures import ChannelError
from edgeward.core.errors import ConfigError

pytest_plugins = ["backends.mpc.deployment_fixtures"]


@pytest.fixture(scope="module")
def filled(keys, plan, tmp_path_factory):
    """Folders of the three roles after both stores were filled with four batches."""
    folder = tmp_path_factory.mktemp("filled")
    done = deployed(keys, plan, None, ask=lambda client: client.fetch(4), **kept(folder))
    assert not [one for one in done.values() if isinstance(one, Exception)], done
    assert [waiting(folder, role) for role in ("server", "client")] == [[0, 1, 2, 3]] * 2
    return folder


@pytest.fixture
def stores(filled, tmp_path):
    return shutil.copytree(filled, tmp_path / "stores")


def kept(folder, ahead=4):
    given = {role: {"store": folder / role, "ahead": ahead} for role in ("server", "client")}
    return {**given, "dealer": {"folder": folder / "dealer"}}


def batch(folder, role, index):
    return next((folder / role).glob("*-party[01]")) / f"batch-{index:012d}.sealed"


def waiting(folder, role):
    return sorted(int(path.name[6:18]) for path in (folder / role).glob("*/batch-*"))


@pytest.fixture
def taken(monkeypatch):
    """Return (party, index) of every batch whose material a party has begun to use."""
    used, take = [], TupleStore.take

    def logged(self, index):
        return noted((self._number, index), take(self, index))

    def noted(which, records):
        for record in records:
            if which not in used:
                used.append(which)
            yield record

    monkeypatch.setattr(TupleStore, "take", logged)
    return used


@pytest.mark.parametrize(
    "lost",
    [
        {"server": (0, 2), "client": (1,)},
        {"server": (0, 1, 2, 3)},
        {"client": (0, 1, 2, 3)},
        {"server": (0, 1), "client": (2, 3)},
        {"server": (2, 3), "client": (0, 1)},
    ],
)
def test_what_only_one_party_lost_is_thrown_away_by_both(keys, plan, net, stores, lost):
    for role, indices in lost.items():
        for index in indices:
            batch(stores, role, index).unlink()
    done = deployed(keys, plan, drawn(3), **kept(stores))
    assert isinstance(done["client"], tuple), done
    np.testing.assert_allclose(done["client"][0], right(net, drawn(3)), atol=1e-3)
    assert done["dealer"].resumed
    # Both stores were filled up again with the same batches, none of which only one of them had.
    left = [waiting(stores, role) for role in ("server", "client")]
    assert left[0] == left[1]
    assert not {index for indices in lost.values() for index in indices} & set(left[0])


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_copy_of_one_store_put_back_brings_no_used_batch_back(keys, plan, net, stores, tmp_path, taken, role):
    shutil.copytree(stores / role, tmp_path / "copy")
    first = deployed(keys, plan, drawn(2), **kept(stores))
    shutil.rmtree(stores / role)
    shutil.move(tmp_path / "copy", stores / role)
    assert waiting(stores, role) == [0, 1, 2, 3]
    second = deployed(keys, plan, drawn(2, 1), **kept(stores))
    for run, seed in ((first, 0), (second, 1)):
        np.testing.assert_allclose(run["client"][0], right(net, drawn(2, seed)), atol=1e-3)
    for party in (0, 1):
        assert [index for number, index in taken if number == party] == [0, 1, 2, 3]


def test_a_batch_is_off_both_disks_before_either_party_uses_it(keys, plan, stores, monkeypatch):
    """A party that goes on alone after the other's death must find nothing that the other one has used."""
    from edgeward.backends.mpc.inference.session import Session

    seen, run = [], Session.run

    def looking(self, *arguments, **named):
        seen.append([waiting(stores, role)[0] for role in ("server", "client")])
        return run(self, *arguments, **named)

    monkeypatch.setattr(Session, "run", looking)
    deployed(keys, plan, drawn(3), **kept(stores))
    assert len(seen) == 6
    assert all(min(seen[2 * i + j]) > i for i in range(3) for j in (0, 1)), seen


def test_a_dealer_whose_folder_was_put_back_deals_nothing_under_an_old_index(keys, plan, stores, tmp_path):
    shutil.copytree(stores / "dealer", tmp_path / "copy")
    deployed(keys, plan, drawn(2), **kept(stores))
    assert waiting(stores, "server")[-1] > 3
    shutil.rmtree(stores / "dealer")
    shutil.move(tmp_path / "copy", stores / "dealer")
    done = deployed(keys, plan, drawn(3), **kept(stores))
    assert any(isinstance(done[role], SupplyError) for role in ("server", "client")), done
    assert all(isinstance(one, (SupplyError, ChannelError)) for one in done.values()), done
    assert "second time" in "".join(map(str, done.values()))


def test_a_dealer_that_forgot_deals_anew_and_the_stores_throw_their_material_away(keys, plan, net, stores):
    shutil.rmtree(stores / "dealer")
    done = deployed(keys, plan, drawn(2), **kept(stores))
    np.testing.assert_allclose(done["client"][0], right(net, drawn(2)), atol=1e-3)
    assert not done["dealer"].resumed
    assert done["client"][1].setup.bytes > 0


def test_more_than_the_server_holds_is_refused_before_it_is_asked_for(keys, plan, stores):
    changes = kept(stores)
    changes["client"]["ahead"] = 9
    done = deployed(keys, plan, None, ask=lambda client: client.fetch(9), **changes)
    assert isinstance(done["client"], ConfigError), done
    assert "--ahead 9" in str(done["client"])
    assert isinstance(done["server"], ChannelError)
    assert waiting(stores, "server") == [0, 1, 2, 3]


def test_a_fetch_without_a_store_at_the_server_is_refused(keys, plan, tmp_path):
    changes = {"client": {"store": tmp_path}}
    done = deployed(keys, plan, None, ask=lambda client: client.fetch(2), **changes)
    assert isinstance(done["client"], ConfigError), done
    assert "a store at both" in str(done["client"])


def test_a_store_in_use_is_refused_and_free_again_afterwards(keys, plan, net, stores):
    """A second client with the same store: nothing of the first one's is touched."""
    with contextlib.closing(Claim(TupleStore.lock(stores / "client", plan.plan, 0))):
        done = deployed(keys, plan, drawn(1), **kept(stores))
        assert isinstance(done["client"], StoreError)
        assert "in use" in str(done["client"])
        assert isinstance(done["server"], ChannelError)
    assert waiting(stores, "client") == [0, 1, 2, 3]
    for seed in (0, 1):
        done = deployed(keys, plan, drawn(1, seed), **kept(stores))
        np.testing.assert_allclose(done["client"][0], right(net, drawn(1, seed)), atol=1e-3)


def test_stores_of_other_lengths_end_at_the_same_batch(keys, plan, net, stores):
    """Without a dealer, what both have is used and no more."""
    batch(stores, "client", 1).unlink()
    alone = {role: {"store": stores / role, "dealer": None} for role in ROLES if role != "dealer"}
    done = deployed(keys, plan, drawn(3), **alone)
    np.testing.assert_allclose(done["client"][0], right(net, drawn(3)), atol=1e-3)
    done = deployed(keys, plan, drawn(1), **alone)
    assert {type(done[role]) for role in ("server", "client")} <= {SupplyError, ChannelError}
    assert "none was used" in str(done["client"])
    assert any(isinstance(done[role], SupplyError) for role in ("server", "client"))
