"""Conformance of `Allocator.replace_one`, for an allocator that has it: the same as `store` of one object."""

from __future__ import annotations

import ctypes
import random
from typing import ClassVar

import pytest

from ..interfaces import Allocator

REPLACE = ctypes.PYFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_uint32,
    ctypes.c_uint64,
    ctypes.c_uint64,
    ctypes.POINTER(ctypes.c_uint64),
)
"""Called with the GIL, as the data path calls it."""


class ReplaceOne:
    """An allocator's function, to be called from Python."""

    def __init__(self, allocator: Allocator) -> None:
        if allocator.replace_one is None:
            pytest.skip(f"{allocator.name} has no replace_one")
        address, self._pool = allocator.replace_one
        self._function = REPLACE(address)

    def __call__(self, data: bytes, limit_pages: int, replaced: int, handle: int = 0) -> tuple[int, int]:
        """What it returns, and the handle it gives; `handle` when it gives none."""
        given = ctypes.c_uint64(handle)
        answer = self._function(self._pool, data, len(data), limit_pages, replaced, ctypes.byref(given))
        return answer, given.value


class ReplaceOneConformance:
    """What `AllocatorConformance` says about `replace_one`."""

    page_sizes: ClassVar[tuple[int, ...]]

    def make(self, page_size: int, max_objects: int) -> Allocator:
        """A new, empty allocator."""
        raise NotImplementedError

    def test_replacing_one_is_storing_one(self) -> None:
        """Sizes, limits, replacements at random: as many pages, handles that hold the same bytes, the same ENOMEM."""
        for page_size in self.page_sizes:
            one, other = self.make(page_size, 400), self.make(page_size, 400)
            replace, source = ReplaceOne(one), random.Random(page_size)
            held: list[tuple[int, int, bytes]] = []
            for _ in range(600):
                size = source.choice((0, 1, 40, page_size // 3, page_size * 9 // 10, page_size))
                data = source.randbytes(size)
                limit = source.choice((0, 0, one.pages_used + source.randrange(4)))
                old = held.pop(source.randrange(len(held))) if held and source.random() < 0.6 else None
                replaced = (old[0], old[1]) if old else (0, 0)
                handles: list[int] = []
                other.store([data or None], [replaced[1]], limit, handles)
                answer, handle = replace(data, limit, replaced[0])
                assert answer == (0 if handles else 1)
                assert (one.pages_used, one.peak_pages) == (other.pages_used, other.peak_pages)
                if answer:
                    held += [old] if old else []
                elif size:
                    held.append((handle, handles[0], data))
            for mine, theirs, data in held:
                assert bytes(one.view(mine, len(data))) == bytes(other.view(theirs, len(data))) == data
            one.close()
            other.close()

    def test_a_handle_that_is_not_there_cannot_be_replaced(self) -> None:
        allocator = self.make(4096, 20)
        replace = ReplaceOne(allocator)
        _, kept = replace(b"kept", 0, 0)
        _, freed = replace(b"freed", 0, 0)
        assert replace(b"", 0, freed, 77) == (0, 77)
        before = allocator.pages_used, allocator.peak_pages
        for handle in (freed, 12, 1 << 40, (1 << 64) - 1):
            assert replace(b"new", 0, handle)[0] == -1
        assert (allocator.pages_used, allocator.peak_pages) == before
        assert bytes(allocator.view(kept, 4)) == b"kept"
        allocator.close()
