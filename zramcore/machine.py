"""The running machine, as policies may ask about it: small files of the system, and how long it has slept."""

from __future__ import annotations

import errno
import time

_MOST = 1 << 20


class Machine:
    """What a policy may ask about the machine around its target. This one knows nothing: RunningMachine
    reads the running system, a simulation's what it simulates."""

    def read(self, path: str) -> str:
        """A small text file of the system: /proc/meminfo, /proc/pressure/memory, a cgroup's. Raises OSError."""
        raise FileNotFoundError(errno.ENOENT, "nothing is known about the machine", path)

    def suspended(self) -> float:
        """Seconds that the machine has slept since it started: access times count them, a policy's `now` does not."""
        return 0.0


class RunningMachine(Machine):
    """The machine this runs on."""

    def read(self, path: str) -> str:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MOST)

    def suspended(self) -> float:
        # boot time counts sleep, monotonic time does not; two calls cannot be made at once
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC))
