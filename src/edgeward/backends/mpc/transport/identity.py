"""Whose credentials a folder holds, as the other parties will see it."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

from edgeward.backends.mpc.transport.tls import KEY, Credentials
from edgeward.core.errors import ConfigError


def check_identity(credentials: Credentials, name: str) -> None:
    """Refuse credentials that are not those of the party `name`: every other party would refuse them, after a wait.

    Raises: `ConfigError` for another party's folder, a certificate that has expired or is of another authority, and as
    `Credentials.context`.
    """
    folder = credentials.folder
    try:
        names = _shown(credentials)
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(
            f"the certificate in '{folder}' is not valid",
            expected="a valid certificate of the authority beside it",
            came=error.verify_message,
            fix="make folders for all parties with `edgeward secure keys`",
        ) from None
    if name not in names:
        beside = folder.resolve().with_name(name)
        here = f": '{beside}'" if (beside / KEY).is_file() else " that `edgeward secure keys` made"
        raise ConfigError(
            f"'{folder}' is not the {name}'s folder",
            expected=f"a certificate of '{name}'",
            came="a certificate of " + (", ".join(f"'{one}'" for one in sorted(names)) or "nobody"),
            fix=f"name the {name}'s folder{here}",
        )


def _shown(credentials: Credentials) -> frozenset[str]:
    """Return the names of the certificate: a party meets itself in memory, and looks at what it was shown."""
    checking, showing = credentials.context(server=False), credentials.context(server=True)
    checking.check_hostname = False
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    seer, shower = checking.wrap_bio(back, there), showing.wrap_bio(there, back, server_side=True)
    for end in (seer, shower, seer):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    certificate: dict[str, Any] = seer.getpeercert() or {}
    return frozenset(value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")
