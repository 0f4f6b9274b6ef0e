"""SimulatedDevice: the slots of a device without their data, to which a trace's accesses happen many at a time.

The rows are those of a real slot table, and what a pass selects is decided by the code of the real one. Only what a
page's contents would decide, its sizes, comes from outside; and passes take no time, so that no access falls into one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..budget import WriteBudget
from ..errors import BudgetExhausted, InvalidValue, NoBackingDevice, NoSpace
from ..insight import Course
from ..pass_grammar import parse_recompress, parse_writeback
from ..pool_pages import KEPT_FLAGS
from ..postprocess import MAX_BATCH, Mode, Selection, gather, size_order
from ..recompress import SECONDARY, RecompressRequest
from ..slot_table import (
    HUGE,
    IDLE,
    INCOMPRESSIBLE,
    PRIORITY_MASK,
    PRIORITY_SHIFT,
    SAME,
    SIZE_MASK,
    WB,
    SlotTable,
    in_memory,
)
from .accesses import UPTIME, Accesses, Written
from .ages import AgeIndex
from .idle import NOT_IDLE, IdleOrder
from .pool import PoolModel
from .sizes import PageSizes
from .trace import READ, SECOND, WRITE, Array


@dataclass(frozen=True)
class Setup:
    """What a simulated device is set up as. `algorithms`: priority and name, the primary first; `blocks` of the
    backing device, in pages, None without one; `backing_dev` and `listing` are what the attributes show."""

    name: str
    nr_pages: int
    page_size: int = 4096
    algorithms: tuple[tuple[int, str], ...] = ((0, "lz4"),)
    blocks: int | None = None
    backing_dev: str = "none"
    compressed_writeback: bool = False
    batch_size: int = 32
    mem_limit_pages: int = 0
    writeback_limit: int = 0
    writeback_limit_enable: bool = False
    capabilities: frozenset[str] | None = None


class SimulatedDevice:
    """A device with the pages of a trace. `clock` gives boot seconds; `sizes` has a row for each algorithm of `setup`.

    Counters are as in Stats; `rereads` counts reads of written-back pages, `data_seconds` is the integral of
    compr_data_size over the trace's time, from its start to its end, in byte seconds.
    """

    def __init__(
        self, setup: Setup, pool: PoolModel, sizes: PageSizes, accesses: Accesses, clock: Callable[[], int]
    ) -> None:
        self.setup = setup
        self.pool = pool
        self.accesses = accesses
        self.trace = trace = accesses.trace
        self.clock = clock
        self.table = SlotTable(setup.nr_pages)
        self.table.touch(0, setup.nr_pages)
        self.seconds = accesses.seconds
        self.ages = AgeIndex(max(int(self.seconds[-1]) if len(self.seconds) else 0, UPTIME + trace.end // SECOND) + 1)
        self.order = IdleOrder(self.table, trace.page, self.seconds)
        self.done = 0
        """Accesses of the trace that have happened."""
        self.budget = WriteBudget()
        self.budget.limit, self.budget.enabled = setup.writeback_limit, setup.writeback_limit_enable
        self.batch_size = setup.batch_size
        self.mem_limit_pages = setup.mem_limit_pages
        self.compr_data_size = self.huge_pages = 0
        self.bd_count = self.bd_reads = self.bd_writes = self.rereads = 0
        self.recompressed = 0
        self.peak = 0
        self.data_seconds = 0.0
        self.version = 0
        """Changes whenever an attribute may show something else."""
        self._units = setup.page_size >> 12
        self._sizes = {priority: sizes.sizes[row] for row, (priority, _) in enumerate(setup.algorithms)}
        primary = self._sizes[0]
        huge = primary >= pool.huge_class_size
        stored = np.where(huge, setup.page_size, primary).astype(np.uint32)
        flags = np.where(primary == 0, np.uint32(SAME), stored | np.where(huge, HUGE, 0).astype(np.uint32))
        self.written = Written(accesses, flags)

    # Accesses -----------------------------------------------------------------------------------------------------

    def apply(self, end: int) -> None:
        """Let the accesses up to number `end` happen."""
        first, self.done = self.done, max(self.done, end)
        if end <= first:
            return
        self.version += 1
        accesses, flags = self.accesses, self.table.flags
        page, kind = self.trace.page[first:end], self.trace.kind[first:end]
        change_before = accesses.change_before[first:end]
        before = flags[page]
        untouched = change_before < first
        again = int(np.count_nonzero((kind == READ) & untouched & ((before & WB) != 0)))
        self.rereads += again
        self.bd_reads += again * self._units
        self._change_data(first, page, kind, change_before, before)
        # the last access of each page decides what is left of it
        last = np.flatnonzero(accesses.following[first:end] >= end)
        slots, before = page[last], before[last]
        change = np.where(kind[last] == READ, change_before[last], first + last)
        changed = change >= first
        written = changed & (self.trace.kind[change] == WRITE)
        after = np.where(written, self.written.flags[slots], np.where(changed, 0, before & NOT_IDLE))
        self.bd_count -= int(np.count_nonzero(changed & ((before & WB) != 0)))
        seconds_before = self.table.ac_times[slots]
        held = after != 0
        flags[slots] = after
        self.table.ac_times[slots] = seconds = np.where(held, self.seconds[first + last], 0)
        self.order.last_access[slots] = np.where(held, first + last, -1)
        self._count(before, seconds_before, after, seconds)
        self.peak = max(self.peak, self.pool.used)

    def _change_data(self, first: int, page: Array, kind: Array, change_before: Array, before: Array) -> None:
        """Count what the writes and frees of a batch change in compr_data_size, and until the end of the trace."""
        which = np.flatnonzero(kind != READ)
        if not len(which):
            return
        written = (self.written.flags[page[which]] & SIZE_MASK).astype(np.int64)
        new = np.where(kind[which] == WRITE, written, 0)
        earlier = change_before[which]
        flags = before[which]
        stored = np.where((flags & WB) == 0, flags & SIZE_MASK, 0)
        in_batch = np.where(self.trace.kind[earlier] == WRITE, written, 0)
        change = new - np.where(earlier >= first, in_batch, stored)
        left = (self.trace.end - np.maximum(0, self.trace.time[first + which])) / SECOND
        self.compr_data_size += int(change.sum())
        self.data_seconds += float((change * left).sum())

    def _count(self, before: Array, seconds_before: Array, after: Array, seconds: Array) -> None:
        """Move pages in the pool, the ages and the number of huge ones, from what their flags and seconds were."""
        was, now = in_memory(before), in_memory(after)
        sizes_before, sizes = (before[was] & SIZE_MASK).astype(np.int64), (after[now] & SIZE_MASK).astype(np.int64)
        self.huge_pages += int(np.count_nonzero(after[now] & HUGE)) - int(np.count_nonzero(before[was] & HUGE))
        self.pool.move(sizes_before, sizes)
        signs = np.ones(len(sizes_before) + len(sizes), np.int64)
        signs[: len(sizes_before)] = -1
        self.ages.change(
            np.concatenate([seconds_before[was], seconds[now]]).astype(np.int64),
            np.concatenate([sizes_before, sizes]),
            np.concatenate([before[was], after[now]]) & IDLE != 0,
            signs,
        )

    def assume(self, slots: Array, flags: Array) -> None:
        """Have these pages be in the state that `flags` say, as another device has them."""
        self._become(slots, flags)
        self.data_seconds = 0.0
        idle = (flags & IDLE) != 0
        self.order.assume(slots[idle], slots[~idle], self.done)

    # Passes -------------------------------------------------------------------------------------------------------

    def mark_idle(self, age: int | None) -> None:
        """Mark pages idle: all in memory, or those older than `age` seconds, unmarking the younger ones."""
        self.version += 1
        if age is None:
            marked, unmarked = self.order.mark_all(self.done)
        else:
            marked, unmarked = self.order.mark_older(self.clock() - age, self.done)
        for pages, sign in ((marked, 1), (unmarked, -1)):
            seconds = self.table.ac_times[pages].astype(np.int64)
            self.ages.mark(seconds, sign)

    def _select(self, selections: list[Selection], excluded: int = 0) -> tuple[Array, Array]:
        """The slots and sizes that a pass would choose, in its order."""
        slots: list[Array] = []
        sizes: list[Array] = []
        for selection in selections:
            whole = selection.first == 0 and selection.end >= self.setup.nr_pages
            if whole and selection.mode.all_of & IDLE:
                self._among_idle(selection.mode, slots, sizes, excluded)
            else:
                gather(self.table, [selection], slots, sizes, excluded=excluded)
        if not slots:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        order = size_order(sizes)
        return np.concatenate(slots)[order], np.concatenate(sizes)[order].astype(np.int64)

    def _among_idle(self, mode: Mode, slots: list[Array], sizes: list[Array], excluded: int) -> None:
        pages = self.order.idle_pages()
        flags = self.table.flags[pages]
        wanted = ((flags & mode.all_of) == mode.all_of) & ((flags & excluded) == 0)
        if wanted.any():
            slots.append(pages[wanted])
            sizes.append(flags[wanted] & SIZE_MASK)

    def write_back(self, text: str) -> None:
        """A writeback pass. Raises what the real one raises: InvalidValue, OutOfRange, NoBackingDevice (ENODEV),
        BudgetExhausted (EIO) and NoSpace (ENOSPC) when pages are left."""
        blocks = self.setup.blocks
        if blocks is None:
            raise NoBackingDevice("the device has no backing device", hint="give it a backing_dev")
        selections = parse_writeback(text, self.setup.nr_pages)
        slots, _ = self._select(selections)
        limit = self.budget.limit if self.budget.enabled else None
        batch_size = min(self.batch_size, MAX_BATCH)
        course = Course(limit, max(0, blocks - self.bd_count), batch_size, self._units)
        if len(slots):
            eligible = len(slots) if len(selections) == 1 else len(np.unique(slots))
            taken = slots[course.run(slots, eligible)]
            self.budget.charge(course.writes * self._units)
            self.bd_writes += course.writes * self._units
            self.bd_count += len(taken)
            kept = KEPT_FLAGS | np.uint32(SIZE_MASK if self.setup.compressed_writeback else 0)
            self._become(taken, self.table.flags[taken] & kept | np.uint32(WB))
        if course.ends == "EIO":
            raise BudgetExhausted("the write budget is used up and eligible pages are left")
        if course.ends == "ENOSPC":
            raise NoSpace(f"all {blocks} blocks of the backing device are used")

    def recompress(self, text: str) -> None:
        """A recompression pass. Raises InvalidValue (EINVAL) as the real one does."""
        request = parse_recompress(text)
        if request.threshold >= self.pool.huge_class_size:
            raise InvalidValue(f"threshold must be less than {self.pool.huge_class_size} bytes")
        priority = self._priority(request)
        whole = [Selection(0, self.setup.nr_pages, request.mode)]
        slots, sizes = self._select(whole, INCOMPRESSIBLE)
        flags = self.table.flags[slots]
        tried = ((flags >> PRIORITY_SHIFT & 3) < priority) & (sizes >= request.threshold)
        slots, sizes, flags = (column[tried][: request.max_pages] for column in (slots, sizes, flags))
        if not len(slots):
            return
        new = np.clip(self._sizes[priority][slots], 1, self.setup.page_size)
        smaller = self.pool.lookup[new] < self.pool.lookup[sizes]
        if request.threshold:
            smaller &= new < request.threshold
        failed = flags & NOT_IDLE | np.uint32(INCOMPRESSIBLE)
        dropped = np.uint32(~(SIZE_MASK | PRIORITY_MASK | HUGE | IDLE) & 0xFFFFFFFF)
        better = flags & dropped | new.astype(np.uint32) | np.uint32(priority << PRIORITY_SHIFT)
        self.recompressed += int(np.count_nonzero(smaller))
        self._become(slots, np.where(smaller, better, failed), forget=smaller)
        self.order.loosen(slots)

    def _priority(self, request: RecompressRequest) -> int:
        secondary = {priority: name for priority, name in self.setup.algorithms if priority >= SECONDARY}
        priority = request.priority
        if request.algorithm is not None:
            named = [number for number, name in sorted(secondary.items()) if name == request.algorithm]
            if not named:
                raise InvalidValue(f"algorithm {request.algorithm!r} is not a secondary algorithm of this device")
            priority = named[0]
        if priority not in secondary:
            raise InvalidValue(f"priority {priority} has no secondary algorithm")
        return priority

    def _become(self, slots: Array, after: Array, forget: Array | None = None) -> None:
        """Give slots new flags now; `forget`: which of them lose their access time."""
        self.version += 1
        before, seconds_before = self.table.flags[slots], self.table.ac_times[slots]
        self.table.flags[slots] = after
        if forget is not None:
            forgotten = slots[forget]
            self.table.ac_times[forgotten] = 0
            self.order.last_access[forgotten] = -1
        self._count(before, seconds_before, after, self.table.ac_times[slots])
        change = sum(
            sign * int((flags[in_memory(flags)] & SIZE_MASK).sum(dtype=np.int64))
            for sign, flags in ((1, after), (-1, before))
        )
        self.compr_data_size += change
        self.data_seconds += change * (self.trace.end / SECOND - (self.clock() - UPTIME))
