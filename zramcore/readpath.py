"""Reading an initialised device: whole pages out of the slot table, the pool and the backing store.

Everything that reads an object's bytes holds the lock of its slot, so that nobody frees or moves it meanwhile.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import monotonic

import numpy as np

from . import samefill
from .access_clock import AccessClock
from .backing import BackingStore
from .errors import CorruptPage, DeviceIOError, PluginFault, ZramError
from .interfaces import Allocator, Buffer
from .slot_table import (
    HUGE,
    IDLE,
    LOCK_MASK,
    LOCK_SHIFT,
    PP_SLOT,
    PRIORITY_MASK,
    PRIORITY_SHIFT,
    SAME,
    SIZE_MASK,
    WB,
    SlotTable,
)
from .stats import Stats
from .zcomp import PRIMARY, Zcomp

NOT_PLAIN = SAME | WB | HUGE | PRIORITY_MASK
"""A row with none of these and a size is an object of the primary algorithm: the quick way of reading."""

RELOCK_TRIES = 3
"""Times a read of written-back pages starts again because they moved, before it holds the locks throughout."""

DECOMPRESS_PAGES = 64
"""Pages decompressed before they are passed on: 256 KiB stay in the cache. With 1 MiB at once, and as much again for
the result, glibc gave the memory back and took it again for each request: 460 page faults, 4 us a page."""

Sink = Callable[[list[Buffer]], object]
"""Takes the next pages of a read, in order; they may be views of the pool, valid until it returns."""


class ReadPath:
    """The parts of an initialised device, and reading runs of whole pages from them. Thread-safe."""

    def __init__(
        self,
        *,
        page_size: int,
        table: SlotTable,
        zcomp: Zcomp,
        allocator: Allocator,
        backing: BackingStore | None,
        stats: Stats,
        clock: AccessClock,
    ) -> None:
        self.page_size = page_size
        self.table = table
        self.zcomp = zcomp
        self.allocator = allocator
        self.backing = backing
        self.stats = stats
        self.clock = clock
        self.limit_pages = 0
        """mem_limit in pages of the device; 0: none."""
        self.closed = False
        self._zero_page = bytes(page_size)
        self._huge_class_size = allocator.huge_class_size
        # The one-page paths' own names for what they look up each time.
        self._locks = table.locks
        self._flags_row = table.flags_row
        self._handles_row = table.handles_row
        self._ac_times_row = table.ac_times_row
        self._contexts = zcomp.contexts
        self._view = allocator.view

    def allocator_fault(self, error: Exception) -> ZramError:
        """What to raise for an exception of the allocator."""
        if isinstance(error, ZramError):
            return error
        return PluginFault(self.allocator.name, f"{type(error).__name__}: {error}", hint="the request failed")

    def _check_open(self) -> None:
        if self.closed:
            raise DeviceIOError("the device was reset meanwhile")

    def read_page(self, index: int) -> Buffer:
        """One page. The common case, an object of the primary algorithm, goes straight through."""
        with self._locks[index >> LOCK_SHIFT & LOCK_MASK]:
            flags = self._flags_row[index]
            size = flags & SIZE_MASK
            if size and not flags & NOT_PLAIN and not self.closed:
                try:
                    data = self._view(self._handles_row[index], size)
                    page = self._contexts.decompress_page(data, self.page_size)
                except Exception as error:
                    raise self.zcomp.fault(PRIMARY, error) from error
                if len(page) != self.page_size:
                    raise CorruptPage(f"page {index} decompressed to {len(page)} bytes")
                if flags & (IDLE | PP_SLOT):
                    self._flags_row[index] = flags & ~(IDLE | PP_SLOT)
                clock = self.clock
                if monotonic() >= clock.until:
                    clock.refresh()
                self._ac_times_row[index] = clock.seconds
                return page
        return self.read_pages(index, 1)

    def read_pages(self, first: int, count: int) -> bytes:
        """`count` pages as one buffer."""
        result = io.BytesIO()
        self.read_to(first, count, result.writelines)
        return result.getvalue()

    def read_pages_into(self, first: int, target: memoryview) -> None:
        """Fill `target`, whole pages long."""
        offset = 0

        def fill(pages: list[Buffer]) -> None:
            nonlocal offset
            data = b"".join(pages)
            target[offset : offset + len(data)] = data
            offset += len(data)

        self.read_to(first, len(target) // self.page_size, fill)

    def read_to(self, first: int, count: int, sink: Sink) -> None:
        """Give the pages to `sink` while their locks are held.

        Written-back pages are read unlocked, as runs of blocks, and taken only if, under the locks again, their slots
        still name the same blocks. The blocks stay pinned, so that none can have been given to another page meanwhile.
        """
        fetched: dict[int, Buffer] = {}
        with ExitStack() as pins:
            for attempt in itertools.count():
                with self.table.lock_range(first, count):
                    self._check_open()
                    missing = self._serve(first, count, fetched, sink)
                    if missing and attempt == RELOCK_TRIES:
                        missing = self._serve(first, count, fetched | self._read_blocks(missing), sink)
                    if not missing:
                        self._mark_accessed(first, count)
                        return
                    assert self.backing is not None
                    pins.enter_context(self.backing.pin(missing))
                fetched |= self._read_blocks(missing)

    def _read_blocks(self, blocks: Sequence[int]) -> dict[int, Buffer]:
        assert self.backing is not None
        with self.stats.lock:
            self.stats.bd_reads += len(blocks) * (self.page_size >> 12)
        return dict(zip(blocks, self.backing.read(blocks), strict=True))

    def _serve(self, first: int, count: int, fetched: dict[int, Buffer], sink: Sink) -> list[int]:
        """Give the pages of a range whose locks the caller holds to `sink`, or return the blocks missing for that."""
        rows = self.table.flags[first : first + count]
        sizes = rows & SIZE_MASK
        if sizes.all() and not (rows & NOT_PLAIN).any():
            handles = self.table.handles[first : first + count].tolist()
            for start in range(0, count, DECOMPRESS_PAGES):
                end = start + DECOMPRESS_PAGES
                sink(self._decompress(PRIMARY, handles[start:end], sizes[start:end].tolist()))
            return []
        pages, missing = self._collect(first, rows.tolist(), fetched)
        if not missing:
            sink(pages)
        return missing

    def _collect(self, first: int, flags: list[int], fetched: dict[int, Buffer]) -> tuple[list[Buffer], list[int]]:
        """The pages of rows of any kind, and the blocks not in `fetched` that they still need."""
        handles = self.table.handles[first : first + len(flags)].tolist()
        pages: list[Buffer] = [self._zero_page] * len(flags)
        missing: list[int] = []
        packed: dict[int, list[int]] = {}
        for position, flag in enumerate(flags):
            if flag & WB:
                block = fetched.get(handles[position])
                if block is None:
                    missing.append(handles[position])
                elif flag & SIZE_MASK and not flag & HUGE:
                    pages[position] = self._unpack(flag, block)
                else:
                    pages[position] = block
            elif flag & SAME:
                pages[position] = samefill.expand(handles[position], self.page_size)
            elif flag & HUGE:
                pages[position] = self._view(handles[position], self.page_size)
            elif flag & SIZE_MASK:
                packed.setdefault(flag >> PRIORITY_SHIFT & 3, []).append(position)
        if not missing:
            for priority, positions in packed.items():
                found = self._decompress(
                    priority, [handles[at] for at in positions], [flags[at] & SIZE_MASK for at in positions]
                )
                for position, page in zip(positions, found, strict=True):
                    pages[position] = page
        return pages, missing

    def _decompress(self, priority: int, handles: list[int], sizes: list[int]) -> list[Buffer]:
        try:
            objects = self.allocator.views(handles, sizes)
        except Exception as error:
            raise self.allocator_fault(error) from error
        return self.zcomp.decompress(priority, objects, self.page_size)

    def _unpack(self, flag: int, block: Buffer) -> Buffer:
        """The page of a block that holds a compressed object."""
        data = memoryview(block)[: flag & SIZE_MASK]
        return self.zcomp.decompress(flag >> PRIORITY_SHIFT & 3, [data], self.page_size)[0]

    def _mark_accessed(self, first: int, count: int) -> None:
        """Clear IDLE and the token, stamp the access time; rows never written stay untouched (and cost nothing)."""
        table = self.table
        flags = table.flags[first : first + count]
        if flags.any():
            flags &= ~np.uint32(IDLE | PP_SLOT)
            table.ac_times[first : first + count] = self.clock.now()
