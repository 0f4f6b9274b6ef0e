"""PoolPages: moving whole batches of pages out of the pool, for a pass whose token their slots carry.

`take` copies what the backing store is to have into memory for direct I/O; `commit` gives the slots their blocks. Both
are one call of compiled code for many slots where the data path has it, and array operations where it has not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .datapath import DataPath
from .errors import ZramError
from .interfaces import Buffer
from .slot_table import (
    HUGE,
    INCOMPRESSIBLE,
    PP_SLOT,
    PRIORITY_MASK,
    PRIORITY_SHIFT,
    SIZE_MASK,
    WB,
    Column,
    Rows,
)

LOCKED_SLOTS = 64
"""Slots that are locked together: so few that nobody who wants one of their locks waits long for it."""

KEPT_FLAGS = np.uint32(HUGE | INCOMPRESSIBLE | PRIORITY_MASK)
"""What block_state still shows of a written-back page (measured, Linux 7.3.4)."""

_LOST, _TAKEN, _LEFT = range(3)


class PoolPages:
    """The slots of one pass and what they hold."""

    def __init__(self, path: DataPath, as_stored: bool) -> None:
        """`as_stored`: objects go to their blocks as they are (compressed_writeback), with zeroes behind them: the rest
        of a block would leak old memory (3bf1c285dc40)."""
        self._path = path
        self._as_stored = as_stored
        self._zeroes = bytes(path.page_size)

    # Taking -----------------------------------------------------------------------------------------------------------

    def take(self, slots: Column, target: memoryview) -> tuple[Rows, dict[int, ZramError]]:
        """Fill `target`, a page for each of `slots`. Returns which of them still have their token, and by position why
        a page could not be decompressed; the others' places in `target` hold anything.

        Raises PluginFault when the allocator fails.
        """
        found = np.zeros(len(slots), np.uint8)
        failures: dict[int, ZramError] = {}
        page_size, table, pages = self._path.page_size, self._path.table, self._path.pages
        for start in range(0, len(slots), LOCKED_SLOTS):
            part, places = slots[start : start + LOCKED_SLOTS], target[start * page_size :]
            if pages is None:
                self._take(part, places, found[start:], failures, start)
                continue
            with table.lock_slots(part):
                taken = pages.take(part, places, found[start:], self._as_stored)
            if taken < len(part):
                self._take_what_is_left(part, places, found[start : start + len(part)], failures, start)
        return found != _LOST, failures

    def _take_what_is_left(
        self, slots: Column, target: memoryview, found: Column, failures: dict[int, ZramError], first: int
    ) -> None:
        """Take what compiled code has left to Python: objects of secondary algorithms, and damaged ones."""
        page_size = self._path.page_size
        positions = np.flatnonzero(found == _LEFT)
        if not len(positions):
            return
        again = np.zeros(len(positions), np.uint8)
        pages = memoryview(bytearray(len(positions) * page_size))
        failed: dict[int, ZramError] = {}
        self._take(slots[positions], pages, again, failed, 0)
        found[positions] = again
        for index, position in enumerate(positions.tolist()):
            target[position * page_size : (position + 1) * page_size] = pages[index * page_size :][:page_size]
            if index in failed:
                failures[first + position] = failed[index]

    def _take(
        self, slots: Column, target: memoryview, found: Column, failures: dict[int, ZramError], first: int
    ) -> None:
        """`take` in Python; positions in `failures` count from `first`."""
        path, table = self._path, self._path.table
        with table.lock_slots(slots):
            flags = table.flags[slots]
            held = (flags & PP_SLOT) != 0
            where = np.flatnonzero(held)
            flags = flags[where]
            try:
                views = path.allocator.views(table.handles[slots[where]].tolist(), (flags & SIZE_MASK).tolist())
                # Copies, for they must outlive the locks: decompressing under them would let others wait.
                objects: list[Buffer] = list(map(bytes, views))
            except Exception as error:
                raise path.allocator_fault(error) from error
        found[: len(slots)] = held
        page_size = path.page_size
        if self._as_stored:
            objects = [bytes(data).ljust(page_size, b"\0") for data in objects]
        else:
            packed = np.flatnonzero((flags & HUGE) == 0)
            priorities = flags[packed] >> PRIORITY_SHIFT & 3
            for priority in np.unique(priorities).tolist():
                failed = self._unpack(priority, packed[priorities == priority].tolist(), objects)
                failures |= {first + int(where[index]): error for index, error in failed.items()}
        pages = objects
        if len(where) < len(slots):
            pages = [self._zeroes] * len(slots)
            for position, page in zip(where.tolist(), objects, strict=True):
                pages[position] = page
        target[: len(slots) * page_size] = b"".join(pages)

    def _unpack(self, priority: int, positions: Sequence[int], pages: list[Buffer]) -> dict[int, ZramError]:
        """Replace the objects at `positions` by their pages. When one of them cannot be decompressed, each is tried by
        itself, and what cannot be is a page of zeroes and in the answer."""
        page_size = self._path.page_size
        objects = [pages[position] for position in positions]
        try:
            found = self._path.zcomp.decompress(priority, objects, page_size)
        except ZramError as error:
            if len(positions) > 1:
                failures: dict[int, ZramError] = {}
                for position in positions:
                    failures |= self._unpack(priority, [position], pages)
                return failures
            pages[positions[0]] = self._zeroes
            return {positions[0]: error}
        for position, page in zip(positions, found, strict=True):
            pages[position] = page
        return {}

    # Committing -------------------------------------------------------------------------------------------------------

    def commit(self, slots: Column, blocks: Column, written: Rows) -> Rows:
        """Give slots, LOCKED_SLOTS at most, their blocks, where these are written and the slot still has its token: it
        has not been accessed, overwritten or freed. A slot that comes twice has the first. Returns which have theirs.

        Raises PluginFault when the allocator cannot free an object; the slots have their blocks then, too.
        """
        path = self._path
        with path.table.lock_slots(slots):
            if path.pages is not None:
                kept, handles = np.zeros(len(slots), bool), np.empty(len(slots), np.uint64)
                count, size, huge = path.pages.commit(slots, blocks, written, kept, handles, self._as_stored)
                handles = handles[:count]
            else:
                kept, handles, size, huge = self._commit(slots, blocks, written)
            with path.stats.lock:
                path.stats.compr_data_size -= size
                path.stats.huge_pages -= huge
        try:
            path.allocator.free_many(handles.tolist())
        except Exception as error:
            raise path.allocator_fault(error) from error
        return kept

    def _commit(self, slots: Column, blocks: Column, written: Rows) -> tuple[Rows, Column, int, int]:
        """`commit` in Python: which, their handles, the bytes of their objects, and how many of these are huge."""
        table = self._path.table
        kept: Rows = written & ((table.flags[slots] & PP_SLOT) != 0)
        where = np.flatnonzero(kept)
        first = where[np.unique(slots[where], return_index=True)[1]]
        if len(first) < len(where):
            kept = np.zeros(len(slots), bool)
            kept[first] = True
        at = slots[kept]
        flags, handles = table.flags[at], table.handles[at]
        sizes = flags & SIZE_MASK
        after = (flags & KEPT_FLAGS) | WB | (sizes if self._as_stored else 0)
        # Nothing is called between these two assignments: no signal's handler can run there.
        table.flags[at], table.handles[at] = after, blocks[kept]
        return kept, handles, int(sizes.sum(dtype=np.int64)), int(np.count_nonzero(flags & HUGE))
