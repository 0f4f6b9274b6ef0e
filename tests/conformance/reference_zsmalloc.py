"""A reference model of zsmalloc: slow, obvious, and written from the record of the kernel, not from zramcore.

It knows which zspage each object goes to, how many pages that takes and what compaction gives back; it holds no data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

# zsmalloc on 64 bits with CONFIG_ZSMALLOC_CHAIN_SIZE=8
MIN_ALLOC = 32
HANDLE_BYTES = 8
CHAIN_PAGES = 8
FULL = 11
"""Fullness groups are 0 (empty), 1 (below 10 %) ... 10 (90 % and more) and 11 (full)."""


@dataclass(eq=False)
class Zspage:
    """A few pages cut into objects of one class."""

    size_class: int
    free: list[int]
    """Free object indexes; the next to be handed out is the last."""
    used: dict[int, Object] = field(default_factory=dict)
    group: int | None = None
    """The fullness group it is filed in; None while it is in no list."""


@dataclass(eq=False)
class Object:
    """One allocated object: where it is now."""

    zspage: Zspage
    index: int


class Pool:
    """zsmalloc: which zspage each object goes to, and how many pages that takes."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.delta = page_size // 256
        self.last_class = -(-(page_size - MIN_ALLOC) // self.delta)
        self.huge_class_size = 0
        self.shape: dict[int, tuple[int, int]] = {}
        """Pages and objects per zspage of each class that is not merged into a bigger one."""
        self.merged: dict[int, int] = {}
        bigger = None
        for i in range(self.last_class, -1, -1):
            size = min(MIN_ALLOC + i * self.delta, page_size)
            pages = 1 if size & (size - 1) == 0 else min(range(1, CHAIN_PAGES + 1), key=lambda k: k * page_size % size)
            shape = (pages, pages * page_size // size)
            if 1 not in shape and not self.huge_class_size:
                self.huge_class_size = size - (HANDLE_BYTES - 1)
            if bigger is None or self.shape[bigger] != shape:
                bigger = i
                self.shape[i] = shape
            self.merged[i] = bigger
        self.lists: dict[int, list[list[Zspage]]] = {cls: [[] for _ in range(FULL + 1)] for cls in self.shape}
        self.pages = 0
        self.pages_compacted = 0

    def size_class(self, size: int) -> int:
        """The class of `size` bytes, handle not counted."""
        index = 0 if size <= MIN_ALLOC else -(-(size - MIN_ALLOC) // self.delta)
        return self.merged[min(index, self.last_class)]

    def malloc(self, size: int) -> Object:
        """From the first zspage of the fullest group that has room, or from a new one."""
        cls = self.size_class(size + HANDLE_BYTES)
        zspage = self._first(cls, range(FULL - 1, -1, -1))
        if zspage is None:
            pages, objects = self.shape[cls]
            zspage = Zspage(cls, free=list(range(objects - 1, -1, -1)))
            self.pages += pages
        obj = Object(zspage, -1)
        self._take(zspage, obj)
        self._file(zspage)
        return obj

    def free(self, obj: Object) -> None:
        """Give an object back; a zspage without objects is released at once."""
        self._give(obj)
        self._file(obj.zspage)
        self._release_if_empty(obj.zspage)

    def compact(self) -> None:
        """Empty the emptiest zspages into the fullest, class by class from the top."""
        for cls in sorted(self.shape, reverse=True):
            pages, objects = self.shape[cls]
            target: Zspage | None = None
            while True:
                listed = [zspage for group in self.lists[cls] for zspage in group]
                if sum(len(zspage.free) for zspage in listed + [target] * bool(target)) < objects:
                    break
                target = target or self._isolate(self._first(cls, range(FULL - 1, 0, -1)))
                source = self._isolate(self._first(cls, range(1, FULL)))
                if target is None or source is None:
                    break
                for index in sorted(source.used):
                    if target.free:
                        moved = source.used[index]
                        self._give(moved)
                        self._take(target, moved)
                self._file(source)
                if self._release_if_empty(source):
                    self.pages_compacted += pages
                if not target.free:
                    self._file(target)
                    target = None
            if target is not None:
                self._file(target)

    def _first(self, cls: int, groups: Iterable[int]) -> Zspage | None:
        return next((self.lists[cls][group][0] for group in groups if self.lists[cls][group]), None)

    def _isolate(self, zspage: Zspage | None) -> Zspage | None:
        if zspage is not None:
            self.lists[zspage.size_class][zspage.group].remove(zspage)
            zspage.group = None
        return zspage

    def _take(self, zspage: Zspage, obj: Object) -> None:
        obj.zspage, obj.index = zspage, zspage.free.pop()
        zspage.used[obj.index] = obj

    def _give(self, obj: Object) -> None:
        del obj.zspage.used[obj.index]
        obj.zspage.free.append(obj.index)

    def _file(self, zspage: Zspage) -> None:
        """Put a zspage at the head of the group it belongs in, unless it is there already."""
        used, free = len(zspage.used), len(zspage.free)
        group = 0 if not used else FULL if not free else 100 * used // (used + free) // 10 + 1
        if group != zspage.group:
            if zspage.group is not None:
                self._isolate(zspage)
            self.lists[zspage.size_class][group].insert(0, zspage)
            zspage.group = group

    def _release_if_empty(self, zspage: Zspage) -> bool:
        if zspage.used:
            return False
        self._isolate(zspage)
        self.pages -= self.shape[zspage.size_class][0]
        return True
