"""The data path of an initialised device: whole pages in and out of the slot table, the pool and the backing store.

Lock order: slot locks, then the allocator's and the backing store's own, then `stats.lock`. Compression happens with
no lock held.

A row always names something that exists: a new object is stored before its row is committed, and the old one is freed
after (the kernel's order). An exception in between, even a KeyboardInterrupt, can at worst strand an object in the
pool, never leave a row that points at freed memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import samefill
from .errors import NoMemory
from .interfaces import Buffer
from .readpath import ReadPath
from .slot_table import CHUNK_SHIFT, HUGE, LOCK_MASK, LOCK_SHIFT, SAME, SIZE_MASK, WB, allocated, holds_object
from .zcomp import PRIMARY


class DataPath(ReadPath):
    """Reads, writes and frees runs of whole pages; partial pages by read-modify-write. Thread-safe.

    Lives from disksize to reset. Indexes and counts must lie within the device: the device checks them.
    """

    # Writing ----------------------------------------------------------------------------------------------------------

    def write_page(self, index: int, page: bytes) -> None:
        """Write one page."""
        word = samefill.same_word(page)
        with_lock = self.table.locks[index >> LOCK_SHIFT & LOCK_MASK]
        if word is None:
            data, flags = self._compress_one(page)
            with with_lock:
                self._commit_one(index, data, flags)
        else:
            with with_lock:
                self._commit_same(index, word)

    def _compress_one(self, page: bytes) -> tuple[Buffer, int]:
        """What to store for a page, and its size and flags."""
        try:
            data = self.zcomp.context(PRIMARY).compress_page(page)
            size = len(data)
            if 0 < size < self._huge_class_size:
                return data, size
            if not size:
                raise ValueError("a page was compressed to nothing")
        except Exception as error:
            raise self.zcomp.fault(PRIMARY, error) from error
        return page, self.page_size | HUGE

    def _commit_one(self, index: int, data: Buffer, flags: int) -> None:
        """Store an object and give the row to it; the caller holds the slot's lock. Raises NoMemory."""
        self._check_open()
        table = self.table
        try:
            handle = self.allocator.store_one(data, self.limit_pages)
        except Exception as error:
            raise self._fault(error) from error
        if not handle:
            raise NoMemory("no memory for the page", hint="raise mem_limit, or write pages back")
        old_flags, old_handle = table.flags_row[index], table.handles_row[index]
        table.flags_row[index] = flags
        table.handles_row[index] = handle
        table.ac_times_row[index] = self.clock()
        table.touched[index >> CHUNK_SHIFT] = 1
        stats = self.stats
        with stats.lock:
            stats.compr_data_size += flags & SIZE_MASK
            if flags & HUGE:
                stats.huge_pages += 1
                stats.huge_pages_since += 1
            if not old_flags & (SIZE_MASK | SAME | WB):
                stats.pages_stored += 1
        self._release_one(old_flags, old_handle)

    def _commit_same(self, index: int, word: int) -> None:
        """Give the row to a same-filled word; the caller holds the slot's lock."""
        self._check_open()
        table = self.table
        old_flags, old_handle = table.flags_row[index], table.handles_row[index]
        table.flags_row[index] = SAME
        table.handles_row[index] = word
        table.ac_times_row[index] = self.clock()
        table.touched[index >> CHUNK_SHIFT] = 1
        with self.stats.lock:
            self.stats.same_pages += 1
            if not old_flags & (SIZE_MASK | SAME | WB):
                self.stats.pages_stored += 1
        self._release_one(old_flags, old_handle)

    def _release_one(self, flags: int, handle: int) -> None:
        """Free what a row held before; its row is already committed. `pages_stored` is the caller's to count."""
        if flags & WB:
            assert self.backing is not None
            self.backing.release(handle)
        elif flags & SAME:
            with self.stats.lock:
                self.stats.same_pages -= 1
        elif flags & SIZE_MASK:
            self._free([handle])
            with self.stats.lock:
                self.stats.compr_data_size -= flags & SIZE_MASK
                if flags & HUGE:
                    self.stats.huge_pages -= 1

    def _free(self, handles: Sequence[int]) -> None:
        try:
            self.allocator.free_many(handles)
        except Exception as error:
            raise self._fault(error) from error

    def write_pages(self, first: int, data: memoryview) -> None:
        """Write whole pages. Like a bio of the kernel, pages before one that fails stay written."""
        page_size = self.page_size
        count = len(data) // page_size
        same, words = samefill.same_words(data, page_size)
        pages: list[Buffer] = [data[offset : offset + page_size] for offset in range(0, len(data), page_size)]
        objects: list[Buffer | None]
        flags = np.zeros(count, np.uint32)
        if len(same):
            varied = np.ones(count, bool)
            varied[same] = False
            where = np.flatnonzero(varied)
            packed, sizes = self._compress([pages[position] for position in where.tolist()])
            objects = [None] * count
            for position, item in zip(where.tolist(), packed, strict=True):
                objects[position] = item
            flags[where] = sizes
            flags[same] = SAME
        else:
            packed, sizes = self._compress(pages)
            objects = list(packed)
            flags[:] = sizes
        with self.table.lock_range(first, count):
            self._check_open()
            done = self._commit(first, objects, flags, same, words)
        if done < count:
            raise NoMemory(f"no memory for page {first + done}", hint="raise mem_limit, or write pages back")

    def _compress(self, pages: list[Buffer]) -> tuple[list[Buffer], list[int]]:
        """What to store for each page, and its size and flags."""
        objects = self.zcomp.compress(pages)
        sizes = list(map(len, objects))
        if sizes and (max(sizes) >= self._huge_class_size or not min(sizes)):
            for position, size in enumerate(sizes):
                if size >= self._huge_class_size:
                    objects[position] = pages[position]
                    sizes[position] = self.page_size | HUGE
                elif not size:
                    raise self.zcomp.fault(PRIMARY, ValueError("a page was compressed to nothing"))
        return objects, sizes

    def _commit(self, first: int, objects: list[Buffer | None], flags: Any, same: Any, words: Any) -> int:
        """Store the objects and give them their rows; the caller holds the locks. Returns how many were stored.

        The allocator frees each old object right after it has stored the new one, as the kernel does page by page;
        rows are committed for exactly what it finished, even when an exception ends it.
        """
        table = self.table
        rows = table.flags[first : first + len(objects)]
        old_flags = rows.copy()
        old_handles = table.handles[first : first + len(objects)]
        empty = not old_flags.any()
        replaced = [0] * len(objects) if empty else np.where(holds_object(old_flags), old_handles, 0).tolist()
        blocks = [] if empty else old_handles[(old_flags & WB) != 0].tolist()
        handles: list[int] = []
        try:
            self.allocator.store(objects, replaced, self.limit_pages, handles)
        except Exception as error:
            raise self._fault(error) from error
        finally:
            done = len(handles)
            if done:
                if done < len(objects):
                    kept, words = same < done, words[same < done]
                    same = same[kept]
                    flags, old_flags = flags[:done], old_flags[:done]
                    blocks = old_handles[:done][(old_flags & WB) != 0].tolist()
                table.handles[first : first + done] = handles
                table.handles[first + same] = words
                rows[:done] = flags
                table.ac_times[first : first + done] = self.clock()
                table.touch(first, done)
                self._count_replaced(old_flags, flags)
                if blocks:
                    assert self.backing is not None
                    self.backing.release_many(blocks)
        return done

    def _count_replaced(self, old: Any, new: Any) -> None:
        """Move the counters from what rows held to what they hold."""
        in_pool = holds_object(new)
        huge = int(np.count_nonzero(new & HUGE))
        stats = self.stats
        if old.any():
            was = holds_object(old)
            compr = int((old[was] & SIZE_MASK).sum(dtype=np.int64))
            was_stored = int(np.count_nonzero(allocated(old)))
            was_same = int(np.count_nonzero(old & SAME))
            was_huge = int(np.count_nonzero(was & ((old & HUGE) != 0)))
        else:
            compr = was_stored = was_same = was_huge = 0
        with stats.lock:
            stats.pages_stored += int(np.count_nonzero(allocated(new))) - was_stored
            stats.compr_data_size += int((new & SIZE_MASK)[in_pool].sum(dtype=np.int64)) - compr
            stats.same_pages += int(np.count_nonzero(new & SAME)) - was_same
            stats.huge_pages += huge - was_huge
            stats.huge_pages_since += huge

    def write_partial(self, index: int, start: int, data: memoryview) -> None:
        """Change bytes `start` .. of one page: read, modify and write under the slot's lock."""
        with self.table.locks[index >> LOCK_SHIFT & LOCK_MASK]:
            self._check_open()
            pages, missing = self._collect(index, 1, {})
            if missing:
                pages, missing = self._collect(index, 1, self._read_blocks(missing))
            page = bytearray(pages[0])
            page[start : start + len(data)] = data
            word = samefill.same_word(bytes(page))
            if word is None:
                self._commit_one(index, *self._compress_one(bytes(page)))
            else:
                self._commit_same(index, word)

    # Freeing ----------------------------------------------------------------------------------------------------------

    def free_pages(self, first: int, count: int) -> None:
        """Discard whole pages; each counts in notify_free, also an empty one (measured, Linux 7.3.4)."""
        table = self.table
        for start, end in table.touched_ranges(first, first + count):
            with table.lock_range(start, end - start):
                self._check_open()
                rows = table.flags[start:end]
                if not rows.any():
                    continue
                old = rows.copy()
                handles = table.handles[start:end].copy()
                rows[:] = 0
                table.handles[start:end] = 0
                table.ac_times[start:end] = 0
                self._count_replaced(old, rows)
                self._free(handles[holds_object(old)].tolist())
                blocks = handles[(old & WB) != 0].tolist()
                if blocks:
                    assert self.backing is not None
                    self.backing.release_many(blocks)
        with self.stats.lock:
            self.stats.notify_free += count
        if count > 1:
            self.allocator.trim()

    def compact(self) -> int:
        """Compact the pool, with all slots locked: nobody holds a view of an object that moves. Returns pages freed."""
        with self.table.lock_all():
            self._check_open()
            try:
                return self.allocator.compact()
            except Exception as error:
                raise self._fault(error) from error

    def close(self) -> None:
        """Stop all I/O and give the memory back; the backing store is the device's to close."""
        with self.table.lock_all():
            self.closed = True
            self.allocator.close()
