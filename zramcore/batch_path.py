"""The compiled batch path: the data path of a device whose compressor and allocator both allow it.

It needs the extension `_batch`, a compressor that hands over C functions (NativeCodec), and an allocator whose objects
lie in one arena and which stores many at once (`store_packed`). Without one of them the device has the DataPath that
this extends, with the same results. What is not in the pool as an object of the primary algorithm, written-back and
recompressed pages, is read by that one too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import numpy as np

from .datapath import DataPath
from .errors import NoMemory, ZramError
from .interfaces import Allocator, Buffer, NativeCodec
from .native import load_batch
from .one_page import PageReader, PageWriter
from .readpath import Sink
from .slot_table import CHUNK_SHIFT, HUGE, LOCK_MASK, LOCK_SHIFT, PRIORITY_MASK, SIZE_MASK, WB, Column
from .zcomp import PRIMARY

ELSEWHERE = WB | PRIORITY_MASK
"""A row with one of these is not read by the compiled code: it is on the backing device, or of another algorithm."""
PART_BYTES = 32 << 10
"""What a worker takes at a time of a large request: 8 pages of 4 KiB, some 50 us of lz4 or 10 us of its way back. With
parts four times as long, two threads read 1.53 times as fast as one, with these 1.66 times: they end together."""
SLOW_PART_BYTES = 16 << 10
"""The same where a page is not quick: 4 pages, some 80 us of zstd."""
SCRATCHES = 2
"""Scratches that a device keeps for the next requests, about a MiB each."""


class Scratch:
    """What the pages of one request become, until they are in the pool: as many bytes as they could at worst need."""

    def __init__(self, pages: int, stride: int) -> None:
        self.pages = pages
        self.packed = np.empty(pages * stride, np.uint8)
        self.offsets, self.flags, self.old_flags = (np.empty(pages, np.uint32) for _ in range(3))
        self.words, self.replaced, self.handles = (np.empty(pages, np.uint64) for _ in range(3))


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def has_compiled_forms(allocator: Allocator) -> bool:
    """Whether an allocator has all that the compiled path needs of one."""
    return allocator.arena is not None and allocator.store_packed is not None and allocator.replace_one is not None


def data_path(workers: int, **parts: Any) -> DataPath:
    """The data path of a device made of these `parts`, compiled where all that it needs is there.

    Raises PluginFault (EIO) for a compressor that fails to say whether it has C functions.
    """
    allocator: Allocator = parts["allocator"]
    path: DataPath
    if load_batch() is None or not has_compiled_forms(allocator):
        path = DataPath(**parts)
    else:
        codec = parts["zcomp"].native_codec()
        path = DataPath(**parts) if codec is None else BatchPath(codec, **parts)
    path.set_workers(workers)
    return path


class BatchPath(DataPath):
    """A DataPath that works on whole requests in compiled code."""

    native = True

    def __init__(self, codec: NativeCodec, **parts: Any) -> None:
        super().__init__(**parts)
        batch, arena = load_batch(), self.allocator.arena
        store_packed, replace_one = self.allocator.store_packed, self.allocator.replace_one
        if batch is None or arena is None or store_packed is None or replace_one is None:
            raise ValueError("the compiled batch path needs its extension, and an allocator with compiled forms")
        self._store_packed = store_packed
        self._change = batch.change
        self._stride = max(codec.most_bytes, self.page_size)
        self._scratches: list[Scratch] = []
        self._library = codec.library
        positions, memory = arena
        self.pages = batch.Pages(
            batch.Codec(codec.compress, codec.decompress, codec.state_size, codec.level, codec.most_bytes, codec.quick),
            self.page_size,
            self._huge_class_size,
            self.table.flags,
            self.table.handles,
            self.table.ac_times,
            positions,
            memory,
            0,
            max(1, (PART_BYTES if codec.quick else SLOW_PART_BYTES) // self.page_size),
            replace_one,
        )
        self.read_page = batch_page_reader(self)
        self.write_page = batch_page_writer(self)

    def set_workers(self, workers: int) -> None:
        super().set_workers(workers)
        self.pages.workers = workers - 1

    # Reading ----------------------------------------------------------------------------------------------------------

    def read_pages(self, first: int, count: int) -> bytes:
        try:
            with self.table.lock_range(first, count):
                self.check_open()
                data = self.pages.read(first, count, self.clock.now())
        except ValueError as error:
            raise self.zcomp.fault(PRIMARY, error) from error
        return super().read_pages(first, count) if data is None else data

    def read_pages_into(self, first: int, target: memoryview) -> None:
        try:
            with self.table.lock_range(first, len(target) // self.page_size):
                self.check_open()
                elsewhere = self.pages.read_into(first, target, self.clock.now())
        except ValueError as error:
            raise self.zcomp.fault(PRIMARY, error) from error
        if elsewhere:
            super().read_pages_into(first, target)

    def _serve(self, first: int, count: int, fetched: dict[int, Buffer], sink: Sink) -> list[int]:
        """As ReadPath's, for a range of which some pages are elsewhere: only those are handled one by one."""
        flags = self.table.flags[first : first + count]
        others = np.flatnonzero(flags & ELSEWHERE).tolist()
        handles = [self.table.handles_row[first + position] for position in others]
        pages: list[Buffer] = [b""] * len(others)
        missing = self._collect(handles, flags[others].tolist(), pages, fetched)
        if missing:
            return missing
        whole = np.empty(count * self.page_size, np.uint8).data
        try:
            self.pages.read_into(first, whole, self.clock.now())
        except ValueError as error:
            raise self.zcomp.fault(PRIMARY, error) from error
        for position, page in zip(others, pages, strict=True):
            start = position * self.page_size
            whole[start : start + self.page_size] = page
        sink([whole])
        return []

    # Writing ----------------------------------------------------------------------------------------------------------

    def compress_one(self, page: bytes) -> tuple[Buffer, int]:
        """As DataPath's; a page that is same-filled is not expected here."""
        try:
            data = self.pages.compress_page(page)
        except ValueError as error:
            raise self.zcomp.fault(PRIMARY, error) from error
        return (data, len(data)) if isinstance(data, bytes) else (page, self.page_size | HUGE)

    def write_pages(self, first: int, data: memoryview) -> int:
        count = len(data) // self.page_size
        with self._compressed(data, count) as scratch, self.table.lock_range(first, count):
            self.check_open()
            self.table.touch(first, count)
            return self._commit_batch(first, slice(first, first + count), count, scratch)

    def write_scattered(self, offsets: Sequence[int], pages: Sequence[Buffer]) -> int:
        """As DataPath's. A place that is named twice makes it one write after the other."""
        indexes = self._indexes(offsets)
        count = len(indexes)
        if count < len(offsets) or len(set(offsets)) < count:
            return super().write_scattered(offsets, pages)
        try:
            with self._compressed(list(pages), count) as scratch, self.table.lock_slots(indexes):
                self.check_open()
                self.table.touch_slots(indexes)
                done = self._commit_batch(indexes, indexes, count, scratch)
        except ZramError:  # one by one it shows which pages can be written
            return super().write_scattered(offsets, pages)
        self.stats.page_writes += min(done + 1, count)  # the one that failed was a request too
        return done

    def _indexes(self, offsets: Sequence[int]) -> Column:
        """The rows of byte offsets; fewer than these when one is not that of a page of the device."""
        places = np.array(offsets, np.int64)
        good = (places & (self.page_size - 1) == 0) & (places >= 0) & (places < self.table.nr_slots * self.page_size)
        return (places >> (self.page_size.bit_length() - 1)).astype(np.uint64) if good.all() else places[:0]

    @contextmanager
    def _compressed(self, data: memoryview | list[Buffer], count: int) -> Iterator[Scratch]:
        """A scratch with what `count` pages become, for as long as it is needed. Raises PluginFault (EIO)."""
        scratch = self._take_scratch(count)
        try:
            try:
                self.pages.compress(data, scratch.packed, scratch.offsets, scratch.flags, scratch.words)
            except ValueError as error:
                raise self.zcomp.fault(PRIMARY, error) from error
            yield scratch
        finally:
            if len(self._scratches) < SCRATCHES:
                self._scratches.append(scratch)

    def _take_scratch(self, count: int) -> Scratch:
        """A scratch for `count` pages. Lists are shared without a lock: pop and append are one step each."""
        try:
            scratch = self._scratches.pop()
        except IndexError:
            scratch = Scratch(count, self._stride)
        return scratch if scratch.pages >= count else Scratch(count, self._stride)

    def _commit_batch(self, rows: int | Column, where: slice | Column, count: int, scratch: Scratch) -> int:
        """`_commit` of what a scratch holds: how many pages were stored. `rows` is the first one or the index of each,
        `where` the same for numpy; the caller holds their locks."""
        block_rows = self.pages.prepare(rows, count, scratch.old_flags, scratch.replaced, scratch.handles)
        blocks = self.table.handles[where].copy() if block_rows else None
        sizes = scratch.flags[:count] & SIZE_MASK
        try:
            try:
                self._store_packed(
                    scratch.packed,
                    scratch.offsets[:count],
                    sizes,
                    scratch.replaced[:count],
                    self.limit_pages,
                    scratch.handles[:count],
                )
            finally:
                done = self._assign_batch(rows, count, scratch)
        except BaseException as error:
            # Once more: a signal may have ended the first time half way.
            done = self._assign_batch(rows, count, scratch)
            self._settle_batch(done, scratch, blocks)
            if isinstance(error, Exception):
                raise self.allocator_fault(error) from error
            raise
        self._settle_batch(done, scratch, blocks)
        return done

    def _assign_batch(self, rows: int | Column, count: int, scratch: Scratch) -> int:
        done: int = self.pages.assign(rows, count, scratch.flags, scratch.handles, scratch.words, self.clock.now())
        return done

    def _settle_batch(self, done: int, scratch: Scratch, old_handles: Column | None) -> None:
        """Count the rows that were replaced, and give back the blocks that they had."""
        stored, size, same, huge, huge_since = self._change(scratch.old_flags, scratch.flags, done)
        stats = self.stats
        with stats.lock:
            stats.pages_stored += stored
            stats.compr_data_size += size
            stats.same_pages += same
            stats.huge_pages += huge
            stats.huge_pages_since += huge_since
        if old_handles is not None and self.backing is not None:
            self.backing.release_many(old_handles[:done][(scratch.old_flags[:done] & WB) != 0].tolist())

    def settle_page(self, old: int, new: int, old_handle: int) -> None:
        """Count a row whose flags changed from `old` to `new`, and give back the block that it had."""
        with self.stats.lock:
            self.stats.compr_data_size += (new & SIZE_MASK) - (0 if old & WB else old & SIZE_MASK)
            self.stats.count_page(old, new)
        if old & WB and self.backing is not None:
            self.backing.release(old_handle)

    def close(self) -> None:
        with self.table.lock_all():
            self.closed = True
            self.pages.release()
        super().close()


def batch_page_reader(path: BatchPath) -> PageReader:
    """`one_page.page_reader` in compiled code."""
    table, zcomp, clock, stats, read_one = path.table, path.zcomp, path.clock, path.stats, path.pages.read_page
    locks, flags_row, page_size, now = table.locks, table.flags_row, path.page_size, clock.now
    shift, within, end = page_size.bit_length() - 1, page_size - 1, table.nr_slots * page_size

    def read(offset: int, length: int) -> bytes | None:
        if length != page_size or offset & within or not 0 <= offset < end:
            return None
        index = offset >> shift
        with locks[index >> LOCK_SHIFT & LOCK_MASK]:
            try:
                page: bytes | None = read_one(index, now())
            except ValueError as error:
                path.check_open()
                raise zcomp.fault(PRIMARY, error) from error
            if page is None:
                page = path.read_unusual(index, flags_row[index])
            stats.page_reads += page is not None
            return page

    return read


def batch_page_writer(path: BatchPath) -> PageWriter:
    """`one_page.page_writer` in compiled code: compressed, stored and committed in one call, under the slot's lock."""
    table, zcomp, clock, stats, write_one = path.table, path.zcomp, path.clock, path.stats, path.pages.write_page
    locks, touched, stats_lock, page_size = table.locks, table.touched, stats.lock, path.page_size
    shift, within, end = page_size.bit_length() - 1, page_size - 1, table.nr_slots * page_size

    def write(offset: int, page: Any) -> bool:
        if type(page) is not bytes or len(page) != page_size or offset & within or not 0 <= offset < end:
            return False
        index = offset >> shift
        stats.page_writes += 1
        if monotonic() >= clock.until:
            clock.refresh()
        with locks[index >> LOCK_SHIFT & LOCK_MASK]:
            touched[index >> CHUNK_SHIFT] = 1
            try:
                change = write_one(index, page, clock.seconds, path.limit_pages)
            except ValueError as error:
                path.check_open()
                raise zcomp.fault(PRIMARY, error) from error
            except RuntimeError as error:
                raise path.allocator_fault(error) from error
            if type(change) is int:
                with stats_lock:
                    stats.compr_data_size += change
            elif change is None:
                raise NoMemory("no memory for the page", hint="raise mem_limit, or write pages back")
            else:
                path.settle_page(*change)
        return True

    return write
