"""TLS: a certificate, and its key, that the server can show."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from ...errors import GraftaxError


@dataclass(frozen=True)
class Certificate:
    """Files in PEM's form: a certificate with those that vouch for it, and its key, which may stand in the same file."""

    file: Path
    key: Path | None = None

    def __post_init__(self) -> None:
        """Raises GraftaxError where they cannot be read, do not belong together, or the key wants a password."""
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.file, self.key, password=_no_password)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            both = self.file if self.key is None else f"{self.file}, {self.key}"
            raise GraftaxError(f"{both}: no certificate and key for TLS ({error}).") from None


def certificate_of(file: Path | None, key: Path | None) -> Certificate | None:
    """The certificate of the command line's files; None where there are none. Raises as `Certificate`."""
    if file is None and key is not None:
        raise GraftaxError("--ssl-keyfile is the key of a certificate: give --ssl-certfile, too.")
    return None if file is None else Certificate(file, key)


def _no_password() -> str:
    raise ValueError("the key has a password")
