"""The arithmetic of zsmalloc's size classes; no state. Rules: mm/zsmalloc.c of Linux 6.9 and later, 64-bit.

Checked against the class table of Linux 7.3.4 (4 KiB pages, chain size 8). A class of index i holds objects of up to
`size` bytes, handle included, in zspages of 1..8 pages. Walking down from the biggest, a class whose zspages have as
many pages and objects as the class above is merged into that one, so 255 indexes make 119 classes at 4 KiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from zramcore.errors import InvalidValue

HANDLE_SIZE = 8
"""Bytes at the start of every object that hold its handle; a huge object has none."""
CHAIN_SIZE = 8
"""Most pages in a zspage (CONFIG_ZSMALLOC_CHAIN_SIZE, the kernel's default)."""
MIN_CLASS_SIZE = 32
PAGE_SIZES = (4096, 16384, 65536)


@dataclass(frozen=True)
class SizeClass:
    """A distinct class: its (merged) index, bytes per object, pages per zspage and objects per zspage."""

    index: int
    size: int
    pages: int
    objects: int

    @property
    def huge(self) -> bool:
        """One object per page, with its handle kept elsewhere, so that page_size bytes fit."""
        return self.pages == 1 and self.objects == 1


def class_index(size: int, page_size: int) -> int:
    """Index, before merging, of the class for `size` bytes, handle included."""
    if size <= MIN_CLASS_SIZE:
        return 0
    delta = page_size >> 8
    last = -(-(page_size - MIN_CLASS_SIZE) // delta)
    return min(last, -(-(size - MIN_CLASS_SIZE) // delta))


def chain_size(size: int, page_size: int) -> int:
    """Pages of a zspage of `size`-byte objects: the fewest that waste least."""
    if size & (size - 1) == 0:
        return 1
    return min(range(1, CHAIN_SIZE + 1), key=lambda pages: pages * page_size % size)


@cache
def merged_classes(page_size: int) -> tuple[SizeClass, ...]:
    """The class of every index, smallest first; merged indexes share one. Raises InvalidValue for another page size."""
    if page_size not in PAGE_SIZES:
        raise InvalidValue(f"zsmalloc has no classes for pages of {page_size} bytes", hint=f"known: {PAGE_SIZES}")
    delta = page_size >> 8
    by_index: list[SizeClass] = []
    for index in range(class_index(page_size, page_size), -1, -1):
        size = min(MIN_CLASS_SIZE + index * delta, page_size)
        pages = chain_size(size, page_size)
        objects = pages * page_size // size
        above = by_index[-1] if by_index else None
        if above is not None and (above.pages, above.objects) == (pages, objects):
            by_index.append(above)
        else:
            by_index.append(SizeClass(index, size, pages, objects))
    return tuple(reversed(by_index))


def distinct_classes(page_size: int) -> tuple[SizeClass, ...]:
    """The classes that exist after merging, smallest first."""
    return tuple(dict.fromkeys(merged_classes(page_size)))


@cache
def huge_class_size(page_size: int) -> int:
    """The smallest compressed length that would land in the huge class, in bytes: 3625 at 4 KiB."""
    biggest = next(each for each in reversed(merged_classes(page_size)) if each.pages != 1 and each.objects != 1)
    return biggest.size - (HANDLE_SIZE - 1)


NR_GROUPS = 12
"""Fullness groups: 0 empty, 1..9 up to 10..90 percent in use, 10 up to 99, 11 full."""
FULL_GROUP = NR_GROUPS - 1


def fullness_group(inuse: int, objects: int) -> int:
    """The fullness group of a zspage with `inuse` of its `objects` in use."""
    if inuse == 0:
        return 0
    if inuse == objects:
        return FULL_GROUP
    return 100 * inuse // objects // 10 + 1
