"""IdleOrder: which pages are idle, without a look at the whole table for each mark.

Accesses are numbered in order of time, so the pages by age are a list: the trace itself, of which an entry counts as
long as it is its page's last. ``idle N`` moves a cursor in it; each entry is passed about once. Pages whose mark was
cleared without an access (recompression does that, and may forget their access time) are kept beside it.
"""

from __future__ import annotations

import numpy as np

from ..slot_table import IDLE, SlotTable, in_memory
from .trace import Array

NOT_IDLE = np.uint32(~IDLE & 0xFFFFFFFF)


def ascending(parts: list[Array]) -> Array:
    """The numbers in several arrays, each once, in order. For a few hundred, ten times as fast as numpy's unique."""
    numbers = np.sort(np.concatenate(parts))
    first = np.ones(len(numbers), bool)
    np.not_equal(numbers[1:], numbers[:-1], out=first[1:])
    once: Array = numbers[first]
    return once


class IdleOrder:
    """`pages`: the page of each access; `seconds`: when it was, ascending, by the clock of ac_time."""

    def __init__(self, table: SlotTable, pages: Array, seconds: Array) -> None:
        self._table = table
        self._pages = pages
        self._seconds = seconds
        self.last_access = np.full(table.nr_slots, -1, np.int64)
        """The number of the last access of each page."""
        self._cursor = 0
        self._loose: list[Array] = []
        self._marked: list[Array] = []

    def loosen(self, pages: Array) -> None:
        """The marks of these pages were cleared without an access."""
        if len(pages):
            self._loose.append(pages)

    def assume(self, idle: Array, others: Array, done: int) -> None:
        """Take it that `idle` pages (ascending) are marked and `others` are not, `done` accesses having been made."""
        self._cursor = done
        self._marked, self._loose = [idle], [others]

    def mark_all(self, done: int) -> tuple[Array, Array]:
        """Mark every page in memory, `done` accesses having been made; returns what was marked and unmarked."""
        return self._move(done, None)

    def mark_older(self, cutoff: int, done: int) -> tuple[Array, Array]:
        """Mark pages in memory last accessed before `cutoff` (seconds), unmark the others; returns both."""
        # of the array's own kind: for another, numpy converts the whole array
        first = self._seconds.dtype.type(max(0, cutoff))
        return self._move(int(np.searchsorted(self._seconds[:done], first)), cutoff)

    def _move(self, target: int, cutoff: int | None) -> tuple[Array, Array]:
        flags, start, end = self._table.flags, *sorted((self._cursor, target))
        passed = self._pages[start:end]
        live = passed[self.last_access[passed] == np.arange(start, end)]
        live = live[in_memory(flags[live])]
        unmarked = live[(flags[live] & IDLE) != 0] if target < self._cursor else live[:0]
        flags[unmarked] &= NOT_IDLE
        marked = live[(flags[live] & IDLE) == 0] if target > self._cursor else live[:0]
        self._cursor = target
        loose = ascending(self._loose) if self._loose else live[:0]
        loose = loose[in_memory(flags[loose]) & ((flags[loose] & IDLE) == 0)]
        old = np.ones(len(loose), bool) if cutoff is None else self._table.ac_times[loose] < cutoff
        self._loose = [loose[~old]] if not np.all(old) else []
        marked = ascending([marked, loose[old]])
        if cutoff is not None and cutoff <= 0:
            unmarked = np.concatenate([unmarked, self._unmark_ancient()])
        flags[marked] |= IDLE
        if len(marked):
            self._marked.append(marked)
        return marked, unmarked

    def _unmark_ancient(self) -> Array:
        """Unmark pages without an access time: nothing is older than the machine."""
        ancient = self.idle_pages()
        flags = self._table.flags
        flags[ancient] &= NOT_IDLE
        self._loose.append(ancient)
        return ancient

    def idle_pages(self) -> Array:
        """The pages in memory that are marked, ascending."""
        if not self._marked:
            return np.zeros(0, np.int64)
        pages: Array = ascending(self._marked) if len(self._marked) > 1 else self._marked[0]
        flags = self._table.flags[pages]
        pages = pages[in_memory(flags) & ((flags & IDLE) != 0)]
        self._marked = [pages] if len(pages) else []
        return pages
