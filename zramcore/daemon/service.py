"""Service: the life of the daemon. Start: control socket, devices, NBD, API. Then signals. Stop: in reverse.

SIGTERM and SIGINT stop it (also while it starts), SIGHUP reloads the config. What clients have been told is flushed
is in the saved images: NBD ends before the images are written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from .. import __version__
from ..attach import default_directory, detach_served
from ..attach.processes import Process
from ..config import Config, DaemonConfig, check_file
from ..control import Control
from ..errors import InvalidValue, ZramError
from ..image import LoadCancelled
from ..kernel import KernelControl
from ..nbd import activated, server_context
from ..policy_state import StateFile
from .api import Api
from .creation import parse_creation
from .fleet import Fleet, Member
from .logs import event
from .nbd_hosts import NbdHosts
from .notify import Notifier
from .reload import Change, apply, plan
from .sockets import UnixListener
from .web import BearerToken, WebServer, listen_tcp, read_token

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SIGNAL_POLL = 0.5
"""Seconds."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for; `daemon` stands above the file's [daemon] table, key by key."""

    socket: str
    config: Path | None = None
    socket_group: str | None = None
    daemon: DaemonConfig = field(default_factory=DaemonConfig)
    http: str | None = None
    token_file: Path | None = None
    state: Path | None = None


class ConfigRefused(InvalidValue):
    """EINVAL: the config file is wrong; every problem has been logged."""


class Service:
    """A daemon over a control. `run` is all of its life."""

    def __init__(self, control: Control, options: Options, kernel: KernelControl | None = None) -> None:
        self.control = control
        self.kernel = kernel or KernelControl()
        self.options = options
        self.started = time.time()
        self.http: str | None = None
        """The URL of the API over TCP, when it was asked for."""
        self._hosts = NbdHosts(control)
        kept = StateFile(options.state) if options.state is not None else None
        self.fleet = Fleet(control, self._hosts.forget, kernel=self.kernel, state=kept)
        self._web: list[WebServer] = []
        self._daemon = options.daemon
        self._notifier = Notifier()
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._reloading = threading.Lock()

    # Life -------------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until a signal says stop. The exit status: 0, or 1 when a device could not be saved or removed.

        Raises ZramError for what keeps it from starting; nothing is left behind then.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._handled_signals())
            config = self._load_config()
            token = self._token()
            self._notifier.start(lambda: all(server.alive for server in self._web))
            stack.callback(self._notifier.close)
            control_socket = UnixListener(self.options.socket, self.options.socket_group)
            stack.callback(control_socket.close)
            failures: list[str] = []
            stack.callback(lambda: failures.extend(self._shut_down(control_socket)))
            try:
                self._start(config, control_socket, token)
            except LoadCancelled:
                event("stopped_early", reason="a signal came while an image was loaded")
                return 0
            self._wait()
            self._notifier.stopping()
            stack.close()
        event("stopped", devices_left=len(failures) or None)
        return 1 if failures else 0

    def _start(self, config: Config | None, control_socket: UnixListener, token: str | None) -> None:
        event("starting", version=__version__, pid=os.getpid(), config=self.options.config)
        self._daemon = _over(self.options.daemon, config.daemon if config is not None else DaemonConfig())
        if self._daemon.certificate is not None:
            certificate, key, clients = self._daemon.certificate, self._daemon.key, self._daemon.client_ca
            self._hosts.tls = server_context(certificate, key, clients)
        listeners = [*activated().values(), *self._hosts.listen(self._daemon.nbd)]
        try:
            if config is not None and config.devices:
                self.fleet.bring_up(config, cancelled=self._stop.is_set)
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        self._hosts.serve(listeners)
        api = Api(self.fleet, self)
        self._web.append(WebServer(api, control_socket.socket))
        event("api_listening", address=f"unix:{control_socket.path}", mode=f"{_mode(control_socket.path):04o}")
        if self.options.http is not None and token is not None:
            tcp = listen_tcp(self.options.http)
            self._web.append(WebServer(BearerToken(api, token), tcp))
            host, port = tcp.getsockname()[:2]
            self.http = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            event("api_listening", address=self.http, token=self.options.token_file)
        event("ready", devices=len(list(self.fleet)))
        self._notifier.ready(f"{len(list(self.fleet))} devices")

    def _wait(self) -> None:
        while not self._stop.is_set():
            try:
                # Not for ever: the kernel may give the second of two signals to another thread, which wakes nobody.
                number = self._signals.get(timeout=SIGNAL_POLL)
            except queue.Empty:
                continue
            if number == signal.SIGHUP:
                try:
                    self.reload(dry_run=False)
                except ZramError as error:
                    event("reload_refused", level=logging.ERROR, reason=error)

    def _shut_down(self, control_socket: UnixListener) -> list[str]:
        """Stop in the order that loses nothing; what could not be done, one sentence each."""
        control_socket.unlink()
        members = list(self.fleet)
        for member in members:
            member.interrupt()  # a request that waits for a pass ends, with EINTR
        for server in self._web:
            server.close()
        for member in members:
            member.go_on()  # what clients still have to write may need room
        # a mount of what ends here would be left without its device
        for failure in detach_served(Process.self(), default_directory()):
            event("attachment_stays", level=logging.ERROR, reason=failure)
        self._hosts.close()
        return self.fleet.close()

    @contextlib.contextmanager
    def _handled_signals(self) -> Iterator[None]:
        def handle(number: int, frame: FrameType | None) -> None:
            if number in STOP_SIGNALS:
                self._stop.set()
            self._signals.put(number)

        before = {number: signal.signal(number, handle) for number in (*STOP_SIGNALS, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # Configuration ----------------------------------------------------------------------------------------------------

    def _load_config(self) -> Config | None:
        """The checked config. Raises ConfigRefused after every problem was logged."""
        file = self.options.config
        if file is None:
            return None
        config, problems = check_file(file, self.control.catalogue, self.control.attributes, self.kernel)
        for problem in problems:
            fields = {"file": problem.file, "key": problem.key or None, "hint": problem.hint or None}
            event("config_problem", level=logging.ERROR, reason=problem.reason, **fields)
        if config is None or problems:
            raise ConfigRefused(f"{file} is wrong: {problems[0]}", hint=f"zramcore config check {file}")
        return config

    def _token(self) -> str | None:
        options = self.options
        if options.http is not None and options.token_file is None:
            raise InvalidValue("the API is not served over TCP without a token", hint="add --token-file FILE")
        if options.token_file is not None and options.http is None:
            raise InvalidValue("a token is for the API over TCP", hint="add --http tcp:HOST:PORT")
        return None if options.token_file is None else read_token(options.token_file)

    # What the API asks of it ------------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Version, pid, start (Unix time), config file, and where it listens."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": self.started,
            "config": None if self.options.config is None else str(self.options.config),
            "socket": os.path.abspath(self.options.socket),
            "http": self.http,
            "nbd": self._hosts.addresses,
            "devices": [member.name for member in self.fleet],
            "policies": sorted(self.control.catalogue.policies),
        }

    def create(self, request: object) -> Member:
        """Make the device that a request asks for: checked first, and nothing is left behind when it fails."""
        wanted = parse_creation(request, self.control.catalogue, self.control.attributes, self.kernel)
        listeners = self._hosts.listen(wanted.nbd)
        try:
            (member,) = self.fleet.bring_up(wanted.config, "create", self._stop.is_set)
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        try:
            self._hosts.serve(listeners, only=member.name)
        except BaseException:
            self.fleet.take_down(member, save=False)
            raise
        return member

    def remove(self, name: str, *, save: bool, disconnect: bool) -> int | None:
        """Take a device down, its image saved if it has one and `save`. Raises DeviceBusy (EBUSY) while it is open."""
        member = self.fleet.find(name)
        if disconnect:
            self._hosts.disconnect(member.name)
            member.disconnect()
        return self.fleet.take_down(member, save=save)

    def nbd(self, member: Member) -> list[str]:
        """The NBD URIs of a device."""
        return self._hosts.uris(member) + member.uris

    def reload(self, dry_run: bool) -> list[dict[str, Any]]:
        """Compare the config file with what runs, and make the changes that can be made live unless `dry_run`.

        Raises ConfigRefused when the file is wrong, and then nothing changes.
        """
        with self._reloading:
            config = self._load_config()
            if config is None:
                raise InvalidValue("the daemon was started without a config file", hint="zramcore daemon --config FILE")
            if dry_run:
                return [change.as_dict() for change in self._compare(plan(self.fleet, config), config)]
            self._notifier.reloading()
            try:
                changes = self._compare(apply(self.fleet, config, self._stop.is_set), config)
            finally:
                self._notifier.ready(f"{len(list(self.fleet))} devices")
        for change in changes:
            fields: Mapping[str, Any] = {key: value or None for key, value in change.as_dict().items()}
            level = logging.WARNING if change.refused else logging.INFO
            event("reload_change", level=level, result="refused" if change.refused else "applied", **fields)
        refused = sum(bool(change.refused) for change in changes)
        event("reloaded", applied=len(changes) - refused, refused=refused)
        return [change.as_dict() for change in changes]

    def _compare(self, changes: list[Change], config: Config) -> list[Change]:
        """The changes, and that of the [daemon] table, which needs a restart."""
        wanted = _over(self.options.daemon, config.daemon)
        for key, before in vars(self._daemon).items():
            after = getattr(wanted, key)
            if before != after:
                reason = "where the daemon listens is fixed when it starts: restart it"
                changes.append(Change("", "daemon", key, _show(before), _show(after), reason))
        return changes


def _show(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else "" if value is None else str(value)


def _over(above: DaemonConfig, below: DaemonConfig) -> DaemonConfig:
    """`above`, with what it leaves open from `below`."""
    return DaemonConfig(**{key: value or getattr(below, key) for key, value in vars(above).items()})


def _mode(path: str) -> int:
    return os.stat(path).st_mode & 0o777
