"""Server: an NBD server of the devices of a Control. Blocking sockets, a thread a connection.

Log lines go to the logger ``zramcore.nbd``, one event each: see `wire.log`.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from ..control import Control
from ..errors import InvalidValue
from .address import Listener
from .export import Exports
from .handshake import Agreement, Handshake
from .session import Session
from .transmission import Transmission
from .wire import Disconnect, Wire, log, peer_name

if TYPE_CHECKING:
    import ssl

MAX_CONNECTIONS = 128
"""Clients at once. Each may use about 4 MiB: its buffer of requests, a batch of replies and the read under way."""
HANDSHAKE_SECONDS = 30.0
STOP_SECONDS = 5.0
REST_SECONDS = 0.1
"""Pause after accept failed for want of descriptors or memory."""


@dataclass(frozen=True)
class Client:
    """A connected client, for listings: `export` is empty while it negotiates; requests and bytes count since then."""

    peer: str
    export: str
    tls: bool
    since: float
    requests: int
    received: int
    sent: int


class Connection:
    """A client and its thread."""

    def __init__(self, server: Server, sock: socket.socket, peer: str) -> None:
        self.peer = peer
        self.stopping = False
        """Set to have every further request answered with ESHUTDOWN."""
        self.wire = Wire(sock, server.handshake_timeout)
        self.since = time.time()
        self.agreement: Agreement | None = None
        self.session: Session | None = None
        self.transmission: Transmission | None = None
        self._server = server
        self.thread = threading.Thread(target=self._run, name=f"nbd-{peer}", daemon=True)

    @property
    def client(self) -> Client:
        """What it has done so far."""
        agreement, transmission, session = self.agreement, self.transmission, self.session
        return Client(
            peer=self.peer,
            export="" if agreement is None else agreement.export.name,
            tls=self.wire.tls,
            since=self.since,
            requests=0 if transmission is None else transmission.requests,
            received=0 if transmission is None else transmission.received,
            sent=0 if session is None else session.outbox.sent,
        )

    def ask_to_stop(self) -> None:
        """Answer what has arrived and receive nothing more."""
        self.stopping = True
        self.wire.cut(socket.SHUT_RD)

    def cut_off(self) -> None:
        """Exchange nothing more with the client, and wait for no memory for what it wrote."""
        self.wire.cut(socket.SHUT_RDWR)
        if self.agreement is not None:
            self.agreement.export.device.room.dismiss(self.thread)

    def _run(self) -> None:
        reason = "done"
        try:
            self._serve()
        except (Disconnect, OSError) as error:
            reason = repr(str(error))
        except Exception as error:
            # A bug: it costs this connection, and nobody else's.
            reason = f"{type(error).__name__}: {error}"
            logging.getLogger("zramcore.nbd").exception("connection-crashed peer=%s", self.peer)
        finally:
            self.wire.close()
            self._server.forget(self)
            client = self.client
            log(
                logging.INFO,
                "disconnected",
                peer=self.peer,
                export=client.export or "-",
                requests=client.requests,
                received=client.received,
                sent=client.sent,
                reason=reason,
            )

    def _serve(self) -> None:
        server = self._server
        agreement = Handshake(self.wire, server.exports, server.tls, lambda: self.stopping, self.peer).run()
        if agreement is None:
            return
        try:
            self.agreement = agreement
            self.wire.unhurry()
            log(
                logging.INFO,
                "connected",
                peer=self.peer,
                export=agreement.export.name,
                tls=self.wire.tls,
                structured=agreement.structured,
                contexts=",".join(context.name for context in agreement.contexts) or "-",
            )
            self.session = Session(agreement, self.wire)
            self.transmission = Transmission(self.wire, self.session, lambda: self.stopping)
            self.transmission.run()
        finally:
            agreement.export.close()


class Server:
    """Serves every initialised device of `control` as an export of its name, until `stop`.

    `listener` comes from `listen`, `activated` or is any listening unix or TCP socket; the server closes it. `only`
    limits the exports to devices of these names; `read_only` refuses writes. With `tls` (see `tls.server_context`)
    clients must start TLS first. Raises InvalidValue (EINVAL) for a TCP address beyond loopback without it.
    """

    def __init__(
        self,
        control: Control,
        listener: Listener | socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        only: Collection[str] | None = None,
        read_only: bool = False,
        max_connections: int = MAX_CONNECTIONS,
        handshake_timeout: float = HANDSHAKE_SECONDS,
    ) -> None:
        self._listener = listener if isinstance(listener, Listener) else Listener(listener)
        if tls is None and not self._listener.local:
            raise InvalidValue(
                f"{self._listener.address} can be reached from other machines, and there is no TLS",
                attribute="nbd",
                hint="give a certificate and key, or listen on 127.0.0.1, [::1] or a unix socket",
            )
        self.tls = tls
        self.exports = Exports(control, only, read_only)
        self.max_connections = max_connections
        self.handshake_timeout = handshake_timeout
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()
        self._wake_receiver, self._wake_sender = os.pipe()
        self._thread = threading.Thread(target=self._accept, name="nbd-accept", daemon=True)
        self._stopped = False

    @property
    def address(self) -> str:
        """Where it listens, as `listen` takes it, with the port really used."""
        return self._listener.address

    def uri(self, export: str = "") -> str:
        """The NBD URI of an export, as clients take it."""
        return self._listener.uri(export, tls=self.tls is not None)

    @property
    def clients(self) -> list[Client]:
        """Who is connected now."""
        with self._lock:
            connections = list(self._connections)
        return [connection.client for connection in connections]

    def start(self) -> None:
        """Accept clients, in threads of its own. Once only."""
        self._listener.socket.setblocking(False)
        self._thread.start()
        log(logging.INFO, "listening", address=self.address, tls=self.tls is not None)

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Stop listening, answer what clients have sent (what is not begun: ESHUTDOWN), and close every connection;
        those that take longer than `timeout` seconds are cut off. The devices are held by nobody when it returns."""
        if self._stopped:
            return
        self._stopped = True
        os.write(self._wake_sender, b"x")
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()
        os.close(self._wake_receiver)
        os.close(self._wake_sender)
        with self._lock:
            connections = list(self._connections)
        _end(connections, timeout)
        log(logging.INFO, "stopped", clients=len(connections))

    def disconnect(self, name: str, timeout: float = STOP_SECONDS) -> int:
        """End every connection to the device of this name, as `stop` does, so that it can be reset or removed; returns
        how many there were. Clients may connect again at once."""
        with self._lock:
            connections = [each for each in self._connections if each.client.export == name]
        _end(connections, timeout)
        return len(connections)

    def forget(self, connection: Connection) -> None:
        """A connection is over; its thread calls this."""
        with self._lock:
            self._connections.discard(connection)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._wake_receiver, select.POLLIN)
        poll.register(self._listener.socket, select.POLLIN)
        while True:
            if any(descriptor == self._wake_receiver for descriptor, _ in poll.poll()):
                return
            try:
                sock, _ = self._listener.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                continue
            except OSError as error:
                log(logging.ERROR, "accept-failed", address=self.address, reason=repr(str(error)))
                select.select([self._wake_receiver], [], [], REST_SECONDS)
                continue
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        """Give a client its thread, or close its socket when there are too many."""
        try:
            peer = peer_name(sock)
        except OSError as error:  # it is gone already
            log(logging.INFO, "refused", peer="?", reason=repr(str(error)))
            sock.close()
            return
        with self._lock:
            full = len(self._connections) >= self.max_connections
            connection = None if full else Connection(self, sock, peer)
            if connection is not None:
                self._connections.add(connection)
        if connection is None:
            log(logging.WARNING, "refused", peer=peer, reason=f"'{self.max_connections} connections'")
            sock.close()
            return
        try:
            connection.thread.start()
        except RuntimeError as error:  # no more threads
            log(logging.ERROR, "refused", peer=connection.peer, reason=repr(str(error)))
            self.forget(connection)
            sock.close()


def _end(connections: list[Connection], timeout: float) -> None:
    """End connections gently, and by force those that are left after `timeout` seconds."""
    for connection in connections:
        connection.ask_to_stop()
    deadline = time.monotonic() + timeout
    for connection in connections:
        connection.thread.join(max(0.0, deadline - time.monotonic()))
    for connection in connections:
        while connection.thread.is_alive():
            connection.cut_off()
            connection.thread.join(REST_SECONDS)
