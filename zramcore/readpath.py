"""Reading an initialised device: whole pages out of the slot table, the pool and the backing store.

Everything that reads an object's bytes holds the lock of its slot, so that nobody frees or moves it meanwhile.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

import numpy as np

from . import samefill
from .access_clock import AccessClock
from .backing import BackingStore
from .errors import DeviceIOError, PluginFault, ZramError
from .interfaces import Allocator, Buffer
from .one_page import PageReader, page_reader
from .slot_table import (
    HUGE,
    IDLE,
    NOT_PLAIN,
    PP_SLOT,
    PRIORITY_SHIFT,
    SAME,
    SIZE_MASK,
    WB,
    SlotTable,
)
from .stats import Stats
from .zcomp import PRIMARY, Zcomp

RELOCK_TRIES = 3
"""Times a read of written-back pages starts again because they moved, before it holds the locks throughout."""

NOT_ACCESSED = np.uint32(~(IDLE | PP_SLOT) & 0xFFFFFFFF)

Sink = Callable[[list[Buffer]], object]
"""Takes the pages of a read, one or more to a buffer, while their slots are locked. None is a view of the pool."""


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
        self.read_page: PageReader = page_reader(self)
        """Read one page by its byte offset and length; None when this is not for it (use `read_pages`)."""

    def allocator_fault(self, error: Exception) -> ZramError:
        """What to raise for an exception of the allocator."""
        if isinstance(error, ZramError):
            return error
        return PluginFault(self.allocator.name, f"{type(error).__name__}: {error}", hint="the request failed")

    def check_open(self) -> None:
        """Raises DeviceIOError (EIO) after `close`."""
        if self.closed:
            raise DeviceIOError("the device was reset meanwhile")

    def read_unusual(self, index: int, flags: int) -> bytes | None:
        """A page that is not an object of the primary algorithm; None when it is written back. The slot is locked."""
        page = self.peek_unusual(index, flags)
        if page is not None and flags:
            table = self.table
            table.flags_row[index] = flags & ~(IDLE | PP_SLOT)
            table.ac_times_row[index] = self.clock.now()
        return page

    def peek_unusual(self, index: int, flags: int) -> bytes | None:
        """`read_unusual` of any row, which is not an access."""
        self.check_open()
        if not flags:
            return self._zero_page
        if flags & WB:
            return None
        return bytes(self._page_in_memory(self.table.handles_row[index], flags))

    def _page_in_memory(self, handle: int, flags: int) -> Buffer:
        """The page of a row that holds something and is not written back; never a view of the pool."""
        if flags & SAME:
            return samefill.expand(handle, self.page_size)
        if flags & HUGE:
            try:
                return bytes(self.allocator.view(handle, self.page_size))
            except Exception as error:
                raise self.allocator_fault(error) from error
        return self._decompress(flags >> PRIORITY_SHIFT & 3, [handle], [flags & SIZE_MASK])[0]

    def read_scattered(self, offsets: Sequence[int]) -> list[bytes]:
        """Single pages, each from its byte offset, in order: fewer when the next one cannot be read, is written back
        or is not exactly one page of the device."""
        read, page_size = self.read_page, self.page_size
        found: list[bytes] = []
        with suppress(ZramError):
            for offset in offsets:
                page = read(offset, page_size)
                if page is None:
                    break
                found.append(page)
        return found

    def read_pages(self, first: int, count: int) -> bytes:
        """`count` pages as one buffer."""
        whole: list[bytes] = []
        self.read_to(first, count, lambda pages: whole.append(b"".join(pages)))
        return whole[0]

    def read_pages_into(self, first: int, target: memoryview) -> None:
        """Fill `target`, whole pages long."""
        offset = 0

        def fill(pages: list[Buffer]) -> None:
            nonlocal offset
            for page in pages:
                end = offset + len(page)
                target[offset:end] = page
                offset = end

        self.read_to(first, len(target) // self.page_size, fill)

    def read_to(self, first: int, count: int, sink: Sink) -> None:
        """Give the pages to `sink` while their locks are held.

        Written-back pages are read unlocked, as runs of blocks, and taken only if, under the locks again, their slots
        still name the same blocks. The blocks stay pinned, so that none can have been given to another page meanwhile.
        """
        if self.table.flags_row[first] & WB and self._read_back(first, count, sink):
            return
        fetched: dict[int, Buffer] = {}
        with ExitStack() as pins:
            for attempt in itertools.count():
                with self.table.lock_range(first, count):
                    self.check_open()
                    missing = self._serve(first, count, fetched, sink)
                    if missing and attempt == RELOCK_TRIES:
                        missing = self._serve(first, count, fetched | self._read_blocks(missing), sink)
                    if not missing:
                        self._mark_accessed(first, count)
                        return
                    assert self.backing is not None
                    pins.enter_context(self.backing.pin(missing))
                fetched |= self._read_blocks(missing)

    def _read_back(self, first: int, count: int, sink: Sink) -> bool:
        """`read_to` of a range that is written back as a whole and uncompressed: no page of it is handled by itself.
        False, with nothing given to `sink`, when it is not so, or not so any more once the blocks are read."""
        assert self.backing is not None
        flags, handles = self.table.flags[first : first + count], self.table.handles[first : first + count]
        with self.table.lock_range(first, count):
            self.check_open()
            if not ((flags & (WB | SIZE_MASK)) == WB).all():
                return False
            before = handles.copy()
            blocks = before.tolist()
            pin = self.backing.pin(blocks)
        with pin:
            whole = self._read_whole(blocks)
            with self.table.lock_range(first, count):
                self.check_open()
                if not (((flags & (WB | SIZE_MASK)) == WB) & (handles == before)).all():
                    return False
                sink([whole])
                self._mark_accessed(first, count)
                return True

    def _read_whole(self, blocks: Sequence[int]) -> memoryview:
        """The contents of blocks that are pinned, or whose slots are locked, one after the other."""
        assert self.backing is not None
        with self.stats.lock:
            self.stats.bd_reads += len(blocks) * (self.page_size >> 12)
        return self.backing.read_pinned(blocks)

    def _read_blocks(self, blocks: Sequence[int]) -> dict[int, Buffer]:
        """`_read_whole` by block."""
        whole, size = self._read_whole(blocks), self.page_size
        return {
            block: whole[start : start + size] for block, start in zip(blocks, range(0, len(whole), size), strict=True)
        }

    def _serve(self, first: int, count: int, fetched: dict[int, Buffer], sink: Sink) -> list[int]:
        """Give the pages of a range whose locks the caller holds to `sink`, or return the blocks missing for that."""
        table = self.table
        rows = table.flags[first : first + count]
        lengths = rows & SIZE_MASK
        others = np.flatnonzero((lengths == 0) | ((rows & NOT_PLAIN) != 0)).tolist()
        handles = table.handles[first : first + count].tolist()
        sizes = lengths.tolist()
        pages: list[Buffer] = [self._zero_page] * len(others)
        if others:
            flags = [self.table.flags_row[first + position] for position in others]
            missing = self._collect([handles[position] for position in others], flags, pages, fetched)
            if missing:
                return missing
            for position in reversed(others):
                del handles[position], sizes[position]
        found = self._decompress(PRIMARY, handles, sizes) if handles else []
        for position, page in zip(others, pages, strict=True):
            found.insert(position, page)
        sink(found)
        return []

    def _collect(
        self, handles: list[int], flags: list[int], pages: list[Buffer], fetched: dict[int, Buffer]
    ) -> list[int]:
        """Put the pages of these rows, of any kind, into `pages`; returns the blocks not in `fetched` that they still
        need. The page of an empty row is left as it is: the caller has put zeroes there."""
        missing: list[int] = []
        for position, (handle, flag) in enumerate(zip(handles, flags, strict=True)):
            if flag & WB:
                block = fetched.get(handle)
                if block is None:
                    missing.append(handle)
                elif flag & SIZE_MASK and not flag & HUGE:
                    pages[position] = self._unpack(flag, block)
                else:
                    pages[position] = block
            elif flag:
                pages[position] = self._page_in_memory(handle, flag)
        return missing

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
            flags &= NOT_ACCESSED
            table.ac_times[first : first + count] = self.clock.now()
