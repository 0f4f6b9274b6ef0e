"""Accesses: a trace with what does not depend on any policy worked out once, for all replays of it.

It links each access to the others of its page, so that a batch of accesses is applied without being sorted.
"""

from __future__ import annotations

import numpy as np

from ..slot_table import HUGE, SAME
from .trace import READ, SECOND, WRITE, Array, Trace

UPTIME = 10 * 86400
"""Seconds that the simulated machine has been up when a trace starts: older than any age a histogram tells apart."""
NEVER = 0x7FFFFFFF
"""The number of an access that does not come."""


class Accesses:
    """Of access `i`: ``following[i]`` is the next one of its page (or NEVER), ``change_before[i]`` the last write or
    free of its page before it (or -1), ``seconds[i]`` its time by the clock of access times.

    Raises ValueError for more than 2 thousand million accesses.
    """

    def __init__(self, trace: Trace) -> None:
        if len(trace.time) >= NEVER:
            raise ValueError("too many accesses")
        self.trace = trace
        self.seconds: Array = np.maximum(0, UPTIME + trace.time // SECOND).astype(np.uint32)
        sort = np.argsort(trace.page, kind="stable").astype(np.int32)
        page, kind = trace.page[sort], trace.kind[sort]
        again = page[1:] == page[:-1]
        self.following = np.full(len(page), NEVER, np.int32)
        self.following[sort[:-1][again]] = sort[1:][again]
        starts = np.flatnonzero(np.concatenate([[True], ~again])) if len(page) else np.zeros(0, np.int64)
        start_of = np.repeat(starts, np.diff(np.append(starts, len(page))))
        last = np.maximum.accumulate(np.where(kind != READ, np.arange(len(page)), -1))
        earlier = np.concatenate([[-1], last[:-1]])
        self.change_before = np.full(len(page), -1, np.int32)
        inside = earlier >= start_of
        self.change_before[sort[inside]] = sort[earlier[inside]]
        self.changes = changes = np.flatnonzero(trace.kind != READ)
        """The writes and frees; with each, whether its page held something before, and whether it is a write."""
        held_before = self.change_before[changes]
        self.held = np.where(held_before >= 0, trace.kind[held_before] == WRITE, False).astype(np.int8)
        self.writes = (trace.kind[changes] == WRITE).astype(np.int8)
        self._last = (0, 0)
        self._stored = np.concatenate([[0], np.cumsum(self.writes - self.held, dtype=np.int64)])
        self._freed = np.concatenate([[0], np.cumsum(self.writes == 0)])

    def changes_in(self, done: int) -> int:
        """How many of the first `done` accesses are writes and frees."""
        if self._last[0] != done:
            self._last = (done, int(np.searchsorted(self.changes, done)))
        return self._last[1]

    def pages_stored(self, done: int) -> int:
        """Pages that hold something after `done` accesses."""
        return int(self._stored[self.changes_in(done)])

    def freed(self, done: int) -> int:
        """Pages freed so far, whether they held something or not: notify_free."""
        return int(self._freed[self.changes_in(done)])


class Written:
    """What the pages of a trace become when they are written: `flags` for each page. Counts of same-filled and huge
    pages follow from it and the accesses alone."""

    def __init__(self, accesses: Accesses, flags: Array) -> None:
        self.flags = flags
        self._accesses = accesses
        changes, held, writes = accesses.changes, accesses.held, accesses.writes
        page = accesses.trace.page[changes]
        same, huge = flags[page] & SAME != 0, flags[page] & HUGE != 0
        self._same = np.concatenate([[0], np.cumsum((writes - held) * same, dtype=np.int64)])
        self._huge_since = np.concatenate([[0], np.cumsum(writes * huge, dtype=np.int64)])

    def same_pages(self, done: int) -> int:
        """Same-filled pages after `done` accesses."""
        return int(self._same[self._accesses.changes_in(done)])

    def huge_pages_since(self, done: int) -> int:
        """Writes so far of pages that do not compress."""
        return int(self._huge_since[self._accesses.changes_in(done)])
