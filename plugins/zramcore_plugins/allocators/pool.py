"""What both forms of a zsmalloc pool are: the same name, the same classes, the same class table."""

from __future__ import annotations

import abc
from typing import ClassVar

from zramcore.interfaces import Allocator

from .class_table import ClassRow, format_class_table
from .size_classes import class_index, huge_class_size, merged_classes


class Pool(Allocator):
    """A zsmalloc pool, chain size 8, for pages of 4096, 16384 or 65536 bytes."""

    name = "zsmalloc"
    summary = "the kernel's size classes and compaction, page for page; freed pages go back to the system"
    native: ClassVar[bool] = False
    """Whether compiled code does the work."""

    def __init__(self, page_size: int, max_objects: int) -> None:
        """Reserves address space, no memory. Raises InvalidValue for another page size, NoMemory when the address
        space is limited to less than 64 MiB."""
        super().__init__(page_size, max_objects)
        self.huge_class_size = huge_class_size(page_size)
        self._merged = merged_classes(page_size)

    def size_class(self, size: int) -> int:
        """The kernel's zs_lookup_class_index: the merged class for `size` bytes, without room for a handle."""
        return self._merged[class_index(size, self.page_size)].index

    @abc.abstractmethod
    def class_table(self) -> list[ClassRow]:
        """What debugfs zsmalloc/zram0/classes shows, smallest class first."""

    def classes(self) -> str:
        return format_class_table(self.class_table())
