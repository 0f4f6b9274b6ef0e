"""How old pages are: from idle_histogram, or counted from block_state; and what sleep adds to an age.

A page's age counts the time that the machine slept (access times are boot time), a policy's `now` does not. So an age
to write to `idle` is lengthened by the sleep within it: time asleep does not make pages old (ZRAM.md 3.1: "+ time
suspended within that age").
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

from zramcore.errors import ZramError
from zramcore.insight import AGE_EDGES
from zramcore.interfaces import PolicyTarget
from zramcore.machine import Machine

MAX_AGE = 0xFFFFFFFF
"""The largest number that `idle` takes."""


@dataclass(frozen=True)
class Ages:
    """Pages in memory by age: `starts` are the lower edges in seconds, `pages` how many are in each bucket."""

    starts: tuple[int, ...]
    pages: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.pages)

    def older(self, seconds: int) -> int:
        """Pages in the buckets that start at `seconds` or more: all older than that, exactly where it is an edge."""
        return sum(pages for start, pages in zip(self.starts, self.pages, strict=True) if start >= seconds)

    def coldest(self, wanted: int, least: int = 0) -> int:
        """The largest edge, not below `least`, that has `wanted` pages above it; `least` when none has."""
        above = 0
        for start, pages in zip(reversed(self.starts), reversed(self.pages), strict=True):
            above += pages
            if start <= least or above >= wanted:
                return max(start, least)
        return least


def read_ages(target: PolicyTarget, machine: Machine) -> Ages | None:
    """The ages of a target's pages, from idle_histogram or else block_state; None where it shows neither."""
    try:
        rows = [line.split() for line in target.show("idle_histogram").splitlines()]
        return Ages(tuple(int(row[0]) for row in rows), tuple(int(row[2]) for row in rows))
    except (ZramError, ValueError, IndexError):
        pass
    try:
        boot = float(machine.read("/proc/uptime").split()[0])  # sleep included, as in access times
        return _counted(target.show("block_state"), boot)
    except (OSError, ValueError, IndexError):
        return None


def _counted(block_state: str, boot: float) -> Ages:
    counts = [0] * len(AGE_EDGES)
    for line in block_state.splitlines():
        _, accessed, flags = line.split()
        if "s" in flags or "w" in flags:
            continue
        age = max(0, int(boot) - int(accessed.partition(".")[0]))
        counts[max(0, bisect_left(AGE_EDGES, age) - 1)] += 1
    return Ages(AGE_EDGES, tuple(counts))


class Sleep:
    """How long the machine slept by when, noted at each tick."""

    def __init__(self) -> None:
        self._notes: deque[tuple[float, float]] = deque()

    def note(self, machine: Machine, now: float, longest: float) -> None:
        """Note the sleep so far; notes older than `longest` seconds are needed only for the last of them."""
        slept = machine.suspended()
        if not self._notes or slept != self._notes[-1][1]:
            self._notes.append((now, slept))
        while len(self._notes) > 1 and self._notes[1][0] <= now - longest:
            self._notes.popleft()

    def lengthen(self, age: float, now: float) -> int:
        """`age` (seconds awake) as whole seconds to write to `idle` now: rounded up, a page must not go early.

        Sleep before the first note counts in full, as long as it may lie within the age.
        """
        if not self._notes:
            return min(math.ceil(age), MAX_AGE)
        slept_then = 0.0
        for at, slept in self._notes:
            if at > now - age:
                break
            slept_then = slept
        return min(math.ceil(age + self._notes[-1][1] - slept_then), MAX_AGE)
