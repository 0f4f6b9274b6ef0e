"""WriteHistory: how much was written in the last 24 hours, at any moment: a window that slides, not a day that ends.

It never gives room back too early: writes that are put together count from the last of them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

DAY = 86400.0
GRAIN = 60.0
"""Seconds within which writes become one entry: a day of them is at most 1440."""


class WriteHistory:
    """Amounts (pages, say) by the time they were recorded; `window` in seconds."""

    def __init__(self, window: float = DAY) -> None:
        self.window = window
        self._entries: deque[tuple[float, float, int]] = deque()  # first time, last time, amount

    def record(self, amount: int, now: float) -> None:
        """Note that `amount` was written just now; nothing for 0 and less."""
        if amount <= 0:
            return
        if self._entries and 0 <= now - self._entries[-1][0] < GRAIN:
            first, _, before = self._entries.pop()
            self._entries.append((first, now, before + amount))
        else:
            self._entries.append((now, now, amount))

    def total(self, now: float) -> int:
        """What was written less than `window` seconds ago."""
        while self._entries and now - self._entries[0][1] >= self.window:
            self._entries.popleft()
        return sum(amount for _, _, amount in self._entries)

    def left(self, limit: int, now: float) -> int:
        """What may still be written under `limit`: never below 0, however much was written."""
        return max(0, limit - self.total(now))

    def room_in(self, limit: int, amount: int, now: float) -> float:
        """Seconds until `amount` more fits under `limit`; 0 when it does now, infinity when it never will."""
        if amount > limit:
            return math.inf
        excess = self.total(now) + amount - limit
        wait = 0.0
        for _, last, written in self._entries:
            if excess <= 0:
                break
            excess -= written
            wait = last + self.window - now
        return wait

    def rows(self, now: float) -> list[list[float]]:
        """The history as pairs of age in seconds and amount, oldest first, for JSON."""
        self.total(now)
        return [[now - last, amount] for _, last, amount in self._entries]

    def take(self, rows: object, now: float, elapsed: float) -> None:
        """Put `rows` from `elapsed` seconds ago before what is recorded; rows that are none are left out.

        A clock that was set back, so that `elapsed` is negative, makes nothing younger than now.
        """
        taken = []
        for age, amount in _pairs(rows):
            at = now - max(0.0, age + max(0.0, elapsed))
            taken.append((at, at, int(amount)))
        self._entries = deque(sorted((*taken, *self._entries)))


def _pairs(rows: object) -> Iterable[tuple[float, float]]:
    for row in rows if isinstance(rows, list) else ():
        values: list[Any] = row if isinstance(row, list) else []
        if len(values) == 2 and all(isinstance(v, int | float) and math.isfinite(v) and v >= 0 for v in values):
            yield float(values[0]), float(values[1])
