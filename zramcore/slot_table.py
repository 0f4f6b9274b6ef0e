"""The slot table: one row per page of the device, 16 bytes a row, in three columns.

`handles` (uint64): an allocator handle, the repeated word of a same-filled page, or a backing block.
`flags` (uint32): the object's size in the low 17 bits, page flags above it (the kernel's layout, one width for all
page sizes). `ac_times` (uint32): boot seconds of the last access.

The columns are anonymous memory that exists only once written: a 100 GiB device costs nothing until then. So that
whole-table passes stay as cheap, `touched` remembers which chunks of rows were ever written, and passes walk those.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import NoMemory

SIZE_BITS = 17
SIZE_MASK = (1 << SIZE_BITS) - 1
SAME = 1 << 17
"""Same-filled: the handle column holds the word."""
WB = 1 << 18
"""Written back: the handle column holds the block."""
PP_SLOT = 1 << 19
"""The token of a post-processing pass (UNDER_WB in the seed patch): set by the pass, cleared by every access."""
HUGE = 1 << 20
"""Stored uncompressed."""
IDLE = 1 << 21
"""Not accessed since it was last marked idle."""
INCOMPRESSIBLE = 1 << 22
"""No secondary algorithm made it smaller."""
PRIORITY_SHIFT = 23
PRIORITY_MASK = 3 << PRIORITY_SHIFT
"""Compression priority (0..3) of the stored object."""

NOT_PLAIN = SAME | WB | HUGE | PRIORITY_MASK
"""A row with none of these and a size is an object of the primary algorithm: the quick way of reading."""

CHUNK_SHIFT = 12
"""Rows per entry of `touched`: 4096, so that 26 million slots need 6,400 entries."""
SCAN_ROWS = 1 << 18
"""Rows a whole-table pass looks at while it holds the locks: about half a millisecond, at most twice as many."""

BLOCK_ROWS = 1 << 16
"""Rows that an array operation works on at once, so that what lies between two operations stays in the cache."""
DENSE = 64
"""From one row in so many on, changing all rows is quicker than picking those to change."""

LOCK_SHIFT = 6
"""Slots that share a lock: 64, so that a 1 MiB request takes four or five."""
NR_LOCKS = 256
LOCK_MASK = NR_LOCKS - 1

MAP_NORESERVE = 0x4000

Column = npt.NDArray[Any]
Rows = npt.NDArray[np.bool_]


def _nested(locks: list[threading.Lock], position: int) -> Generator[None, None, None]:
    left = len(locks) - position
    # Several at a time only because it takes fewer calls.
    if left >= 8:
        a, b, c, d, e, f, g, h = locks[position : position + 8]
        with a, b, c, d, e, f, g, h:
            yield from _nested(locks, position + 8)
    elif left >= 2:
        a, b = locks[position : position + 2]
        with a, b:
            yield from _nested(locks, position + 2)
    elif left:
        with locks[position]:
            yield
    else:
        yield


class hold:
    """Hold several locks, taken in the order given, for the time of a with-block.

    Nested with statements in a generator, because nothing else gives all of them back when a signal handler raises
    somewhere on the way in or out: between an acquire and a note of it there is always a moment. Closing the generator,
    which also happens when it is dropped, ends them. (As @contextmanager it would take twice as long.)
    """

    __slots__ = ("_held",)

    def __init__(self, locks: list[threading.Lock]) -> None:
        self._held = _nested(locks, 0)

    def __enter__(self) -> None:
        next(self._held)

    def __exit__(self, *error: object) -> None:
        self._held.close()


def lazy_memory(size: int) -> mmap.mmap:
    """`size` bytes of zeroes that cost no memory until written. Raises NoMemory (ENOMEM)."""
    try:
        memory = mmap.mmap(-1, max(size, mmap.PAGESIZE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    except (OSError, OverflowError, ValueError) as error:
        raise NoMemory(f"cannot map {size} bytes", hint="choose a smaller disksize") from error
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        # A 2 MiB page for one touched row would undo the laziness; kernels without THP refuse the advice.
        try:
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        except OSError:
            return memory
    return memory


class SlotTable:
    """Rows of `nr_slots` pages. All access to a row happens under its lock.

    Each column exists as a numpy array (`flags`) for batches and as a memoryview (`flags_row`) for single rows: a
    numpy scalar costs several times what the memoryview's plain int does.
    """

    def __init__(self, nr_slots: int) -> None:
        """Raises NoMemory (ENOMEM) when the address space has no room for 16 bytes a slot."""
        self.nr_slots = nr_slots
        handles, flags, times = (lazy_memory(nr_slots * width) for width in (8, 4, 4))
        self.handles: Column = np.frombuffer(handles, np.uint64, nr_slots)
        self.flags: Column = np.frombuffer(flags, np.uint32, nr_slots)
        self.ac_times: Column = np.frombuffer(times, np.uint32, nr_slots)
        self.handles_row = memoryview(handles).cast("Q")
        self.flags_row = memoryview(flags).cast("I")
        self.ac_times_row = memoryview(times).cast("I")
        self.touched = lazy_memory((nr_slots >> CHUNK_SHIFT) + 1)
        self.locks = [threading.Lock() for _ in range(NR_LOCKS)]

    def lock_range(self, first: int, count: int) -> AbstractContextManager[object]:
        """The locks of slots `first` .. `first + count - 1`, in ascending order: two ranges cannot deadlock."""
        start = first >> LOCK_SHIFT
        stripes = ((first + count - 1) >> LOCK_SHIFT) - start + 1
        if stripes >= NR_LOCKS:
            return hold(self.locks)
        start &= LOCK_MASK
        if stripes == 1:
            return self.locks[start]
        end = start + stripes
        if end <= NR_LOCKS:
            return hold(self.locks[start:end])
        return hold(self.locks[: end - NR_LOCKS] + self.locks[start:])

    def lock_slots(self, slots: Column) -> AbstractContextManager[object]:
        """The locks of any slots, in the same order as those of a range."""
        stripes = sorted(set((slots >> LOCK_SHIFT).astype(np.uint8).tobytes()))  # a byte is one of NR_LOCKS
        return hold([self.locks[stripe] for stripe in stripes])

    def lock_all(self) -> AbstractContextManager[object]:
        """Every lock: nobody reads or writes a slot meanwhile."""
        return hold(self.locks)

    def touch(self, first: int, count: int) -> None:
        """Remember that rows were written; the caller holds their locks."""
        start, end = first >> CHUNK_SHIFT, (first + count - 1) >> CHUNK_SHIFT
        self.touched[start : end + 1] = b"\1" * (end - start + 1)

    def touch_slots(self, slots: Column) -> None:
        """`touch` of any rows."""
        for chunk in set((slots >> CHUNK_SHIFT).tolist()):
            self.touched[chunk] = 1

    def touched_blocks(self, start: int = 0, stop: int | None = None) -> Iterator[list[slice]]:
        """The rows of `touched_ranges` in blocks of at most BLOCK_ROWS, as many together as a whole-table pass is to
        look at under one `lock_blocks`: taking all locks costs as much as looking at 50,000 rows."""
        group: list[slice] = []
        rows = 0
        for first, end in self.touched_ranges(start, stop):
            for at in range(first, end, BLOCK_ROWS):
                group.append(slice(at, min(at + BLOCK_ROWS, end)))
            rows += end - first
            if rows >= SCAN_ROWS:
                yield group
                group, rows = [], 0
        if group:
            yield group

    def lock_blocks(self, blocks: list[slice]) -> AbstractContextManager[object]:
        """The locks of all rows of ascending blocks."""
        return self.lock_range(blocks[0].start, blocks[-1].stop - blocks[0].start)

    def touched_ranges(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Ranges (first, end) of rows that may hold something, each of at most SCAN_ROWS rows, in ascending order."""
        stop = self.nr_slots if stop is None else stop
        touched = self.touched
        chunk = start >> CHUNK_SHIFT
        last = (stop + (1 << CHUNK_SHIFT) - 1) >> CHUNK_SHIFT
        while True:
            chunk = touched.find(b"\1", chunk, last)
            if chunk < 0:
                return
            end = touched.find(b"\0", chunk, min(last, chunk + (SCAN_ROWS >> CHUNK_SHIFT)))
            if end < 0:
                end = min(last, chunk + (SCAN_ROWS >> CHUNK_SHIFT))
            yield max(start, chunk << CHUNK_SHIFT), min(stop, end << CHUNK_SHIFT)
            chunk = end


def allocated(flags: Column) -> Rows:
    """Which rows hold a page: an object, a same-filled word or a backing block."""
    present: Rows = (flags & (SIZE_MASK | SAME | WB)) != 0
    return present


def holds_object(flags: Column) -> Rows:
    """Which rows own an object of the allocator."""
    holds: Rows = ((flags & SIZE_MASK) != 0) & ((flags & WB) == 0)
    return holds


def in_memory(flags: Column, having: int = 0, lacking: int = 0) -> Rows:
    """Which rows hold a page that may become idle or be written back: an object, neither same-filled nor written; with
    all flags of `having`, and none of `lacking`."""
    # One comparison for all conditions. Flags are single bits above the size, so what a row has too many can never make
    # up for what it lacks: the difference is below SIZE_MASK only when nothing is left but a size, less one.
    rest = flags & np.uint32(SIZE_MASK | SAME | WB | having | lacking)
    rest -= np.uint32(having + 1)
    held: Rows = rest < np.uint32(SIZE_MASK)
    return held


def change_flags(flags: Column, changed: Rows, flag: int) -> None:
    """Turn `flag` over in the rows that `changed` says; pages of memory without such rows are seldom written to."""
    count = int(np.count_nonzero(changed))
    if count * DENSE >= len(flags):
        flags ^= changed * np.uint32(flag)
    elif count:
        flags[np.flatnonzero(changed)] ^= np.uint32(flag)
