"""The conformance class must find what it promises to find: each allocator here has one defect."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest

from zramcore.errors import InvalidValue, NoMemory, NoSpace
from zramcore.interfaces import Allocator, Buffer
from zramcore.testing.allocator import AllocatorConformance

PAGE = 4096


class Sound(Allocator):
    """A page per object, and only the one-object methods: the base class does the rest."""

    name = "sound"
    summary = "a page for every object"

    def __init__(self, page_size: int, max_objects: int) -> None:
        super().__init__(page_size, max_objects)
        self.huge_class_size = page_size
        self.objects: dict[int, bytearray] = {}
        self.numbers: Iterator[int] = itertools.count(1)

    @property
    def pages_used(self) -> int:
        return len(self.objects)

    def alloc(self, size: int) -> int:
        if size < 1:
            raise InvalidValue("no bytes")
        if size > self.page_size:
            raise NoSpace("more than a page")
        if len(self.objects) >= self.max_objects:
            raise NoMemory("full")
        handle = next(self.numbers)
        self.objects[handle] = bytearray(size)
        return handle

    def write(self, handle: int, data: Buffer) -> None:
        if len(bytes(data)) != len(self.objects[handle]):
            raise InvalidValue("another size")
        self.objects[handle][:] = data

    def view(self, handle: int, size: int) -> Buffer:
        return memoryview(self.objects[handle])[:size]

    def free(self, handle: int) -> None:
        if handle not in self.objects:
            raise InvalidValue("not allocated")
        del self.objects[handle]

    def compact(self) -> int:
        return 0

    def close(self) -> None:
        self.objects.clear()


class TestSound(AllocatorConformance):
    """The yardstick: without a defect, everything passes."""

    def make(self, page_size: int, max_objects: int) -> Sound:
        return Sound(page_size, max_objects)


class FreesTwice(Sound):
    def free(self, handle: int) -> None:
        self.objects.pop(handle, None)


class NoSizeCheck(Sound):
    def alloc(self, size: int) -> int:
        return super().alloc(min(max(size, 1), self.page_size))


class NoBound(Sound):
    def alloc(self, size: int) -> int:
        self.max_objects = 10**9
        return super().alloc(size)


class SharesHandles(Sound):
    def __init__(self, page_size: int, max_objects: int) -> None:
        super().__init__(page_size, max_objects)
        self.numbers = itertools.cycle(range(1, 101))


class KeepsTheBuffer(Sound):
    def write(self, handle: int, data: Buffer) -> None:
        self.objects[handle] = data if isinstance(data, bytearray) else bytearray(data)


class LeaksReplaced(Sound):
    def store(
        self, objects: Sequence[Buffer | None], replaced: Sequence[int], limit_pages: int, handles: list[int]
    ) -> None:
        super().store(objects, [0] * len(replaced), limit_pages, handles)


class FreesFirst(Sound):
    def store(
        self, objects: Sequence[Buffer | None], replaced: Sequence[int], limit_pages: int, handles: list[int]
    ) -> None:
        self.free_many([old for old in replaced if old])
        super().store(objects, [0] * len(replaced), limit_pages, handles)


class IgnoresTheLimit(Sound):
    def store_one(self, data: Buffer, limit_pages: int) -> int:
        return super().store_one(data, 0)


class PeakFromAlloc(Sound):
    def alloc(self, size: int) -> int:
        handle = super().alloc(size)
        self.peak_pages = max(self.peak_pages, self.pages_used)
        return handle


class RaisesAtTheLimit(Sound):
    def store_one(self, data: Buffer, limit_pages: int) -> int:
        handle = super().store_one(data, limit_pages)
        if not handle:
            raise NoMemory("mem_limit")
        return handle


class LeaksOnError(Sound):
    def store_one(self, data: Buffer, limit_pages: int) -> int:
        handle = self.alloc(len(data))
        self.peak_pages = max(self.peak_pages, self.pages_used)
        if limit_pages and self.pages_used > limit_pages:
            self.free(handle)
            return 0
        self.write(handle, data)
        return handle


class LosesOnCompact(Sound):
    def compact(self) -> int:
        for content in self.objects.values():
            content[:1] = b"\0"
        return 0


class CountsNoCompaction(Sound):
    """Says that it freed a page, and did not."""

    def compact(self) -> int:
        return 1


class ViewsOutOfOrder(Sound):
    def views(self, handles: Sequence[int], sizes: Sequence[int]) -> list[Buffer]:
        return list(reversed(super().views(handles, sizes)))


class ClosedViews(Sound):
    def close(self) -> None:
        if self.objects:
            raise InvalidValue("objects are left")


DEFECTS: list[tuple[type[Sound], str]] = [
    (FreesTwice, "test_a_handle_that_is_not_allocated"),
    (NoSizeCheck, "test_bad_sizes"),
    (NoBound, "test_max_objects"),
    (SharesHandles, "test_every_size_comes_back"),
    (KeepsTheBuffer, "test_keeps_no_reference_to_a_buffer"),
    (LeaksReplaced, "test_store_replaces"),
    (FreesFirst, "test_the_new_object_exists_before_the_old_one_goes"),
    (IgnoresTheLimit, "test_store_at_the_limit"),
    (IgnoresTheLimit, "test_a_limit_that_is_already_passed"),
    (PeakFromAlloc, "test_peak_pages_is_not_raised_by_alloc"),
    (RaisesAtTheLimit, "test_store_at_the_limit"),
    (LeaksOnError, "test_store_ended_by_a_bad_buffer"),
    (LosesOnCompact, "test_compact_keeps_contents"),
    (CountsNoCompaction, "test_compact_keeps_contents"),
    (ViewsOutOfOrder, "test_views_and_free_many"),
    (ClosedViews, "test_close_with_objects_and_views"),
]


@pytest.mark.parametrize(("broken", "test"), DEFECTS)
def test_a_defect_is_found(broken: type[Sound], test: str) -> None:
    class Kit(AllocatorConformance):
        def make(self, page_size: int, max_objects: int) -> Allocator:
            return broken(page_size, max_objects)

    method: Callable[..., None] = getattr(Kit(), test)
    given = {"allocator": broken(PAGE, 300), "page_size": PAGE}
    with pytest.raises((AssertionError, pytest.fail.Exception, InvalidValue, NoMemory)):
        method(**{name: given[name] for name in inspect.signature(method).parameters})
