"""The data path of an initialised device: whole pages in and out of the slot table, the pool and the backing store.

Lock order: slot locks, then the allocator's and the backing store's own, then `stats.lock`. Compression happens with
no lock held.

A row always names something that exists: a new object is stored before its row is committed, and the old one is freed
after (the kernel's order). An exception in between, even a KeyboardInterrupt, can at worst strand an object in the
pool, never leave a row that points at freed memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from . import samefill
from .errors import ZramError
from .interfaces import Buffer
from .one_page import PageCommitter, PageWriter, page_committer, page_writer
from .readpath import ReadPath
from .slot_table import HUGE, LOCK_MASK, LOCK_SHIFT, SAME, SIZE_MASK, WB, Column, allocated, holds_object
from .zcomp import PRIMARY


class DataPath(ReadPath):
    """Reads, writes and frees runs of whole pages; partial pages by read-modify-write. Thread-safe.

    Lives from disksize to reset. Indexes and counts must lie within the device: the device checks them.
    """

    def __init__(self, **parts: Any) -> None:
        """`parts` are those of ReadPath."""
        super().__init__(**parts)
        self.commit_one: PageCommitter = page_committer(self)
        """Store one page's object and give the row to it, with the slot locked."""
        self.write_page: PageWriter = page_writer(self)
        """Write one page by its byte offset; False when this is not for it (use `write_pages`)."""

    native = False
    """Whether compiled code does the work."""
    pages: Any = None
    """What does it (_batch.pyi), or None."""

    def set_workers(self, workers: int) -> None:
        """Threads that a large request may use, its own included."""
        self.zcomp.workers = workers

    # Writing ----------------------------------------------------------------------------------------------------------

    def compress_one(self, page: bytes) -> tuple[Buffer, int]:
        """What to store for a page, and its size and flags."""
        try:
            data = self.zcomp.contexts.compress_page(page)
            size = len(data)
            if 0 < size < self._huge_class_size:
                return data, size
            if not size:
                raise ValueError("a page was compressed to nothing")
        except Exception as error:
            raise self.zcomp.fault(PRIMARY, error) from error
        return page, self.page_size | HUGE

    def _free(self, handles: Sequence[int]) -> None:
        try:
            self.allocator.free_many(handles)
        except Exception as error:
            raise self.allocator_fault(error) from error

    def write_pages(self, first: int, data: memoryview) -> int:
        """Write whole pages; returns how many are written, in order. Fewer than given: the pool had no room for the
        next one. Pages before one that fails in another way stay written too, as of a bio of the kernel."""
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
            self.check_open()
            return self._commit(first, objects, flags, same, words)

    def write_scattered(self, offsets: Sequence[int], pages: Sequence[Buffer]) -> int:
        """Write single pages, each at its own byte offset. Returns how many, in order, are written: fewer when the next
        one could not be (it keeps its old contents), or is not exactly one page of the device."""
        write, done = self.write_page, 0
        with suppress(ZramError):
            for offset, page in zip(offsets, pages, strict=True):
                if not write(offset, bytes(page)):
                    break
                done += 1
        return done

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
        old_flags = table.flags[first : first + len(objects)].copy()
        old_handles = table.handles[first : first + len(objects)]
        blocks: list[int] = []
        if not old_flags.any():
            replaced = [0] * len(objects)
        else:
            replaced = old_handles.tolist()
            written_back = (old_flags & WB) != 0
            for position in np.flatnonzero(((old_flags & SIZE_MASK) == 0) | written_back).tolist():
                replaced[position] = 0
            blocks = old_handles[written_back].tolist()
        handles: list[int] = []
        try:
            try:
                self.allocator.store(objects, replaced, self.limit_pages, handles)
            finally:
                done = self._assign(first, handles, flags, same, words)
        except BaseException as error:
            # Once more: a signal may have ended the first time half way.
            done = self._assign(first, handles, flags, same, words)
            self._settle(old_flags[:done], flags[:done], blocks[: int(np.count_nonzero(old_flags[:done] & WB))])
            if isinstance(error, Exception):
                raise self.allocator_fault(error) from error
            raise
        if done < len(objects):
            blocks = blocks[: int(np.count_nonzero(old_flags[:done] & WB))]
        self._settle(old_flags[:done], flags[:done], blocks)
        return done

    def _assign(self, first: int, handles: list[int], flags: Column, same: Column, words: Column) -> int:
        """Give the rows from `first` on their handles and flags, as many as there are handles; may be done again."""
        table = self.table
        done = len(handles)
        if done:
            table.handles[first : first + done] = handles
            if len(same):
                table.handles[first + same[same < done]] = words[same < done]
            table.flags[first : first + done] = flags[:done]
            table.ac_times[first : first + done] = self.clock.now()
            table.touch(first, done)
        return done

    def _settle(self, old: Column, new: Column, blocks: list[int]) -> None:
        """Count rows that were replaced, and give back the blocks that they had."""
        self._count_replaced(old, new)
        if blocks:
            assert self.backing is not None
            self.backing.release_many(blocks)

    def _count_replaced(self, old: Column, new: Column) -> None:
        """Move the counters from what rows held to what they hold."""
        stored, size, same, huge = tally(new)
        old_stored, old_size, old_same, old_huge = tally(old) if old.any() else (0, 0, 0, 0)
        stats = self.stats
        with stats.lock:
            stats.pages_stored += stored - old_stored
            stats.compr_data_size += size - old_size
            stats.same_pages += same - old_same
            stats.huge_pages += huge - old_huge
            stats.huge_pages_since += huge

    def write_partial(self, index: int, start: int, data: memoryview) -> None:
        """Change bytes `start` .. of one page: read, modify and write under the slot's lock."""
        with self.table.locks[index >> LOCK_SHIFT & LOCK_MASK]:
            self.check_open()
            flags = self.table.flags_row[index]
            old: Buffer | None = self.peek_unusual(index, flags)
            if old is None:
                block = self.table.handles_row[index]
                old = self._read_blocks([block])[block]
                if flags & SIZE_MASK and not flags & HUGE:
                    old = self._unpack(flags, old)
            page = bytearray(old)
            page[start : start + len(data)] = data
            changed = bytes(page)
            word = samefill.same_word(changed)
            if word is None:
                self.commit_one(index, *self.compress_one(changed), 0)
            else:
                self.commit_one(index, None, SAME, word)

    # Freeing ----------------------------------------------------------------------------------------------------------

    def free_pages(self, first: int, count: int) -> None:
        """Discard whole pages; each counts in notify_free, also an empty one (measured, Linux 7.3.4)."""
        table = self.table
        for start, end in table.touched_ranges(first, first + count):
            with table.lock_range(start, end - start):
                self.check_open()
                rows = table.flags[start:end]
                if not rows.any():
                    continue
                old = rows.copy()
                handles = table.handles[start:end].copy()
                rows[:] = 0
                table.handles[start:end] = 0
                table.ac_times[start:end] = 0
                self._count_replaced(old, rows)
                blocks = handles[(old & WB) != 0].tolist()
                if blocks:
                    assert self.backing is not None
                    self.backing.release_many(blocks)
                self._free(handles[holds_object(old)].tolist())
        with self.stats.lock:
            self.stats.notify_free += count
        if count > 1:
            self.trim()

    def trim(self) -> None:
        """Let the allocator give what is free back to the system. Raises PluginFault (EIO)."""
        try:
            self.allocator.trim()
        except Exception as error:
            raise self.allocator_fault(error) from error

    def compact(self) -> int:
        """Compact the pool, with all slots locked: nobody holds a view of an object that moves. Returns pages freed."""
        with self.table.lock_all():
            self.check_open()
            try:
                return self.allocator.compact()
            except Exception as error:
                raise self.allocator_fault(error) from error

    def close(self) -> None:
        """Stop all I/O and give the memory back; the backing store is the device's to close. Raises PluginFault."""
        with self.table.lock_all():
            self.closed = True
            try:
                self.allocator.close()
            except Exception as error:
                raise self.allocator_fault(error) from error


def tally(flags: Column) -> tuple[int, int, int, int]:
    """What rows hold: pages stored, bytes in the pool, same-filled pages, huge pages in the pool."""
    in_pool, same = flags, 0
    if (flags & (SAME | WB)).any():
        in_pool = flags[holds_object(flags)]
        stored, same = int(np.count_nonzero(allocated(flags))), int(np.count_nonzero(flags & SAME))
    else:
        stored = int(np.count_nonzero(flags & SIZE_MASK))
    size = int((in_pool & SIZE_MASK).sum(dtype=np.int64))
    return stored, size, same, int(np.count_nonzero(in_pool & HUGE))
