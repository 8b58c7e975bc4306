"""Certificates for the parties of a secure computation: one authority that signs once and is forgotten."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, final

from edgeward.backends.mpc.transport.tls import AUTHORITY, CERTIFICATE, KEY, Credentials
from edgeward.core.errors import ConfigError
from edgeward.core.extras import require

_EXTRA = "mpc"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_CLOCK_SKEW = timedelta(minutes=5)


def write_keys(
    folder: Path,
    parties: Sequence[str] = ("server", "client", "dealer"),
    *,
    days: int = 90,
    now: datetime | None = None,
) -> dict[str, Credentials]:
    """Write one folder of credentials per party under `folder`; give each party its own and delete the copies.

    Args: `parties`: names as in a host name; `days` from `now` (default: this moment) for which they are valid.
    Returns: name -> credentials.
    Guarantee: keys are ECDSA P-256 from the operating system's generator, in files of mode 600 in folders of mode 700.
    The authority's key is never written: nobody, its maker included, can sign a further party afterwards. Whoever runs
    this function sees every party's key while it runs; no folder is written in part.
    Raises: `ConfigError` for bad names, an existing folder; `MissingExtra`.
    """
    _check(folder, parties, days)
    start = (now or datetime.now(timezone.utc)) - _CLOCK_SKEW
    issuer = _Issuer(start, start + _CLOCK_SKEW + timedelta(days=days))
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name in parties:
            (draft / name).mkdir(mode=0o700)
            key, certificate = issuer.party(name)
            for file, content in ((AUTHORITY, issuer.certificate), (CERTIFICATE, certificate), (KEY, key)):
                _write_private(draft / name / file, content)
        draft.rename(folder)
    except OSError as error:
        raise ConfigError(f"'{folder}' cannot be written", came=str(error.strerror), fix="name a new folder") from None
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(draft)
    return {name: Credentials(folder / name) for name in parties}


@final
class _Issuer:
    """An authority that lives as long as this object."""

    def __init__(self, start: datetime, end: datetime) -> None:
        self._x509 = require("cryptography.x509", extra=_EXTRA)
        self._oid = require("cryptography.x509.oid", extra=_EXTRA)
        self._ec = require("cryptography.hazmat.primitives.asymmetric.ec", extra=_EXTRA)
        self._serialization = require("cryptography.hazmat.primitives.serialization", extra=_EXTRA)
        self._hashes = require("cryptography.hazmat.primitives.hashes", extra=_EXTRA)
        self._start, self._end = start, end
        self._key = self._ec.generate_private_key(self._ec.SECP256R1())
        self._name = self._subject("edgeward authority " + os.urandom(6).hex())
        usage = self._usage(key_cert_sign=True, crl_sign=True)
        basic = self._x509.BasicConstraints(ca=True, path_length=0)
        draft = self._draft(self._name, self._key).add_extension(basic, critical=True)
        self.certificate = self._sign(draft.add_extension(usage, critical=True))

    def party(self, name: str) -> tuple[bytes, bytes]:
        """Return (private key, certificate) of a party as PEM."""
        x509, key = self._x509, self._ec.generate_private_key(self._ec.SECP256R1())
        both = [self._oid.ExtendedKeyUsageOID.SERVER_AUTH, self._oid.ExtendedKeyUsageOID.CLIENT_AUTH]
        draft = self._draft(self._subject(name), key)
        draft = draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        draft = draft.add_extension(self._usage(digital_signature=True), critical=True)
        draft = draft.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        draft = draft.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        pem, form = self._serialization.Encoding.PEM, self._serialization.PrivateFormat.PKCS8
        return key.private_bytes(pem, form, self._serialization.NoEncryption()), self._sign(draft)

    def _draft(self, subject: Any, key: Any) -> Any:
        x509, public, issuing = self._x509, key.public_key(), self._key.public_key()
        draft = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(public)
        draft = draft.serial_number(x509.random_serial_number())
        draft = draft.not_valid_before(self._start).not_valid_after(self._end)
        draft = draft.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing)
        return draft.add_extension(authority, critical=False)

    def _sign(self, draft: Any) -> bytes:
        signed = draft.sign(self._key, self._hashes.SHA256())
        return bytes(signed.public_bytes(self._serialization.Encoding.PEM))

    def _subject(self, name: str) -> Any:
        return self._x509.Name([self._x509.NameAttribute(self._oid.NameOID.COMMON_NAME, name)])

    def _usage(self, **given: bool) -> Any:
        kinds = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
        kinds += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
        return self._x509.KeyUsage(**{kind: given.get(kind, False) for kind in kinds})


def _check(folder: Path, parties: Sequence[str], days: int) -> None:
    problems = [f"the name '{name}'" for name in parties if not _NAME.fullmatch(name)]
    problems += ["no party"] * (not parties) + ["a name twice"] * (len(set(parties)) < len(parties))
    problems += [f"{days} days"] * (not 1 <= days <= 3650)
    problems += [f"'{folder}', which exists"] * folder.exists()
    if problems:
        expected = "a new folder, names of small letters, digits and hyphens, and 1 to 3650 days"
        raise ConfigError("no credentials were written", expected=expected, came=", ".join(problems))


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
