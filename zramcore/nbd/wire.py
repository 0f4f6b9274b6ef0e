"""Wire: one client's socket. Exact receives under a deadline while it negotiates, TLS, gathered sends.

Only the connection's own thread sends and receives; `cut` may be called from any thread.
"""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from ..interfaces import Buffer

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger("zramcore.nbd")

MOST_PARTS = 1000
"""Buffers given to one sendmsg; the kernel takes 1024 (UIO_MAXIOV)."""
GOODBYE_SECONDS = 0.5
"""How long a TLS client has to answer the end of the session."""
SOCKET_BUFFER = 1 << 20
"""Asked of the kernel for sending, so that a batch of replies leaves in one call; it grants what its limits allow."""
KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""A TCP client that vanished without a word is noticed after two minutes."""


class Disconnect(Exception):
    """Ends the connection: the client broke the protocol where it has no error to reply, or went away midway."""


def log(level: int, event: str, **fields: Any) -> None:
    """One line ``event key=value ...``; the record also carries `event` and `fields` for handlers that want them."""
    if logger.isEnabledFor(level):
        text = " ".join([event, *(f"{key}={value}" for key, value in fields.items())])
        logger.log(level, "%s", text, extra={"event": event, "fields": fields})


def peer_name(sock: socket.socket) -> str:
    """Who is at the other end: ``127.0.0.1:41234``, or the process and user behind a unix socket."""
    if sock.family == socket.AF_UNIX:
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return f"unix:pid={pid},uid={uid}"
    host, port, *_ = sock.getpeername()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Wire:
    """A connected stream socket of a client."""

    def __init__(self, sock: socket.socket, handshake_timeout: float) -> None:
        """`handshake_timeout`: seconds until every receive and send fails, unless `unhurry` is called before."""
        self.sock = sock
        self.tls = False
        self._deadline = time.monotonic() + handshake_timeout
        sock.setblocking(True)
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in KEEPALIVE:
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)

    # Negotiation ------------------------------------------------------------------------------------------------------

    def receive(self, length: int) -> bytes:
        """Exactly `length` bytes and not one more: what follows may be TLS. Raises Disconnect, OSError."""
        data = bytearray()
        while len(data) < length:
            self._hurry()
            part = self.sock.recv(min(length - len(data), 1 << 16))
            if not part:
                raise Disconnect("the client went away")
            data += part
        return bytes(data)

    def skip(self, length: int) -> None:
        """Receive `length` bytes and forget them."""
        while length:
            length -= len(self.receive(min(length, 1 << 16)))

    def send(self, data: bytes) -> None:
        """Send all of `data`. Raises OSError."""
        self._hurry()
        self.sock.sendall(data)

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Become a TLS session. Raises ssl.SSLError (an OSError) when the two sides cannot agree."""
        self._hurry()
        self.sock = context.wrap_socket(self.sock, server_side=True)
        self.tls = True

    def _hurry(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Disconnect("the client took too long to negotiate")
        self.sock.settimeout(left)

    def unhurry(self) -> None:
        """The negotiation is over: from now on receives and sends may take for ever."""
        self._deadline = float("inf")
        self.sock.settimeout(None)

    # Transmission -----------------------------------------------------------------------------------------------------

    def receive_into(self, buffer: memoryview) -> int:
        """Some bytes, as many as there are; 0 when the client is gone."""
        return self.sock.recv_into(buffer)

    def send_parts(self, parts: Sequence[Buffer]) -> None:
        """Send buffers one after the other, in as few calls as may be. Raises OSError."""
        if self.tls:
            self.sock.sendall(b"".join(parts))
            return
        for start in range(0, len(parts), MOST_PARTS):
            some = parts[start : start + MOST_PARTS]
            total = sum(map(len, some))
            sent = self.sock.sendmsg(some)
            if sent < total:  # a signal came in between
                self.sock.sendall(memoryview(b"".join(some))[sent:])

    # The end ----------------------------------------------------------------------------------------------------------

    def cut(self, how: int) -> None:
        """Shut the socket down (SHUT_RD, SHUT_RDWR) from any thread; whoever is blocked on it wakes up.

        Never through SSLSocket.shutdown: that forgets the session first, and what the other thread sends between
        the two would leave in the clear.
        """
        with suppress(OSError):
            socket.socket.shutdown(self.sock, how)

    def close(self) -> None:
        """End TLS, if any, and close."""
        sock = self.sock
        if self.tls:
            with suppress(OSError, ValueError):
                sock.settimeout(GOODBYE_SECONDS)
                sock = cast("ssl.SSLSocket", sock).unwrap()
        sock.close()
        self.sock.close()
