"""What the tests of deployments begin with: a small network, its plans, and certificates; made once, never changed."""

import pytest

from backends.mpc.three_roles import ROLES, SHAPE, small_net
from backends.mpc.trio_roles import TRIO
from edgeward import mpc
from edgeward.backends.mpc.transport.keys import write_keys
from edgeward.backends.mpc.transport.tls import Credentials


@pytest.fixture(scope="session")
def net():
    return small_net()


@pytest.fixture(scope="session")
def plans(net):
    """Return the network's plans by the number of records in a batch."""
    return {size: mpc.lowered(net, SHAPE, size) for size in (1, 2)}


@pytest.fixture(scope="session")
def plan(plans):
    return plans[1]


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """Return the folder with those of dealer, server and client."""
    folder = tmp_path_factory.mktemp("two-parties") / "keys"
    write_keys(folder, ROLES)
    return folder


@pytest.fixture(scope="session")
def credentials(keys):
    """Return those of dealer, server and client by name."""
    return {role: Credentials(keys / role) for role in ROLES}


@pytest.fixture(scope="session")
def trio_keys(tmp_path_factory):
    """Return the folder with those of assistant, server and client."""
    folder = tmp_path_factory.mktemp("three-parties") / "keys"
    write_keys(folder, TRIO)
    return folder
