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

    def affordable(self, units: int) -> int | None:
        """How many submissions of `units` it has something left for, the last one perhaps less; None: any number."""
        return -(-self.limit // units) if self.enabled else None

    def charge(self, units: int) -> int:
        """Take `units` from the budget, down to 0; returns what was taken, which is 0 while it is not enabled."""
        with self._lock:
            taken = min(units, self.limit) if self.enabled else 0
            self.limit -= taken
            return taken

    def set_limit(self, units: int) -> None:
        """Write writeback_limit."""
        with self._lock:
            self.limit = units

    def refund(self, units: int) -> None:
        """Give back what `charge` took for a write that failed."""
        with self._lock:
            self.limit += units
