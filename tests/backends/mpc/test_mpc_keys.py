"""Credentials: what is written, with which rights, and what is not."""

import stat
from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edgeward.backends.mpc.transport.keys import write_keys
from edgeward.core.errors import ConfigError


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_each_party_gets_its_own_folder(tmp_path):
    folder = tmp_path / "deep" / "keys"
    made = write_keys(folder, ("server", "client"), days=10)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) == sorted(
        [
            n
            for party in ("server", "client")
            for n in (party, *(f"{party}/{f}.pem" for f in ("ca", "certificate", "key")))
        ]
    )
    assert mode(folder) == 0o700
    private = set()
    for name, credentials in made.items():
        assert mode(credentials.folder) == 0o700
        assert all(mode(file) == 0o600 for file in credentials.folder.iterdir())
        authority = x509.load_pem_x509_certificate((credentials.folder / "ca.pem").read_bytes())
        certificate = x509.load_pem_x509_certificate((credentials.folder / "certificate.pem").read_bytes())
        key = load_pem_private_key((credentials.folder / "key.pem").read_bytes(), None)
        certificate.verify_directly_issued_by(authority)
        assert key.public_key() == certificate.public_key() != authority.public_key()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [name]
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        length = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert timedelta(days=10) <= length <= timedelta(days=10, minutes=10)
        assert certificate.not_valid_before_utc < datetime.now(timezone.utc)
        private.add(key.private_numbers().private_value)
    assert len(private) == 2


def test_the_authoritys_key_is_in_no_file(tmp_path):
    made = write_keys(tmp_path / "keys", ("server",))["server"]
    authority = x509.load_pem_x509_certificate((made.folder / "ca.pem").read_bytes()).public_key()
    for file in (tmp_path / "keys").rglob("*.pem"):
        if b"PRIVATE" in file.read_bytes():
            assert load_pem_private_key(file.read_bytes(), None).public_key() != authority


def test_two_calls_share_nothing(tmp_path):
    one, two = (write_keys(tmp_path / name, ("server",))["server"].folder for name in "ab")
    assert all((one / file.name).read_bytes() != file.read_bytes() for file in two.iterdir())


@pytest.mark.parametrize("name", ["", "Server", "a b", "../up", "a/b", "-a", "a" * 64, "a.b", "*"])
def test_names_that_are_not_host_names(tmp_path, name):
    with pytest.raises(ConfigError, match="no credentials were written"):
        write_keys(tmp_path / "keys", (name, "client"))
    assert not list(tmp_path.iterdir())


def test_other_refusals_leave_nothing(tmp_path):
    for more in ({"parties": ()}, {"parties": ("a", "a")}, {"days": 0}, {"days": 4000}):
        with pytest.raises(ConfigError):
            write_keys(tmp_path / "keys", **more)
    assert not list(tmp_path.iterdir())
    write_keys(tmp_path / "keys", ("server",))
    before = (tmp_path / "keys/server/key.pem").read_bytes()
    with pytest.raises(ConfigError, match="which exists"):
        write_keys(tmp_path / "keys", ("server",))
    assert (tmp_path / "keys/server/key.pem").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["keys"]


def test_a_failure_midway_leaves_nothing(tmp_path, monkeypatch):
    from edgeward.backends.mpc.transport import keys

    write, count = keys._write_private, iter(range(9))

    def full(path, content):
        if next(count) == 4:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(keys, "_write_private", full)
    with pytest.raises(ConfigError, match="No space left"):
        write_keys(tmp_path / "keys")
    assert not list(tmp_path.iterdir())
