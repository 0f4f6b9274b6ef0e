"""How much memory objects of given sizes take: the classes of a real allocator, filled without gaps.

That is the pool as `compact` leaves it. Between compactions a real one has zspages that are partly empty.
"""

from __future__ import annotations

import numpy as np

from ..errors import NotSupported
from ..interfaces import Allocator
from .trace import Array


class PoolModel:
    """Counts objects by size class. `zsmalloc`'s classes are read from its own table; an allocator without such
    classes takes the bytes of its objects."""

    def __init__(self, allocator: Allocator) -> None:
        self.page_size = allocator.page_size
        self.huge_class_size = allocator.huge_class_size
        sizes = np.arange(self.page_size + 1)
        self.lookup = np.array([allocator.size_class(max(1, int(size))) for size in sizes])
        """Size in bytes -> the class that recompression compares by."""
        rows = _class_rows(allocator)
        if rows:
            edges, self._pages = (np.array(column) for column in zip(*rows, strict=True))
            self._objects = self._pages * self.page_size // edges
            # an object has its handle (8 bytes) with it, but for a whole page
            self.class_of = np.minimum(np.searchsorted(edges, sizes + 8), len(edges) - 1)
        else:
            self._pages, self._objects = np.zeros(0, np.int64), np.ones(0, np.int64)
            self.class_of = np.zeros(len(sizes), np.int64)
        self._counts = np.zeros(len(self._pages), np.int64)
        self._bytes = 0
        self._used: int | None = 0
        self._scale = 1.0

    @property
    def used(self) -> int:
        """Bytes of pool pages: mem_used_total."""
        if self._used is None:
            whole, rest = self._parts()
            self._used = whole + round(rest * self._scale)
        return self._used

    def fit(self, used: int) -> None:
        """Take it that the objects take `used` bytes now, and in proportion later; a huge page always takes a page."""
        whole, rest = self._parts()
        self._scale = max(0, used - whole) / rest if rest else 1.0
        self._used = None

    def _parts(self) -> tuple[int, int]:
        """Bytes of the pages of huge objects, and of the others."""
        if not len(self._counts):
            return 0, -(-self._bytes // self.page_size) * self.page_size
        pages = -(-self._counts // self._objects) * self._pages * self.page_size
        return int(pages[-1]), int(pages[:-1].sum())

    def move(self, freed: Array, stored: Array) -> None:
        """Free objects of some sizes (1 to page_size), and store some of others."""
        self._used = None
        if len(self._counts):
            signed = np.bincount(self.class_of[stored], minlength=len(self._counts))
            self._counts += signed - np.bincount(self.class_of[freed], minlength=len(self._counts))
        else:
            self._bytes += int(stored.sum()) - int(freed.sum())


def _class_rows(allocator: Allocator) -> list[tuple[int, int]]:
    """Size and pages a zspage of each class, smallest first; none for an allocator without classes."""
    try:
        text = allocator.classes()
    except NotSupported:
        return []
    head, *lines = text.splitlines()
    pages = head.split().index("pages_per_zspage")
    rows = [line.split() for line in lines]
    return [(int(row[1]), int(row[pages])) for row in rows if row and row[0].isdigit()]
