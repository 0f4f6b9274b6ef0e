"""Processes by a name that is never given twice: the pid and the time it started."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import NamedTuple


class Process(NamedTuple):
    """`started`: clock ticks since boot, field 22 of /proc/PID/stat (proc(5))."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this pid now; None when there is none, or only its remains."""
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else cls(pid, int(fields[19]))

    @classmethod
    def self(cls) -> Process:
        """This process."""
        found = cls.of(os.getpid())
        return found if found is not None else cls(os.getpid(), 0)

    @property
    def alive(self) -> bool:
        """Whether it still runs; a new process with its pid is another one."""
        return Process.of(self.pid) == self

    def end(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended; whether it has."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if self.alive:
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                poll.poll(seconds * 1000)
        finally:
            os.close(handle)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)  # its own child, if it is one
        return not self.alive
