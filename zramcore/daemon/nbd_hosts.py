"""The NBD servers of a daemon: those of all devices, and those that `create` opened for one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..control import Control
from ..errors import InvalidValue
from ..nbd import Listener, Server, listen
from .fleet import Member

if TYPE_CHECKING:
    import ssl


class NbdHosts:
    """Starts and stops NBD servers over the devices of a control."""

    def __init__(self, control: Control, tls: ssl.SSLContext | None = None) -> None:
        self.control = control
        self.tls = tls
        self._servers: list[tuple[str | None, Server]] = []
        self._lock = threading.Lock()

    def listen(self, specs: Sequence[str]) -> list[Listener]:
        """Listen on all of these places or on none. Raises as `nbd.listen`, and InvalidValue (EINVAL) for one that
        other machines reach while there is no TLS: here, before a device is made for it."""
        listeners: list[Listener] = []
        try:
            for spec in specs:
                listeners.append(listen(spec))
                if self.tls is None and not listeners[-1].local:
                    raise InvalidValue(
                        "can be reached from other machines, and there is no TLS",
                        attribute="nbd",
                        value=spec,
                        hint="give the daemon --nbd-certificate and --nbd-key, or listen on 127.0.0.1 or a unix socket",
                    )
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        return listeners

    def serve(self, listeners: Sequence[Listener], only: str | None = None) -> list[Server]:
        """Serve every device, or `only` the one with this kernel's name, on all of these listeners or on none.

        The listeners come from `listen` or the service manager; they are closed when that fails.
        """
        made: list[Server] = []
        try:
            for listener in listeners:
                made.append(Server(self.control, listener, tls=self.tls, only=None if only is None else [only]))
            for server in made:
                server.start()
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        with self._lock:
            self._servers += [(only, server) for server in made]
        return made

    @property
    def addresses(self) -> list[str]:
        """Where every device is served."""
        return [server.address for only, server in list(self._servers) if only is None]

    def uris(self, member: Member) -> list[str]:
        """The NBD URIs of a device; none before it has a disksize, and none of the kernel's."""
        if member.device is None or not member.device.initialized:
            return []
        return [server.uri(member.name) for only, server in list(self._servers) if only in (None, member.name)]

    def disconnect(self, name: str) -> int:
        """End every connection to a device; how many there were."""
        return sum(server.disconnect(name) for _, server in list(self._servers))

    def forget(self, name: str) -> None:
        """Stop the servers that were for this device only."""
        with self._lock:
            gone = [server for only, server in self._servers if only == name]
            self._servers = [(only, server) for only, server in self._servers if only != name]
        for server in gone:
            server.stop()

    def close(self) -> None:
        """Stop every server: what clients have sent is answered first. No device is held by one afterwards."""
        with self._lock:
            servers, self._servers = self._servers, []
        for _, server in servers:
            server.stop()
