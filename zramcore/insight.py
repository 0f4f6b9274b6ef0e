"""Questions that a pass would answer by doing it, answered without: how old the pages are, what a writeback would free.

Both look at rows that were ever written, range by range, copy what they need under the range's locks and count
outside of them. Neither waits for a pass, sets a flag or a token, or reads an object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .datapath import DataPath
from .device import Device
from .errors import InvalidValue, NoBackingDevice, ZramError
from .postprocess import MAX_BATCH, Selection, gather, size_order
from .slot_table import IDLE, SIZE_MASK, Column, SlotTable, in_memory

MINUTE, HOUR, DAY = 60, 3600, 86400
AGE_EDGES = (
    0, 1, 2, 5, 10, 20, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR,
    4 * HOUR, 8 * HOUR, 12 * HOUR, 16 * HOUR, 20 * HOUR, DAY, 25 * HOUR, 2 * DAY, 4 * DAY, 7 * DAY,
)  # fmt: skip
"""Seconds between the buckets of idle_histogram: the ages that known policies use (2 minutes in the far-memory paper,
20 minutes in Android, 1 to 25 hours in mmd and ChromeOS), no step above 2.5 times from 1 second on."""


# idle_histogram -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AgeBucket:
    """Pages in memory accessed more than `start` and at most `end` seconds ago (None: any longer); the first bucket
    has those of this very second too. So the buckets that start at N or more hold what `N` written to idle marks."""

    start: int
    end: int | None
    pages: int
    bytes_stored: int
    """Sizes of their objects."""
    idle_pages: int
    """Those of them that are marked idle."""


def age_buckets(table: SlotTable, now: int) -> list[AgeBucket]:
    """Every bucket, youngest first, at `now` (boot seconds). Only pages that may become idle are counted: in memory,
    neither same-filled nor written back. An access time of 0, which recompression leaves, is as old as the machine."""
    edges = np.array(AGE_EDGES[1:])
    pages = np.zeros(len(AGE_EDGES), np.int64)
    idle = pages.copy()
    sizes = pages.copy()
    for start, end in table.touched_ranges():
        with table.lock_range(start, end - start):
            flags = table.flags[start:end].copy()
            times = table.ac_times[start:end].copy()
        held = np.flatnonzero(in_memory(flags))
        flags = flags[held]
        buckets = np.searchsorted(edges, now - times[held].astype(np.int64), side="left")
        pages += np.bincount(buckets, minlength=len(pages))
        idle += np.bincount(buckets[(flags & IDLE) != 0], minlength=len(pages))
        # The weights are floats: exact, a range of 2**18 rows has less than 2**53 bytes.
        sizes += np.bincount(buckets, weights=flags & SIZE_MASK, minlength=len(pages)).astype(np.int64)
    ends = (*AGE_EDGES[1:], None)
    columns = zip(AGE_EDGES, ends, pages.tolist(), sizes.tolist(), idle.tolist(), strict=True)
    return [AgeBucket(*column) for column in columns]


def show_histogram(device: Device) -> str:
    """The text of idle_histogram: for each bucket a line of start, end ("-": open), pages, bytes stored, idle pages.

    Raises InvalidValue (EINVAL) before disksize is set.
    """
    path = _path(device)
    return "".join(
        f"{bucket.start:8d} {'-' if bucket.end is None else bucket.end:>8} {bucket.pages:8d} "
        f"{bucket.bytes_stored:12d} {bucket.idle_pages:8d}\n"
        for bucket in age_buckets(path.table, device.clock())
    )


# writeback_preview ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preview:
    """What a writeback would do if nobody used the device meanwhile and no block failed."""

    question: str
    eligible: int
    """Pages that qualify, and the blocks that all of them would take."""
    pages: int
    """Pages that would be in the backing store before the pass ends."""
    writes: int
    """Blocks that would be written: more than `pages` when a page is named twice."""
    compr_data_freed: int
    """Bytes of their objects: by so much compr_data_size falls. Exact."""
    mem_used_freed: int
    """Bytes of pool pages: by so much mem_used_total falls. Exact with zsmalloc and malloc; see
    `Allocator.pages_freed_by` for others."""
    blocks_free: int
    """Free blocks of the backing store now."""
    budget: int | None
    """writeback_limit now, in units of 4 KiB; None when it is not enabled."""
    ends: str
    """OK; EIO: the budget is used up with eligible pages left; ENOSPC: the backing store is full then."""

    def __str__(self) -> str:
        """A line `name value` for each, in this order; a budget that does not count is "-"."""
        lines = {**self.__dict__, "budget": "-" if self.budget is None else self.budget}
        return "".join(f"{name} {value}\n" for name, value in lines.items())


def ask_preview(device: Device, question: str, select: Callable[[int], list[Selection]]) -> None:
    """Write writeback_preview: keep the answer for reading, until the next question or a reset. Raises as
    `preview_writeback`; the last answer stays then."""
    path = device.path
    answer = str(preview_writeback(device, question, select))
    with device.init_lock:
        if device.path is not path:
            raise _uninitialized()
        device.preview = answer


def preview_writeback(device: Device, question: str, select: Callable[[int], list[Selection]]) -> Preview:
    """What `write_back` would do with the same arguments.

    Raises what it raises before it selects anything: InvalidValue (EINVAL) before disksize is set, NoBackingDevice
    (ENODEV), and the errors of `select`.
    """
    path = _path(device)
    store = device.backing
    if store is None:
        raise NoBackingDevice("the device has no backing device", hint="reset it, then write backing_dev first")
    selections = select(path.table.nr_slots)
    slots: list[Column] = []
    sizes: list[Column] = []
    handles: list[Column] = []
    gather(path.table, selections, slots, sizes, handles=handles)
    budget = device.budget.limit if device.budget.enabled else None
    blocks_free = max(0, store.nr_blocks - store.bd_count)
    course = Course(budget, blocks_free, min(device.writeback_batch_size, MAX_BATCH), path.page_size >> 12)
    if not slots:
        return course.preview(question, 0, 0, 0)
    order = size_order(sizes)
    candidates = np.concatenate(slots)[order]
    eligible = len(np.unique(candidates))
    taken = course.run(candidates, eligible)
    lost_sizes = np.concatenate(sizes)[order][taken]
    lost_handles = np.concatenate(handles)[order][taken]
    freed = _pool_pages(path, lost_handles, lost_sizes)
    lost_bytes = int(lost_sizes.sum(dtype=np.int64))
    return course.preview(question, eligible, len(lost_sizes), lost_bytes, freed * path.page_size)


class Course:
    """How a pass would go: what stops it, and when. `budget` in units of 4 KiB (None: any), `units` a page."""

    def __init__(self, budget: int | None, blocks_free: int, batch_size: int, units: int) -> None:
        self.budget = budget
        self.blocks_free = blocks_free
        self.batch_size = batch_size
        self.units = units
        self.writes = 0
        self.ends = "OK"

    def run(self, candidates: Column, eligible: int) -> Sequence[int] | slice:
        """Positions of the candidates that are written back; `eligible`: how many different pages they are."""
        if eligible == len(candidates):
            return slice(self._stop(eligible))
        return self._walk(candidates.tolist())

    def _stop(self, eligible: int) -> int:
        """How many of `eligible` pages, each named once, are written."""
        self.writes = min(eligible, self.blocks_free)
        if eligible > self.blocks_free:
            self.ends = "ENOSPC"
        if self.budget is not None:
            affordable = -(-self.budget // self.units)
            # As in the pass, the budget is looked at before a block is.
            if affordable < eligible and affordable <= self.blocks_free:
                self.writes, self.ends = affordable, "EIO"
        return self.writes

    def _walk(self, candidates: list[int]) -> list[int]:
        """Positions of the candidates that are written back, when some are named twice.

        Within a batch such a page is written twice, and one block is given back at its end; in a later batch it has
        lost its token and is passed over, but only after the budget and the blocks were looked at.
        """
        budget, free = self.budget, self.blocks_free
        gone: set[int] = set()
        batch: set[int] = set()
        in_flight = 0
        taken: list[int] = []
        for position, slot in enumerate(candidates):
            if budget is not None and budget <= 0:
                self.ends = "EIO"
                break
            if not free:
                self.ends = "ENOSPC"
                break
            if slot in gone:
                continue
            if slot not in batch:
                batch.add(slot)
                taken.append(position)
            in_flight += 1
            free -= 1
            self.writes += 1
            if budget is not None:
                budget -= self.units
            if in_flight == self.batch_size:
                free += in_flight - len(batch)
                gone |= batch
                batch.clear()
                in_flight = 0
        return taken

    def preview(self, question: str, eligible: int, pages: int, freed: int, pool: int = 0) -> Preview:
        """The answer."""
        return Preview(question, eligible, pages, self.writes, freed, pool, self.blocks_free, self.budget, self.ends)


def _pool_pages(path: DataPath, handles: Column, sizes: Column) -> int:
    try:
        return path.allocator.pages_freed_by(handles.tolist(), sizes.tolist())
    except ZramError:
        raise
    except Exception:
        if path.closed:
            raise _uninitialized() from None
        raise


def _path(device: Device) -> DataPath:
    path = device.path
    if path is None:
        raise _uninitialized()
    return path


def _uninitialized() -> InvalidValue:
    return InvalidValue("the device is not initialised", hint="write disksize first")
