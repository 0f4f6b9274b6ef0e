"""The memory of a pool: one anonymous mapping, handed out in runs of 1..8 contiguous pages, given back by madvise.

A zspage is one run, so an object is one slice. Runs that were freed keep their memory ("dirty") until enough of them
wait, then neighbours are merged and MADV_DONTNEED gives them back ("clean"). A run is reused for zspages of the same
length: the dirty ones first, which saves the page faults.

Offsets are bytes from the start of `memory`, and page 0 of it is never handed out, so an offset is never 0.
`words[offset >> 3]` is the 8-byte word *before* `offset`: an object's handle, given the offset of its payload.

Not thread-safe: the pool's lock guards it. Peeking (`free_run`) and taking (deleting the last entry of the stack it
returns) are apart, so that an exception between the two costs nothing.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Generic, TypeVar

from zramcore.errors import NoMemory

from .address_space import give_back, reserve_arena
from .size_classes import CHAIN_SIZE

MADV_POPULATE_WRITE = 23
TRIM_PAGES = 512
"""Dirty pages that may wait for `trim`: 2 MiB. One madvise costs some 5 us, so it must not be called per page; with
1 MiB, requests of 1 MiB over other data took 2 % longer, and a tenth of their pages were faulted in again."""
POPULATE_BYTES = 128 << 10
"""The arena grows by this much at once: faulting pages in one by one costs twice as much (Linux 5.14 and later)."""

Owner = TypeVar("Owner")


class Arena(Generic[Owner]):
    """Runs of pages. `owners[offset >> page_shift]` is for the pool: which zspage has this page."""

    def __init__(self, page_size: int, max_objects: int) -> None:
        """Reserves what no sequence of allocations can exceed, or what the system allows, at least 64 MiB. Raises
        NoMemory."""
        self.page_size = page_size
        self.page_shift = page_size.bit_length() - 1
        self._lead = max(page_size, mmap.PAGESIZE)
        self._map, self.size = reserve_arena(page_size, max_objects, lambda size: self._lead)
        self._whole = memoryview(self._map)
        self.memory = self._whole[self._lead : self._lead + self.size]
        self.words = self._whole[self._lead - 8 : self._lead + self.size - 8].cast("Q")
        self.owners: list[Owner | None] = [None]
        self.dirty: list[list[int]] = [[] for _ in range(CHAIN_SIZE + 1)]
        self.clean: list[list[int]] = [[] for _ in range(CHAIN_SIZE + 1)]
        self.dirty_pages = 0
        self._top = page_size
        self._populated = page_size
        self._populate = True

    def free_run(self, pages: int) -> list[int]:
        """A stack whose last entry is the offset of a free run of `pages` pages: taking it is deleting it there, and
        taking from `dirty` lowers `dirty_pages`. Raises NoMemory when the arena is used up."""
        return self.dirty[pages] or self.clean[pages] or self._extend(pages)

    def _extend(self, pages: int) -> list[int]:
        start = self._top
        end = start + pages * self.page_size
        if end > self.size:
            return self._recut(pages)
        if end > self._populated and self._populate:
            self._populate_to(min(end + POPULATE_BYTES, self.size))
        self.owners += [None] * pages
        self._top = end
        stack = self.clean[pages]
        stack += [start]
        return stack

    def _populate_to(self, end: int) -> None:
        start = self._lead + self._populated
        start += -start % mmap.PAGESIZE
        stop = (self._lead + end) // mmap.PAGESIZE * mmap.PAGESIZE
        if stop <= start:
            return
        try:
            self._map.madvise(MADV_POPULATE_WRITE, start, stop - start)
            self._populated = end
        except OSError:  # an older kernel, or memory is short: pages come one by one, on first touch
            self._populate = False

    def _recut(self, pages: int) -> list[int]:
        """The arena is used up: cut the free runs of all lengths, neighbours merged, into runs of `pages`."""
        self.trim()
        runs = [(start, start + count * self.page_size) for count, stack in enumerate(self.clean) for start in stack]
        if self._top < self.size:
            rest = (self.size - self._top) >> self.page_shift
            self.owners += [None] * rest
            runs.append((self._top, self._top + rest * self.page_size))
            self._top = self.size
        spans = merge_runs(runs)
        length = pages * self.page_size
        if all(end - start < length for start, end in spans):
            self.clean = self._cut(spans, CHAIN_SIZE)
            raise NoMemory("the pool's address space is used up")
        self.clean = self._cut(spans, pages)
        return self.clean[pages]

    def _cut(self, spans: list[tuple[int, int]], pages: int) -> list[list[int]]:
        stacks: list[list[int]] = [[] for _ in range(CHAIN_SIZE + 1)]
        length = pages * self.page_size
        for start, end in spans:
            while end - start >= length:
                stacks[pages].append(start)
                start += length
            if start < end:
                stacks[(end - start) >> self.page_shift].append(start)
        return stacks

    def release(self, start: int, pages: int) -> None:
        """Take a run back; it is dirty."""
        page = start >> self.page_shift
        self.owners[page : page + pages] = [None] * pages
        runs = self.dirty[pages]
        runs += [start]
        self.dirty_pages += pages

    def trim(self) -> None:
        """Give the memory of all dirty runs back to the system, as few calls as neighbours allow."""
        runs = [(start, start + count * self.page_size) for count, stack in enumerate(self.dirty) for start in stack]
        for start, end in merge_runs(runs):
            self._give_back(start, end)
        for clean, dirty in zip(self.clean, self.dirty, strict=True):
            clean += dirty
            dirty.clear()
        self.dirty_pages = 0

    def _give_back(self, start: int, end: int) -> None:
        # The system's pages may be bigger than the device's: only those that are free as a whole can go.
        first = -(-(self._lead + start) // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (self._lead + end) // mmap.PAGESIZE * mmap.PAGESIZE
        if first < last:
            give_back(self._map, first, last - first)

    def give_back_margin(self) -> None:
        """Give back what was populated ahead of use."""
        if self._populated > self._top:
            self._give_back(self._top, self._populated)
        self._populated = min(self._populated, self._top)

    def reset(self) -> None:
        """Forget every run, when none is in use: all memory goes back, also that of the bookkeeping."""
        self._give_back(0, max(self._top, self._populated))
        self.dirty = [[] for _ in range(CHAIN_SIZE + 1)]
        self.clean = [[] for _ in range(CHAIN_SIZE + 1)]
        self.dirty_pages = 0
        del self.owners[1:]
        self._top = self._populated = self.page_size

    def close(self) -> None:
        """Unmap. A view that somebody still holds keeps the address space, but no memory."""
        self.reset()
        self.memory.release()
        self.words.release()
        self._whole.release()
        with contextlib.suppress(BufferError):
            self._map.close()


def merge_runs(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted (start, end) spans in which runs that touch have become one."""
    spans: list[tuple[int, int]] = []
    for start, end in sorted(runs):
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans
