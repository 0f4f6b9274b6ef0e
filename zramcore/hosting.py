"""Hosting: one device of a deployment served over NBD, attached as a node, mounted or swapped to, and all of it undone.

The node is made over a socket of its own, without TLS: it never leaves this machine, and no other client has it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from .attach import Export, Record, attach, default_directory, detach, prepare
from .attach.filesystems import synchronize
from .attach.processes import Process
from .attach.protect import protect_self
from .attach.state import make_private
from .config import DaemonConfig, DeviceConfig
from .control import Control
from .errors import ZramError
from .nbd import Server, listen, server_context

log = logging.getLogger(__name__)


def check_host(device: DeviceConfig) -> None:
    """Raises ZramError when this machine or user cannot do what the device is for; nothing is touched."""
    if device.use.attached:
        prepare(device.use.use)


class Hosting:
    """What `host` made: the servers, and the record of the attachment, if there is one."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.servers: list[Server] = []
        self.uris: list[str] = []
        """Where clients find the device; the node's own socket is not told."""
        self.record: Record | None = None
        self.node: Server | None = None
        """The one of the servers that the node is made over."""

    @property
    def own_connections(self) -> int:
        """Connections that end with `release`, and that nobody else uses: the node's."""
        return 0 if self.node is None else sum(bool(client.export) for client in self.node.clients)

    def disconnect(self, device: str) -> int:
        """End the connections of its other clients, as `Server.disconnect`; how many there were."""
        return sum(server.disconnect(device) for server in self.servers if server is not self.node)

    def release(self) -> None:
        """Detach, then stop serving. Doing it again does no harm. Raises DeviceBusy (EBUSY) while the node is in use,
        and then the device is served as before."""
        if self.record is not None:
            detach(self.name, self.directory)
            self.record = None
        while self.servers:
            self.servers.pop().stop()
        self.uris, self.node = [], None

    def synchronize(self) -> None:
        """Have a mounted file system write what it keeps in memory. Raises ZramError."""
        if self.record is not None and self.record.directory is not None:
            synchronize(self.record.directory)

    def lines(self) -> Iterator[str]:
        """What there is, for people: URIs, then the node and where it is mounted."""
        yield from self.uris
        record = self.record
        if record is not None:
            use = ", swap" if record.swap else "" if record.directory is None else f" on {record.directory}"
            yield f"{record.path or record.node}{use}"


def host(control: Control, device: str, config: DeviceConfig, daemon: DaemonConfig) -> Hosting:
    """Serve and attach `device` (the kernel's name) as its config says: all of it, or nothing. Raises ZramError."""
    hosting = Hosting(config.name, default_directory())
    with contextlib.ExitStack() as undo:
        undo.callback(give_up, hosting)
        for spec in config.use.serve:
            hosting.servers.append(_serve(control, device, spec, daemon))
            hosting.uris.append(hosting.servers[-1].uri(device))
        if config.use.attached:
            _attach(hosting, control, device, config)
        undo.pop_all()
    return hosting


def _serve(control: Control, device: str, spec: str, daemon: DaemonConfig | None) -> Server:
    tls = None
    if daemon is not None and daemon.certificate is not None:
        tls = server_context(daemon.certificate, daemon.key, daemon.client_ca)
    listener = listen(spec)
    try:
        server = Server(control, listener, tls=tls, only=[device])
        server.start()
    except BaseException:
        listener.close()
        raise
    return server


def _attach(hosting: Hosting, control: Control, device: str, config: DeviceConfig) -> None:
    make_private(hosting.directory)
    server = _serve(control, device, f"unix:{hosting.directory / config.name}.sock", None)
    hosting.servers.append(server)
    hosting.node = server
    use = config.use.use
    notes = protect_self() if use.swap is not None else []
    export = Export(config.name, device, server.uri(device), Process.of(os.getpid()))
    hosting.record = attach(export, use, hosting.directory)
    level = logging.INFO if use.swap is None else logging.WARNING  # what swap is not protected from matters
    for note in notes + hosting.record.notes:
        log.log(level, "%s: %s", config.name, note)


def give_up(hosting: Hosting) -> None:
    """Release after an error, which is the one to raise: what cannot be undone is logged."""
    try:
        hosting.release()
    except ZramError as error:
        log.error("%s cannot be detached: %s", hosting.name, error)
