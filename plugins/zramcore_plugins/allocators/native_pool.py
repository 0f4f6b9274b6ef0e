"""The pool in compiled code (zspool.h, _zspool.c). Importing this fails where it was not built.

Python reserves the address space and holds the mappings; the compiled part does everything that happens in them. It
decides as PurePool does, call for call.
"""

from __future__ import annotations

import contextlib
import mmap

from . import _zspool
from .address_space import reserve_arena, reserve_handles
from .class_table import ClassRow
from .pool import Pool
from .size_classes import distinct_classes

MOST_PAGES = (1 << 32) - 1
"""Pages are numbered with 32 bits."""


class NativePool(_zspool.Pool, Pool):
    """A zsmalloc pool, compiled. `view` and `arena` are read-only."""

    native = True

    def __init__(self, page_size: int, max_objects: int) -> None:
        Pool.__init__(self, page_size, max_objects)
        self._handles = reserve_handles(max_objects)
        self._map, size = reserve_arena(page_size, max_objects, self._zspage_bytes)
        start = self._zspage_bytes(size)
        whole = memoryview(self._map)
        memory = whole[start : start + min(size, MOST_PAGES * page_size)]
        rows = [(each.index, each.size, each.pages, each.objects) for each in distinct_classes(page_size)]
        _zspool.Pool.__init__(self, page_size, rows, memory, whole[:start], memoryview(self._handles))
        self._positions = memoryview(self._handles).toreadonly().cast("Q")
        self._memory = memory.toreadonly()
        self.arena = (self._positions, self._memory)

    def _zspage_bytes(self, size: int) -> int:
        """Bytes for the zspages of an arena of `size` bytes, which is aligned as its pages are."""
        length = size // self.page_size * _zspool.ZSPAGE_SIZE
        unit = max(self.page_size, mmap.PAGESIZE)
        return -(-length // unit) * unit

    def class_table(self) -> list[ClassRow]:
        return [ClassRow(*row) for row in self.class_rows()]

    def close(self) -> None:
        super().close()
        # A view that somebody still holds keeps the address space, but no memory.
        for let_go in (self._positions.release, self._memory.release, self._map.close, self._handles.close):
            with contextlib.suppress(BufferError):
                let_go()
