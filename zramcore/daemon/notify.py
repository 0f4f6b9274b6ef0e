"""sd_notify: telling the service manager how the daemon is (sd_notify(3)): datagrams to NOTIFY_SOCKET."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping

from .logs import event

EXTENSION = 30.0
"""Seconds asked for at a time while the daemon starts or stops: loading and saving images takes as long as it takes."""


class Notifier:
    """Sends states to the service manager; without NOTIFY_SOCKET everything here does nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # '@' stands for the NUL of Linux' abstract names; other families (vsock) are not ours to speak
        self.address = "\0" + address[1:] if address.startswith("@") else address if address.startswith("/") else ""
        self.watchdog = _watchdog(environment) if self.address else None
        """Seconds within which the manager wants a sign of life; None: it does not watch."""
        self._phase = "start"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def send(self, *lines: str) -> None:
        """One datagram with these ``NAME=value`` lines. A manager that is gone is no reason to fail."""
        if not self.address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.sendto("\n".join(lines).encode(), self.address)

    def ready(self, status: str) -> None:
        """The daemon, or its new configuration, is up."""
        self._phase = "run"
        self.send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. MONOTONIC_USEC is what `Type=notify-reload` asks for."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The daemon shuts down."""
        self._phase = "stop"
        self.send("STOPPING=1", "STATUS=stopping")

    # Signs of life ----------------------------------------------------------------------------------------------------

    def start(self, healthy: Callable[[], bool]) -> None:
        """Send WATCHDOG=1 in time as long as `healthy()`, and ask for more time while starting and stopping."""
        if self.address:
            self._thread = threading.Thread(target=self._run, args=(healthy,), name="zramcore-notify", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop sending."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, healthy: Callable[[], bool]) -> None:
        interval = min(EXTENSION / 3, self.watchdog / 2 if self.watchdog else EXTENSION)
        while True:
            lines = []
            if self._phase != "run":
                lines.append(f"EXTEND_TIMEOUT_USEC={int(EXTENSION * 1e6)}")
            if self.watchdog:
                if self._phase != "run" or healthy():
                    lines.append("WATCHDOG=1")
                else:
                    event("unhealthy", level=40, action="no sign of life is sent to the service manager")
            if lines:
                self.send(*lines)
            if self._stop.wait(interval):
                return


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """The interval of sd_watchdog_enabled(3), in seconds."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) else None
