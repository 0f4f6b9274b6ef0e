"""Lockstep: one device and its model, driven together. Every operation does both, and compares what they answer.

The state machine (machine.py) and the random walk (walk.py) only choose operations; what is right is decided here and
in model.py. The device's backing driver is a FaultyDriver, so that blocks can be made bad. `check` looks past the
device's own reading, at the rows, the pool and the blocks themselves, and so disturbs nothing.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from .. import attributes
from ..device import Device
from ..errors import ZramError
from ..interfaces import BackingDriver, Catalogue, CompressorParams
from ..slot_table import HUGE, IDLE, INCOMPRESSIBLE, PRIORITY_SHIFT, SAME, SIZE_MASK, WB
from .faults import FaultyDriver
from .inspection import Clock, check_consistent, peek, stat
from .model import DeviceModel, Page, Place, Range

_numbers = itertools.count()


def attempt(call: Callable[..., Any], *arguments: Any) -> tuple[Any, ZramError | None]:
    """What a call returned, or the ZramError it raised."""
    try:
        return call(*arguments), None
    except ZramError as error:
        return None, error


class Lockstep:
    """A device and its model. Operations raise AssertionError where the two differ; `operations` counts
    them, and `faults_met` the reads and writes that failed as they should."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        page_size: int = 4096,
        nr_pages: int = 64,
        blocks: int = 48,
        algorithm: str | None = None,
        secondary: str | None = None,
        allocator: str | None = None,
        deep_every: int = 16,
    ) -> None:
        """Names default to the first of their kind. `deep_every`: operations between two looks at every page."""
        drivers: dict[str, type[BackingDriver]] = {**catalogue.backing_drivers, FaultyDriver.name: FaultyDriver}
        self.catalogue = replace(catalogue, backing_drivers=drivers)
        self.algorithm = algorithm or next(iter(catalogue.compressors))
        self.secondary = secondary
        self.allocator = allocator or next(iter(catalogue.allocators))
        self.blocks = blocks
        self.nr_pages = nr_pages
        self.deep_every = deep_every
        self.clock = Clock()
        self.device = Device(self.catalogue, "zram0", page_size=page_size, clock=self.clock)
        self.medium = f"lockstep{next(_numbers)}"
        self.operations = 0
        self.faults_met = 0
        self.failed_reads = self.failed_writes = 0
        self.budget: int | None = None
        self.batch = 32
        self.mem_limit = False
        self._sizes: dict[tuple[int, bytes], int] = {}
        self.set_up(compressed_writeback=False)

    # Life ---------------------------------------------------------------------------------------------------------

    def store(self, name: str, text: str) -> None:
        """Write an attribute of the device."""
        attributes.store(self.device, name, text)

    def set_up(self, compressed_writeback: bool) -> None:
        """Configure and initialise the device, in the kernel's order, and make a fresh model of it."""
        self.store("comp_algorithm", self.algorithm)
        if self.secondary is not None:
            self.store("recomp_algorithm", f"algo={self.secondary} priority=1")
        self.store("allocator", self.allocator)
        self.store("backing_dev", f"{FaultyDriver.name}:{self.medium},blocks={self.blocks}")
        self.store("compressed_writeback", str(int(compressed_writeback)))
        self.store("disksize", str(self.nr_pages * self.device.page_size))
        path = self.device.path
        assert path is not None, "disksize initialises the device"
        self.driver = FaultyDriver.named(self.medium)
        self.model = DeviceModel(
            page_size=self.device.page_size,
            nr_pages=self.nr_pages,
            compress=[self._sizer(name) for name in (self.algorithm, self.secondary)],
            huge_class_size=path.allocator.huge_class_size,
            size_class=path.allocator.size_class,
            clock=self.clock,
            compressed_writeback=compressed_writeback,
        )
        self.failed_reads = self.failed_writes = 0
        self.mem_limit = False

    def _sizer(self, name: str | None) -> Callable[[bytes], int] | None:
        if name is None:
            return None
        context = self.catalogue.compressors[name](CompressorParams(self.device.page_size)).create_context()
        return lambda page: len(context.compress_page(page))

    def close(self) -> None:
        """Reset the device, so that nothing of it stays open."""
        with suppress(ZramError):
            self.device.reset()
        FaultyDriver.forget(self.medium)

    def reset(self, compressed_writeback: bool = False) -> None:
        """Reset, check what is forgotten and what is kept, and start again."""
        kept = {name: attributes.show(self.device, name) for name in SURVIVES_RESET}
        self.store("reset", "1")
        self.driver.bad_blocks.clear()
        assert self.driver.closed, "reset left the backing device open"
        assert stat(self.device, "mm_stat") == [0] * 9, "reset left something in mm_stat"
        assert {name: attributes.show(self.device, name) for name in SURVIVES_RESET} == kept, "reset forgot a setting"
        assert self.device.pread(0, 4096) == b"", "a device without disksize returned data"
        self.set_up(compressed_writeback)
        self._done(deep=True)

    # I/O ----------------------------------------------------------------------------------------------------------

    def write(self, offset: int, data: bytes) -> None:
        """pwrite: everything up to the end of the device, or, at mem_limit, the pages before the one that fails."""
        unreadable = self._bad_partial(offset, len(data))
        before = self._rows() if unreadable or self.mem_limit else []
        written, error = attempt(self.device.pwrite, offset, data)
        if error is None:
            assert not unreadable, "part of an unreadable page was written"
            assert written == self.model.write(offset, data), f"pwrite returned {written}"
        elif offset >= len(self.model.data):
            assert error.errno == errno.ENOSPC, f"a write past the end: {error}"
        else:
            assert error.errno == errno.EIO, f"a write failed: {error}"
            assert self.mem_limit or unreadable, f"a write failed without a reason: {error}"
            self.failed_writes += 1
            self.faults_met += 1
            self._adopt_write(offset, data, before)
        self._done()

    def _bad_partial(self, offset: int, length: int) -> bool:
        return any(
            stop - start < self.device.page_size and self._is_bad(index)
            for index, start, stop in self.model.spans(offset, length)
        )

    def _is_bad(self, index: int) -> bool:
        """Whether the page is in a block that cannot be read."""
        if self.model.pages[index].place is not Place.BLOCK or self.device.path is None:
            return False
        return self.device.path.table.handles_row[index] in self.driver.bad_blocks

    def _rows(self) -> list[tuple[bool, int]]:
        """For each page, whether it is in a block, and its handle: what changes when it is written."""
        assert self.device.path is not None, "the device is initialised"
        table = self.device.path.table
        rows = range(self.nr_pages)
        return [(table.flags_row[index] & WB != 0, table.handles_row[index]) for index in rows]

    def _adopt_write(self, offset: int, data: bytes, before: list[tuple[bool, int]]) -> None:
        """After a failed write: pages before the one that failed are new, that one and the others old.

        A new object exists before the old one is freed, so its handle differs; same-filled pages never fail.
        """
        model, rows, done, failed = self.model, self._rows(), 0, False
        for index, start, stop in model.spans(offset, len(data)):
            new = model.changed(index, start, stop, data[done : done + stop - start])
            done += stop - start
            if not failed:
                model.count_partial(index, start, stop)
                failed = rows[index] == before[index] and new != new[:8] * (len(new) // 8)
            if not failed:
                model.write_page(index, new)
            assert peek(self.device, index) == model.content(index), f"page {index} after a failed write"
        assert failed, "a write failed, and every page was written"

    def read(self, offset: int, length: int, into: bool = False) -> None:
        """pread or pread_into: the model's bytes, or EIO when a block is bad."""
        bad = any(self._is_bad(index) for index, _, _ in self.model.spans(offset, length))
        found, error = attempt(self._pread_into if into else self.device.pread, offset, length)
        if error is None:
            assert not bad, "a bad block was read"
            assert found == self.model.read(offset, length), f"pread({offset}, {length}) returned other bytes"
        else:
            assert error.errno == errno.EIO, f"a read failed: {error}"
            assert bad, f"a read failed without a reason: {error}"
            self.failed_reads += 1
            self.faults_met += 1
            self._adopt_accessed(offset, length)
        self._done()

    def _pread_into(self, offset: int, length: int) -> bytes:
        buffer = bytearray(length)
        return bytes(buffer[: self.device.pread_into(offset, buffer)])

    def _adopt_accessed(self, offset: int, length: int) -> None:
        """After a failed read: how far it came shows in the access times and in bd_reads."""
        for index, _, _ in self.model.spans(offset, length):
            page, now = self.model.pages[index], self._page(index)
            assert now.idle <= page.idle, "a failed read marked a page idle"
            page.idle, page.ac_time = now.idle, now.ac_time
        self.model.bd_reads = stat(self.device, "bd_stat")[1]

    def discard(self, offset: int, length: int) -> None:
        """Free whole pages; EINVAL and nothing done past the end."""
        self._ranged(self.device.discard, self.model.discard, offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Zero a range; EINVAL and nothing done past the end."""
        if self._bad_partial(offset, length) or self.mem_limit:
            return  # what a half-done request leaves is for tests that look closer
        self._ranged(self.device.write_zeroes, self.model.write_zeroes, offset, length)

    def _ranged(self, real: Callable[[int, int], None], model: Callable[[int, int], None], at: int, size: int) -> None:
        _, error = attempt(real, at, size)
        if error is None:
            assert at + size <= len(self.model.data), "a range past the end was accepted"
            model(at, size)
        else:
            assert error.errno == errno.EINVAL, f"a range: {error}"
            assert at + size > len(self.model.data), f"a range within the device was refused: {error}"
        self._done()

    # Passes and settings ------------------------------------------------------------------------------------------

    def idle(self, age: int | None) -> None:
        """`echo all > idle`, or an age in seconds."""
        self.store("idle", "all" if age is None else str(age))
        self.model.mark_idle(age)
        self._done()

    def writeback_failing(self, text: str, ranges: Sequence[Range], times: int, stored: int) -> None:
        """A pass whose first `times` writes fail, after `stored` blocks of each have been written."""
        self.driver.fail_write(1, errno.EIO, times, stored)
        self.writeback(text, ranges, healthy=False)
        self.driver.heal()

    def writeback(self, text: str, ranges: Sequence[Range], healthy: bool = True) -> None:
        """A pass; `ranges` is what `text` means. Unless the medium is `healthy`, what it managed is taken over."""
        model = self.model
        healthy = healthy and not self.driver.bad_blocks
        before, budget = stat(self.device, "bd_stat"), self.budget
        candidates = model.candidates(ranges)
        _, error = attempt(self.store, "writeback", text)
        failed = None if error is None else error.errno
        if healthy:
            free = self.blocks - model.totals().bd_count // model.units
            expected, self.budget = model.write_back(ranges, budget, free, self.batch)
            assert failed == expected, f"writeback {text}: errno {failed}, not {expected}"
        else:
            moved = [index for index in set(candidates) if self._page(index).place is Place.BLOCK]
            for index in moved:
                model.moved(index)
            model.bd_writes = stat(self.device, "bd_stat")[2]
            written = model.bd_writes - before[2]
            assert written >= len(moved) * model.units, "bd_writes missed a page"
            if budget is not None:
                self.budget = budget - written
            assert failed in (None, errno.EIO, errno.ENOSPC), f"writeback {text}: errno {failed}"
            if failed is None:
                assert set(moved) == set(candidates), "a pass left pages behind and said nothing"
        if self.budget is not None:
            assert int(attributes.show(self.device, "writeback_limit")) == self.budget, "the budget does not add up"
        self._done(deep=True)

    def recompress(self, mode: str, threshold: int = 0, max_pages: int | None = None) -> None:
        """A pass with the secondary algorithm; EINVAL when there is none or the threshold is huge."""
        words = [] if mode == "any" else [f"type={mode}"]
        words += [f"threshold={threshold}"] if threshold else []
        words += [f"max_pages={max_pages}"] if max_pages is not None else []
        refused = self.secondary is None or threshold >= self.model.huge_class_size
        _, error = attempt(self.store, "recompress", " ".join([*words, "priority=1"]))
        if error is None:
            assert not refused, "recompress accepted what it must refuse"
            self.model.recompress(mode, 1, threshold, max_pages)
        else:
            assert error.errno == errno.EINVAL, f"recompress: {error}"
            assert refused, f"recompress was refused: {error}"
        self._done(deep=True)

    def set_budget(self, limit: int | None) -> None:
        """writeback_limit, or None to disable it."""
        units = self.model.units
        if limit is not None:
            self.store("writeback_limit", str(limit))
        self.store("writeback_limit_enable", str(int(limit is not None)))
        self.budget = None if limit is None else limit - limit % units
        self._done()

    def set_batch(self, size: int) -> None:
        """writeback_batch_size."""
        self.store("writeback_batch_size", str(size))
        self.batch = size
        self._done()

    def set_mem_limit(self, pages: int) -> None:
        """mem_limit in pages; 0 lifts it."""
        self.store("mem_limit", str(pages * self.device.page_size))
        self.mem_limit = pages > 0
        self._done()

    def compact(self) -> None:
        """Compaction moves objects and changes nothing else; the maximum then starts again."""
        used = stat(self.device, "mm_stat")[2]
        self.store("compact", "1")
        self.store("mem_used_max", "0")
        now = stat(self.device, "mm_stat")
        assert now[2] <= used, "compaction took memory"
        assert now[4] == now[2], "mem_used_max was not lowered"
        self._done(deep=True)

    def damage(self, block: int | None) -> None:
        """Make a block fail every read and write, or all of them sound again."""
        if block is None:
            self.driver.bad_blocks.clear()
        else:
            self.driver.bad_blocks[block] = errno.EIO

    # Comparing ----------------------------------------------------------------------------------------------------

    def _done(self, deep: bool = False) -> None:
        self.operations += 1
        self.compare_counters()
        if deep or self.operations % self.deep_every == 0:
            self.check()

    def compare_counters(self) -> None:
        """mm_stat, bd_stat and io_stat against the model."""
        model, mm = self.model, stat(self.device, "mm_stat")
        real = {
            "mm_stat without memory": [mm[0], mm[1], mm[5], mm[7], mm[8]],
            "bd_stat": stat(self.device, "bd_stat"),
            "io_stat": stat(self.device, "io_stat"),
        }
        totals = model.totals()
        wanted = {
            "mm_stat without memory": [
                totals.orig_data_size,
                totals.compr_data_size,
                totals.same_pages,
                totals.huge_pages,
                model.huge_pages_since,
            ],
            "bd_stat": [totals.bd_count, model.bd_reads, model.bd_writes],
            "io_stat": [self.failed_reads, self.failed_writes, 0, model.notify_free],
        }
        assert real == wanted, f"counters: {real}, the model says {wanted}"

    def _page(self, index: int) -> Page:
        """A row as the model would write it down."""
        path = self.device.path
        assert path is not None, "the device is initialised"
        flags = path.table.flags_row[index]
        size = flags & SIZE_MASK
        place = Place.SAME if flags & SAME else Place.BLOCK if flags & WB else Place.POOL if size else Place.NOWHERE
        bits = (flags & HUGE, flags & IDLE, flags & INCOMPRESSIBLE)
        huge, idle, incompressible = map(bool, bits)
        return Page(
            place, size, huge, idle, incompressible, flags >> PRIORITY_SHIFT & 3, path.table.ac_times_row[index]
        )

    def check(self) -> None:
        """Every row and every byte against the model."""
        check_consistent(self.device)
        for index, page in enumerate(self.model.pages):
            now = self._page(index)
            if page.place is Place.NOWHERE:
                assert now.place is Place.NOWHERE, f"page {index} came from nowhere: {now}"
            else:
                assert now == page, f"page {index}: {now}, the model says {page}"
            assert peek(self.device, index) == self.model.content(index), f"page {index} holds other bytes"


SURVIVES_RESET = ("writeback_limit", "writeback_limit_enable", "writeback_batch_size", "compressed_writeback")
"""What Linux 7.3.4 keeps over a reset (measured)."""
