"""The world of a simulated device: a clock that lets the accesses happen as time passes, and a machine."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import numpy as np

from ..machine import Machine
from .accesses import UPTIME
from .device import SimulatedDevice
from .trace import SECOND

PSI = "/proc/pressure/memory"


class SimulationClock:
    """Seconds since the start of the trace. Waiting lets the accesses of that time happen; `looks` are times at which
    `look` is called on the way."""

    def __init__(self) -> None:
        self._now = 0.0
        self._device: SimulatedDevice | None = None
        self._looks: list[float] = []
        self._look: Callable[[float], None] = lambda now: None

    def drive(self, device: SimulatedDevice, looks: list[float], look: Callable[[float], None]) -> None:
        """Let this device's accesses happen; those before the start do at once."""
        self._device = device
        self._looks, self._look = looks[::-1], look
        device.apply(int(np.searchsorted(device.trace.time, 0, side="left")))
        self._look_until(0.0)

    def now(self) -> float:
        return self._now

    def boot_seconds(self) -> int:
        """The time by the clock of access times."""
        return int(UPTIME + self._now)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Let `seconds` pass, unless `event` is set."""
        if event.is_set():
            return True
        end = self._now + seconds
        self._look_until(end)
        self._pass(end)
        return False

    def _look_until(self, end: float) -> None:
        while self._looks and self._looks[-1] <= end:
            self._pass(self._looks.pop())
            self._look(self._now)

    def _pass(self, at: float) -> None:
        self._now = max(self._now, at)
        if self._device is not None:
            # an int: a float would have numpy convert the whole array
            moment = int(self._now * SECOND)
            self._device.apply(int(np.searchsorted(self._device.trace.time, moment, side="right")))


class SimulatedMachine(Machine):
    """A machine of `ram` bytes, of which `others` are in use by other than the device; it never sleeps.

    /proc/meminfo has what then is available, /proc/uptime the simulated time, and every PSI file says that tasks
    stalled for `latency` seconds for each page that was read back: nothing else makes them wait.
    """

    def __init__(self, clock: SimulationClock, device: SimulatedDevice, ram: int, others: int, latency: float) -> None:
        self._clock = clock
        self._device = device
        self.ram = ram
        self.others = others
        self.latency = latency

    def read(self, path: str) -> str:
        """The text of a file; FileNotFoundError for one that policies do not ask for."""
        if path == "/proc/meminfo":
            available = max(0, self.ram - self.others - self._device.pool.used)
            return f"MemTotal: {self.ram >> 10} kB\nMemFree: {available >> 10} kB\nMemAvailable: {available >> 10} kB\n"
        if path == "/proc/uptime":
            return f"{UPTIME + self._clock.now():.2f} 0.00\n"
        if path == PSI or path.endswith(".pressure"):
            stalled = round(self._device.rereads * self.latency * 1e6)
            return "".join(f"{kind} avg10=0.00 avg60=0.00 avg300=0.00 total={stalled}\n" for kind in ("some", "full"))
        raise FileNotFoundError(errno.ENOENT, "a simulated machine has no such file", path)
