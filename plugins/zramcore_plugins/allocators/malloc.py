"""malloc: one Python bytes object per slot in a dict, the simple yardstick.

It shows what the classes and the compaction of zsmalloc cost and gain. Freed memory goes back to Python's own
allocator, rarely to the system. Nothing but what does not shrink at all is stored raw, as no class is too small for it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from zramcore.errors import InvalidValue, NoMemory, NoSpace
from zramcore.interfaces import Allocator, Buffer


class Malloc(Allocator):
    """Objects of any size, each as long as its data; pages_used is the sum of their lengths, rounded up to pages."""

    name = "malloc"
    summary = "one Python object per page, no size classes: the yardstick for the others"

    def __init__(self, page_size: int, max_objects: int) -> None:
        super().__init__(page_size, max_objects)
        self.huge_class_size = page_size
        self._objects: dict[int, bytes] = {}
        self._free_handles: list[int] = []
        self._highest = 0
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def pages_used(self) -> int:
        return -(-self._bytes // self.page_size)

    def alloc(self, size: int) -> int:
        """Raises InvalidValue (EINVAL) for size 0, NoSpace (ENOSPC) for more than a page, NoMemory (ENOMEM)."""
        if size < 1:
            raise InvalidValue(f"malloc: an object of {size} bytes")
        if size > self.page_size:
            raise NoSpace(f"malloc: an object of {size} bytes, more than a page of {self.page_size}")
        with self._lock:
            if len(self._objects) >= self.max_objects:
                raise NoMemory(f"all {self.max_objects} handles are in use")
            if self._free_handles:
                handle = self._free_handles.pop()
            else:
                self._highest = handle = self._highest + 1
            self._objects[handle] = bytes(size)
            self._bytes += size
            return handle

    def write(self, handle: int, data: Buffer) -> None:
        content = bytes(data)
        with self._lock:
            if len(content) != len(self._get(handle)):
                raise InvalidValue(f"malloc: {len(content)} bytes for an object of {len(self._objects[handle])}")
            self._objects[handle] = content

    def view(self, handle: int, size: int) -> Buffer:
        """The bytes object itself. Raises InvalidValue (EINVAL) for a handle that is free."""
        content = self._get(handle)
        return content if len(content) == size else memoryview(content)[:size]

    def free(self, handle: int) -> None:
        """Raises InvalidValue (EINVAL) for a handle that is not allocated."""
        with self._lock:
            self._bytes -= len(self._get(handle))
            del self._objects[handle]
            self._free_handles.append(handle)

    def pages_freed_by(self, handles: Sequence[int], sizes: Sequence[int]) -> int:
        """Exact."""
        return self.pages_used - -(-(self._bytes - sum(sizes)) // self.page_size)

    def compact(self) -> int:
        """Objects lie where Python put them: nothing moves, 0 pages are freed."""
        return 0

    def close(self) -> None:
        with self._lock:
            self._objects.clear()
            self._free_handles.clear()
            self._bytes = 0

    def _get(self, handle: int) -> bytes:
        try:
            return self._objects[handle]
        except KeyError:
            hint = "it was freed, or never handed out"
            raise InvalidValue(f"malloc: handle {handle} is not allocated", hint=hint) from None
