"""TLS of the NBD server: an `ssl` context from certificate files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidValue

if TYPE_CHECKING:
    import ssl


def server_context(
    certificate: str | Path, key: str | Path | None = None, client_ca: str | Path | None = None
) -> ssl.SSLContext:
    """A context that proves the server with a PEM `certificate` (the chain, leaf first) and its `key` (None: in the
    same file), TLS 1.2 or newer. With `client_ca`, a client must show a certificate that one of these signed.

    Raises InvalidValue (EINVAL) naming the file that cannot be read or used.
    """
    import ssl  # here, for it is 4 MiB that a server without TLS need not have

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        files = f"{certificate} and {key}" if key is not None else str(certificate)
        raise InvalidValue(
            f"cannot use {files}: {_reason(error)}",
            attribute="tls",
            hint="the server needs its certificate and the private key that belongs to it, in PEM",
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(cafile=client_ca)
        except OSError as error:
            raise InvalidValue(
                f"cannot use {client_ca}: {_reason(error)}",
                attribute="tls",
                hint="the CA of the clients is one or more certificates in PEM",
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
