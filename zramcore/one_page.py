"""The paths of a single page: what random 4 KiB requests cost.

They are closures, because looking up fifteen attributes a page costs 0.3 us of 4 (measured, Python 3.11). Each takes
one slot lock, asks the clock once a second, and knows the rules of readpath.py and datapath.py.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from .errors import NoMemory
from .interfaces import Buffer
from .samefill import WORD
from .slot_table import (
    CHUNK_SHIFT,
    HUGE,
    IDLE,
    LOCK_MASK,
    LOCK_SHIFT,
    NOT_PLAIN,
    PP_SLOT,
    SAME,
    SIZE_MASK,
    WB,
)
from .zcomp import PRIMARY

if TYPE_CHECKING:
    from .datapath import DataPath
    from .readpath import ReadPath

ACCESSED = IDLE | PP_SLOT

PageReader = Callable[[int, int], "bytes | None"]
PageWriter = Callable[[int, Any], bool]
PageCommitter = Callable[[int, "Buffer | None", int, int], None]


def page_reader(path: ReadPath) -> PageReader:
    """A function of a byte offset and a length: the bytes, when they are exactly one page of the device that is not
    written back, else None."""
    table, zcomp, allocator, page_size = path.table, path.zcomp, path.allocator, path.page_size
    locks, flags_row, handles_row, ac_times_row = table.locks, table.flags_row, table.handles_row, table.ac_times_row
    contexts, clock, stats, view = zcomp.contexts, path.clock, path.stats, allocator.view
    positions, memory = allocator.arena or (None, memoryview(b""))
    shift, within, end = page_size.bit_length() - 1, page_size - 1, table.nr_slots * page_size

    def read(offset: int, length: int) -> bytes | None:
        if length != page_size or offset & within or not 0 <= offset < end:
            return None
        index = offset >> shift
        with locks[index >> LOCK_SHIFT & LOCK_MASK]:
            flags = flags_row[index]
            if flags & NOT_PLAIN or not flags or path.closed:
                unusual = path.read_unusual(index, flags)
                stats.page_reads += unusual is not None
                return unusual
            data: Buffer | None = None
            try:
                if positions is not None:
                    start = positions[handles_row[index]]
                    data = memory[start : start + (flags & SIZE_MASK)]
                else:
                    data = view(handles_row[index], flags & SIZE_MASK)
                page = contexts.decompress_page(data, page_size)
                if len(page) != page_size:
                    raise ValueError(f"page {index} decompressed to {len(page)} bytes")
                if type(page) is not bytes:
                    page = bytes(memoryview(page))
            except Exception as error:
                if data is None:
                    raise path.allocator_fault(error) from error
                raise zcomp.fault(PRIMARY, error) from error
            if flags & ACCESSED:
                flags_row[index] = flags & ~ACCESSED
            if monotonic() >= clock.until:
                clock.refresh()
            ac_times_row[index] = clock.seconds
            stats.page_reads += 1
            return page

    return read


def page_writer(path: DataPath) -> PageWriter:
    """A function of a byte offset and a buffer that writes it when it is exactly one page of the device, as bytes;
    False when it is not. Raises what `page_committer`'s function does, and what a compressor's failure becomes."""
    locks, commit_one, compress_one, stats = path.table.locks, path.commit_one, path.compress_one, path.stats
    page_size, shift, within = path.page_size, path.page_size.bit_length() - 1, path.page_size - 1
    end, words = path.table.nr_slots * page_size, page_size // WORD

    def write(offset: int, page: Any) -> bool:
        if type(page) is not bytes or len(page) != page_size or offset & within or not 0 <= offset < end:
            return False
        index = offset >> shift
        stats.page_writes += 1
        word = page[:WORD]
        if word == page[-WORD:] and page == word * words:
            with locks[index >> LOCK_SHIFT & LOCK_MASK]:
                commit_one(index, None, SAME, int.from_bytes(word, "little"))
        else:
            data, flags = compress_one(page)
            with locks[index >> LOCK_SHIFT & LOCK_MASK]:
                commit_one(index, data, flags, 0)
        return True

    return write


def page_committer(path: DataPath) -> PageCommitter:
    """A function that gives a row its new contents; the caller holds the slot's lock.

    Its arguments: index, the object to store, its size and flags, and a handle. Without an object the handle is the
    word of a same-filled page. It raises NoMemory, counts, and frees what the row held before.
    """
    table, allocator, stats, clock = path.table, path.allocator, path.stats, path.clock
    flags_row, handles_row, ac_times_row, touched = (
        table.flags_row,
        table.handles_row,
        table.ac_times_row,
        table.touched,
    )
    store_one, free, stats_lock, zcomp = allocator.store_one, allocator.free, stats.lock, path.zcomp

    def commit_one(index: int, data: Buffer | None, flags: int, handle: int) -> None:
        path.check_open()
        if data is not None:
            try:
                handle = store_one(data, path.limit_pages)
            except Exception as error:
                if not isinstance(data, (bytes, bytearray, memoryview)):
                    raise zcomp.fault(PRIMARY, TypeError(f"compress_page gave {type(data).__name__}")) from error
                raise path.allocator_fault(error) from error
            if not handle:
                raise NoMemory("no memory for the page", hint="raise mem_limit, or write pages back")
        old_flags, old_handle = flags_row[index], handles_row[index]
        flags_row[index] = flags
        handles_row[index] = handle
        if monotonic() >= clock.until:
            clock.refresh()
        ac_times_row[index] = clock.seconds
        touched[index >> CHUNK_SHIFT] = 1
        old_size = 0 if old_flags & WB else old_flags & SIZE_MASK
        with stats_lock:
            stats.compr_data_size += (flags & SIZE_MASK) - old_size
            if (flags | old_flags) & (SAME | HUGE | WB) or not old_flags:
                stats.count_page(old_flags, flags)
        if old_size:
            try:
                free(old_handle)
            except Exception as error:
                raise path.allocator_fault(error) from error
        elif old_flags & WB and path.backing is not None:
            path.backing.release(old_handle)

    return commit_one
