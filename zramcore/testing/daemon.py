"""A real daemon in a process of its own, for tests: started, spoken to, signalled, stopped, its log read."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ..daemon.client import Client

PATIENCE = 30.0
"""Seconds to wait for a daemon before a test fails."""


class RunningDaemon:
    """`zramcore daemon` with its control socket and its log in `folder`; a context manager that kills what is left.

    It plays the service manager: `notified` holds the datagrams that the daemon sent so far.
    """

    def __init__(self, folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        """Start it and wait until it is ready. Raises RuntimeError with its log when it ends before that."""
        self.folder = folder
        self.socket = folder / "control.sock"
        self.log_file = folder / "daemon.log"
        self.notified: list[str] = []
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = folder / f"notify{len(list(folder.glob('notify*')))}"
        self._manager.bind(str(address))
        self._manager.settimeout(PATIENCE)
        self._log = self.log_file.open("ab")
        command = [sys.executable, "-m", "zramcore", "daemon", "--socket", str(self.socket), *arguments]
        inherited = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=self._log,
            cwd=folder,
            env={**inherited, "NOTIFY_SOCKET": str(address), **(environment or {})},
        )
        try:
            self.wait_for("READY=1")
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> RunningDaemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def wait_for(self, line: str) -> None:
        """Receive the daemon's notifications until one has this line. Raises RuntimeError when it ends before."""
        self._manager.settimeout(0.1)
        for _ in range(int(PATIENCE / 0.1)):
            ended = self.process.poll() is not None
            try:
                while True:
                    self.notified.append(self._manager.recv(4096).decode())
                    if line in self.notified[-1].splitlines():
                        return
            except TimeoutError:
                if ended:
                    raise RuntimeError(f"the daemon ended:\n{self.log_file.read_text()}") from None
        raise RuntimeError(f"no {line} in {PATIENCE:g} s:\n{self.log_file.read_text()}")

    def client(self) -> Client:
        """A new client of it."""
        return Client(str(self.socket))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it without a word, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._log.close()
        self._manager.close()

    def events(self, name: str | None = None) -> list[dict[str, str]]:
        """The log so far: the fields of each line, or of those of one event."""
        lines = self.log_file.read_text(errors="replace").splitlines()
        found = [dict(_pairs(line)) for line in lines]
        return [fields for fields in found if name in (None, fields.get("event"))]


def _pairs(line: str) -> Sequence[tuple[str, str]]:
    with contextlib.suppress(ValueError):
        words = [word.partition("=") for word in shlex.split(line)]
        return [(key, value) for key, _, value in words]
    return []
