"""DeviceModel: a device as a plain bytearray and one small record per page. Obvious and slow, and nothing else.

It does in loops what the device does in batches, from the rules of the kernel's documentation rather than from the
device's code, so that the two can be compared after every operation (see lockstep.py).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

BUCKET = 64
"""Passes take the biggest objects first, in buckets of this many bytes; in a bucket, the last page first."""

Range = tuple[int, int, str]
"""First page, page after the last, and the mode that pages must meet: a key of WANTED."""


class Place(Enum):
    """Where a page is."""

    NOWHERE = "never written, or freed"
    SAME = "same-filled: only its word is kept"
    POOL = "an object in memory"
    BLOCK = "written back"


@dataclass(slots=True)
class Page:
    """What the device knows of one page. `size` is the object's, and stays known in a block of compressed data."""

    place: Place = Place.NOWHERE
    size: int = 0
    huge: bool = False
    idle: bool = False
    incompressible: bool = False
    priority: int = 0
    ac_time: int = 0


@dataclass(slots=True)
class Totals:
    """What the stats files say of the pages as they are now: bytes, pages, and blocks in units of 4 KiB."""

    orig_data_size: int = 0
    compr_data_size: int = 0
    same_pages: int = 0
    huge_pages: int = 0
    bd_count: int = 0


WANTED: dict[str, Callable[[Page], bool]] = {
    "idle": lambda page: page.idle,
    "huge": lambda page: page.huge,
    "huge_idle": lambda page: page.huge and page.idle,
    "incompressible": lambda page: page.incompressible,
    "idle_or_huge": lambda page: page.huge or page.idle,
    "any": lambda page: True,
}


class DeviceModel:
    """The bytes and pages of one initialised device.

    `compress[p]` gives the compressed size of a page with the algorithm of priority p (None: there is none);
    `size_class` the class by which recompression compares sizes.
    """

    def __init__(
        self,
        *,
        page_size: int,
        nr_pages: int,
        compress: Sequence[Callable[[bytes], int] | None],
        huge_class_size: int,
        size_class: Callable[[int], int],
        clock: Callable[[], int],
        compressed_writeback: bool = False,
    ) -> None:
        self.page_size = page_size
        self.nr_pages = nr_pages
        self.units = page_size // 4096
        self.data = bytearray(page_size * nr_pages)
        self.pages = [Page() for _ in range(nr_pages)]
        self.compress = compress
        self.huge_class_size = huge_class_size
        self.size_class = size_class
        self.clock = clock
        self.compressed_writeback = compressed_writeback
        self.bd_reads = self.bd_writes = self.huge_pages_since = self.notify_free = 0

    # What the stats files say -------------------------------------------------------------------------------------

    def totals(self) -> Totals:
        """Add up all pages."""
        totals = Totals()
        for page in self.pages:
            if page.place is Place.NOWHERE:
                continue
            totals.orig_data_size += self.page_size
            if page.place is Place.SAME:
                totals.same_pages += 1
            elif page.place is Place.BLOCK:
                totals.bd_count += self.units
            else:
                totals.compr_data_size += page.size
                totals.huge_pages += page.huge
        return totals

    # I/O ----------------------------------------------------------------------------------------------------------

    def content(self, index: int) -> bytes:
        """The bytes of one page."""
        return bytes(self.data[index * self.page_size : (index + 1) * self.page_size])

    def spans(self, offset: int, length: int) -> list[tuple[int, int, int]]:
        """A byte range, cut at the end of the device, as (page, first byte in it, byte after the last)."""
        end = min(offset + length, len(self.data))
        found = []
        while offset < end:
            index, start = divmod(offset, self.page_size)
            stop = min(self.page_size, start + end - offset)
            found.append((index, start, stop))
            offset += stop - start
        return found

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of a range; its pages are not idle any more."""
        for index, _, _ in self.spans(offset, length):
            page = self.pages[index]
            if page.place is Place.BLOCK:
                self.bd_reads += self.units
            page.idle = False
            page.ac_time = self.clock()
        return bytes(self.data[offset : offset + length])

    def changed(self, index: int, start: int, stop: int, data: bytes) -> bytes:
        """What the page would hold after `data` is written to its bytes start .. stop."""
        page = bytearray(self.content(index))
        page[start:stop] = data
        return bytes(page)

    def write_page(self, index: int, content: bytes) -> None:
        """Give a page new contents: it becomes same-filled, or an object of the primary algorithm."""
        self.data[index * self.page_size : (index + 1) * self.page_size] = content
        page = self.pages[index] = Page(ac_time=self.clock())
        if content == content[:8] * (self.page_size // 8):
            page.place = Place.SAME
            return
        primary = self.compress[0]
        assert primary is not None, "a device has a primary algorithm"
        size = primary(content)
        page.place = Place.POOL
        page.huge = size >= self.huge_class_size
        page.size = self.page_size if page.huge else size
        self.huge_pages_since += page.huge

    def write(self, offset: int, data: bytes) -> int:
        """Write a range; pages covered in part are read first."""
        done = 0
        for index, start, stop in self.spans(offset, len(data)):
            self.count_partial(index, start, stop)
            self.write_page(index, self.changed(index, start, stop, data[done : done + stop - start]))
            done += stop - start
        return done

    def count_partial(self, index: int, start: int, stop: int) -> None:
        """Writing part of a written-back page reads its block."""
        if stop - start < self.page_size and self.pages[index].place is Place.BLOCK:
            self.bd_reads += self.units

    def discard(self, offset: int, length: int) -> None:
        """Free the pages that are covered whole."""
        for index, start, stop in self.spans(offset, length):
            if stop - start == self.page_size:
                self.data[index * self.page_size : (index + 1) * self.page_size] = bytes(self.page_size)
                self.pages[index] = Page()
                self.notify_free += 1

    def write_zeroes(self, offset: int, length: int) -> None:
        """Free the pages that are covered whole, zero the parts of the others."""
        self.discard(offset, length)
        for index, start, stop in self.spans(offset, length):
            if stop - start < self.page_size:
                self.count_partial(index, start, stop)
                self.write_page(index, self.changed(index, start, stop, bytes(stop - start)))

    # Passes -------------------------------------------------------------------------------------------------------

    def mark_idle(self, age: int | None) -> None:
        """None: every page in the pool is idle. Otherwise those last accessed more than `age` seconds ago are, and
        the younger ones are not."""
        for page in self.pages:
            if page.place is Place.POOL:
                page.idle = age is None or page.ac_time < self.clock() - age

    def candidates(self, ranges: Sequence[Range]) -> list[int]:
        """The pages a pass would take, in its order; a page in two ranges comes twice."""
        found = [
            index
            for first, end, mode in ranges
            for index in range(first, end)
            if self.pages[index].place is Place.POOL and WANTED[mode](self.pages[index])
        ]
        in_order = sorted(enumerate(found), key=lambda item: (self.pages[item[1]].size // BUCKET, item[0]))
        return [index for _, index in reversed(in_order)]

    def moved(self, index: int) -> None:
        """A page went to a block. Its letters h, r and n stay."""
        page = self.pages[index]
        page.place = Place.BLOCK
        page.idle = False
        if not self.compressed_writeback:
            page.size = 0

    def write_back(
        self, ranges: Sequence[Range], budget: int | None, free_blocks: int, batch: int
    ) -> tuple[int | None, int | None]:
        """A pass over a healthy device; returns the errno it fails with (or None) and the budget that is left."""
        waiting = self.candidates(ranges)
        while waiting:
            taken: list[int] = []
            while waiting and len(taken) < batch:
                if budget is not None and budget <= 0:
                    self._complete(taken)
                    return errno.EIO, budget
                if free_blocks <= len(taken):
                    self._complete(taken)
                    return errno.ENOSPC, budget
                index = waiting.pop(0)
                if self.pages[index].place is Place.POOL:
                    taken.append(index)
                    if budget is not None:
                        budget = max(0, budget - self.units)
            free_blocks -= self._complete(taken)
        return None, budget

    def _complete(self, taken: Sequence[int]) -> int:
        """The writes of a batch are done; returns the blocks that stay in use. A page taken twice needs one."""
        used = 0
        for index in taken:
            self.bd_writes += self.units
            if self.pages[index].place is Place.POOL:
                self.moved(index)
                used += 1
        return used

    def recompress(self, mode: str, priority: int, threshold: int, max_pages: int | None) -> None:
        """Try the algorithm of `priority` on pages of at least `threshold` bytes, at most `max_pages` of them."""
        compress = self.compress[priority]
        assert compress is not None, "the caller checks that the priority has an algorithm"
        attempts = 0
        for index in self.candidates([(0, self.nr_pages, mode)]):
            page = self.pages[index]
            if page.incompressible or page.priority >= priority or page.size < threshold:
                continue
            if max_pages is not None and attempts >= max_pages:
                return
            attempts += 1
            size = min(self.page_size, compress(self.content(index)))
            page.idle = False
            if self.size_class(size) >= self.size_class(page.size) or (threshold and size >= threshold):
                page.incompressible = True
            else:
                page.size, page.priority, page.huge, page.ac_time = size, priority, False, 0
