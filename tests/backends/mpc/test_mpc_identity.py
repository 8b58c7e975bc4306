"""A party given another party's folder refuses at once, before it listens or waits for anybody."""

import shutil
import socket
from datetime import datetime, timedelta, timezone

import pytest

from backends.mpc.three_roles import ROLES
from backends.mpc.trio_roles import TRIO
from edgeward import mpc
from edgeward.backends.mpc.transport.identity import check_identity
from edgeward.backends.mpc.transport.keys import write_keys
from edgeward.backends.mpc.transport.tls import Credentials
from edgeward.core.errors import ConfigError

pytest_plugins = ["backends.mpc.deployment_fixtures"]
WRONG = [
    (number, role, shown)
    for number, roles in ((2, ROLES), (3, TRIO))
    for role in roles
    for shown in roles
    if role != shown
]


def started(role, folder, parties, plan):
    """Run a role whose others never come."""
    given = {"keys": folder, "patience": 5.0}
    given |= {} if role == "dealer" else {"parties": parties}
    given |= {"model": plan} if role == "server" else {}
    given |= {"server": "127.0.0.1:1"} if role == "client" else {"listen": "127.0.0.1:0"}
    one = mpc.deploy(role, **given)
    if role != "client":
        return one.run()
    with one:
        raise AssertionError("the client met somebody")


@pytest.mark.parametrize(("parties", "role", "shown"), WRONG)
def test_the_folder_of_another_role_is_refused(keys, trio_keys, plan, parties, role, shown, monkeypatch):
    def early(*given, **named):
        raise AssertionError("it listened or called before it looked at its own certificate")

    monkeypatch.setattr(socket, "create_server", early)
    monkeypatch.setattr(socket, "create_connection", early)
    folder = keys if parties == 2 else trio_keys
    with pytest.raises(ConfigError) as caught:
        started(role, folder / shown, parties, plan)
    assert caught.value.what == f"'{folder / shown}' is not the {role}'s folder"
    assert (caught.value.expected, caught.value.came) == (f"a certificate of '{role}'", f"a certificate of '{shown}'")
    assert caught.value.fix == f"name the {role}'s folder: '{folder / role}'"


def test_a_folder_alone_names_no_other(keys, tmp_path):
    shutil.copytree(keys / "server", tmp_path / "mine")
    with pytest.raises(ConfigError, match="name the client's folder that `edgeward secure keys` made"):
        check_identity(Credentials(tmp_path / "mine"), "client")
    # What a folder is called does not matter.
    check_identity(Credentials(tmp_path / "mine"), "server")


def test_a_folder_named_from_inside_is_found(keys, monkeypatch):
    monkeypatch.chdir(keys / "server")
    with pytest.raises(ConfigError, match=str(keys / "client")):
        mpc.deploy("client", keys=".").__enter__()


def test_a_certificate_that_nobody_will_accept_is_refused(keys, trio_keys, tmp_path):
    old = write_keys(tmp_path / "old", ROLES, days=30, now=datetime.now(timezone.utc) - timedelta(days=40))
    with pytest.raises(ConfigError, match="expired"):
        check_identity(old["server"], "server")
    shutil.copytree(keys / "server", tmp_path / "mixed")
    shutil.copy(trio_keys / "server" / "ca.pem", tmp_path / "mixed" / "ca.pem")
    with pytest.raises(ConfigError, match="is not valid"):
        check_identity(Credentials(tmp_path / "mixed"), "server")
