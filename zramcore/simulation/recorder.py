"""Recorder: who touched which page of a running device, from looks at its block_state. It changes nothing there.

A look tells of each page when it was last accessed, to the second. So of several accesses between two looks the last
is recorded, which is what policies act on: a page that is touched again and again is hot, however often. Whether it
was read or written is told where the page shows it (it is new, or no longer written back), else it is a TOUCH.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO

import numpy as np

from ..interfaces import PolicyTarget
from .state import State, mean_size, page_size_of, read_state
from .trace import FREE, MARK, READ, SECOND, TOUCH, WRITE, Array, Batch, write_header


def boot_time() -> float:
    """Seconds since boot, sleep included: the clock of access times."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Recorder:
    """Records one target into a binary file; `clock` gives boot time in seconds, `period` is for the header.

    Raises what `read_state` raises, before anything is written.
    """

    def __init__(
        self, target: PolicyTarget, file: IO[bytes], *, period: float, clock: Callable[[], float] = boot_time
    ) -> None:
        self.target = target
        self.accesses = 0
        """Accesses recorded so far, without what was there at the start."""
        self.pages = 0
        """Pages that the device held at the last look."""
        self._file = file
        self._clock = clock
        self._start = round(clock() * SECOND)
        state = read_state(target)
        page_size = page_size_of(target)
        nr_pages = int(target.show("disksize")) // page_size
        write_header(
            file, page_size=page_size, nr_pages=nr_pages, source=f"recording of {target.name}",
            started=int(time.time()), period=period, end=0,
        )  # fmt: skip
        self._here = np.zeros(nr_pages, bool)
        self._accessed = np.zeros(nr_pages, np.int64)
        self._letters = np.zeros((len(state.letters), nr_pages), bool)
        batch = Batch()
        batch.add(np.minimum(state.accessed - self._start, -1), state.pages, WRITE, state.classes)
        self._finish(batch, state, self._start)

    def look(self) -> int:
        """Look once; how many accesses were found. Raises what reading the target's attributes raises."""
        now = round(self._clock() * SECOND)
        state = read_state(self.target)
        inside = state.pages < len(self._here)
        state = State(state.pages[inside], state.accessed[inside], state.letters[:, inside])
        here = np.zeros_like(self._here)
        here[state.pages] = True
        batch = Batch()
        gone = np.flatnonzero(self._here & ~here)
        batch.add(now - self._start, gone, FREE)
        new = ~self._here[state.pages]
        # recompression leaves 0 behind, which is no access
        changed = new | ((state.accessed != self._accessed[state.pages]) & (state.accessed > 0))
        which = np.flatnonzero(changed)
        kinds = self._kinds(state, which, new[which])
        times = np.clip(state.accessed[which] - self._start, 0, now - self._start)
        batch.add(times, state.pages[which], kinds, state.classes[which])
        found = len(gone) + len(which)
        self.accesses += found
        self._finish(batch, state, now)
        return found

    def _kinds(self, state: State, which: Array, new: Array) -> Array:
        before, after = self._letters[:, state.pages[which]], state.letters[:, which]
        same, written_back, huge, _, recompressed, incompressible = before
        rewritten = new | (written_back & ~after[1]) | (same != after[0]) | (huge & ~written_back & ~after[2])
        rewritten |= (recompressed & ~after[4]) | (incompressible & ~after[5])
        kinds: Array = np.where(rewritten, WRITE, np.where(written_back & after[1], READ, TOUCH)).astype(np.uint8)
        return kinds

    def _finish(self, batch: Batch, state: State, now: int) -> None:
        """Write a look's records and its mark, and remember what was seen."""
        size = mean_size(self.target, state)
        batch.add(now - self._start, 0 if size is None else round(size), MARK)
        batch.write(self._file)
        self._file.flush()
        self.pages = len(state.pages)
        self._here[:] = False
        self._here[state.pages] = True
        self._accessed[:] = 0
        self._accessed[state.pages] = state.accessed
        self._letters[:] = False
        self._letters[:, state.pages] = state.letters
