"""Conformance of `Allocator.store_packed`, for an allocator that has it: the same as `store`. Needs hypothesis."""

from __future__ import annotations

import random
import threading
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from ..errors import InvalidValue, NoSpace, ZramError
from ..interfaces import Allocator

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("zramcore.testing.packed needs hypothesis: pip install 'zramcore[test]'") from error

SHARES = (0, 1, 40, 90, 200, 337, 512, 700, 1000)
"""Sizes of objects, in thousandths of a page."""

# A call: sizes, a seed that chooses what is replaced, and how many pages the limit lies above those in use.
calls = st.lists(
    st.tuples(
        st.lists(st.sampled_from(SHARES), min_size=1, max_size=40),
        st.integers(0, 2**32),
        st.none() | st.integers(0, 12),
    ),
    max_size=8,
)


class Packed:
    """The arguments of one call of `store_packed`: objects that do not lie in order, with rubbish around them."""

    def __init__(self, objects: list[bytes], replaced: list[int], source: random.Random) -> None:
        self.packed = bytearray(source.randbytes(3))
        self.offsets = np.zeros(len(objects), np.uint32)
        self.sizes = np.array([len(data) for data in objects], np.uint32)
        self.replaced = np.array(replaced, np.uint64)
        self.handles = np.zeros(len(objects), np.uint64)
        for place in source.sample(range(len(objects)), len(objects)):
            self.offsets[place] = len(self.packed)
            self.packed += objects[place] + source.randbytes(source.randint(0, 5))

    def store(self, allocator: Allocator, limit_pages: int) -> list[int]:
        """The handles of the positions that were done."""
        done = call(allocator, self.packed, self.offsets, self.sizes, self.replaced, limit_pages, self.handles)
        assert not self.handles[done:].any()
        return [int(handle) for handle in self.handles[:done]]


def call(allocator: Allocator, *arguments: Any) -> int:
    """Call `store_packed`; the test is skipped where there is none."""
    if allocator.store_packed is None:
        pytest.skip(f"{allocator.name} has no store_packed")
    return allocator.store_packed(*arguments)


def u32(*values: int) -> npt.NDArray[np.uint32]:
    return np.array(values, np.uint32)


def u64(*values: int) -> npt.NDArray[np.uint64]:
    return np.array(values, np.uint64)


class PackedStoreConformance:
    """What `AllocatorConformance` says about `store_packed`."""

    page_sizes: ClassVar[tuple[int, ...]]

    def make(self, page_size: int, max_objects: int) -> Allocator:
        """A new, empty allocator."""
        raise NotImplementedError

    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.differing_executors])
    @given(calls=calls)
    def test_store_packed_is_store(self, page_size: int, calls: list[Any]) -> None:
        """The same calls on two allocators: objects, counters, and where it stops are the same."""
        one, other = self.make(page_size, 90), self.make(page_size, 90)
        alive: dict[int, tuple[int, int, bytes]] = {}
        try:
            for shares, seed, above in calls:
                source = random.Random(seed)
                objects = [source.randbytes(share * page_size // 1000) for share in shares]
                names = source.sample(sorted(alive), min(len(alive), source.randint(0, len(objects))))
                names += [0] * (len(objects) - len(names))
                source.shuffle(names)
                limit = 0 if above is None else max(1, one.pages_used + above)
                packed = Packed(objects, [alive[name][0] if name else 0 for name in names], source)
                handles = packed.store(one, limit)
                expected: list[int] = []
                olds = [alive[name][1] if name else 0 for name in names]
                other.store([data or None for data in objects], olds, limit, expected)
                assert [bool(handle) for handle in handles] == [bool(handle) for handle in expected]
                assert (one.pages_used, one.peak_pages) == (other.pages_used, other.peak_pages)
                for name in names[: len(handles)]:
                    alive.pop(name, None)
                fresh = max(alive, default=0) + 1
                done = zip(handles, expected, objects, strict=False)
                alive.update((fresh + at, row) for at, row in enumerate(done) if row[0])
                for handle, twin, data in alive.values():
                    assert bytes(one.view(handle, len(data))) == bytes(other.view(twin, len(data))) == data
            assert one.compact() == other.compact()
        finally:
            one.close()
            other.close()

    def test_store_packed_takes_nothing_bad(self, page_size: int) -> None:
        """Each bad argument is an error, and nothing has changed, also not for the good objects beside it."""
        allocator = self.make(page_size, 20)
        old = Packed([b"kept"], [0], random.Random(1)).store(allocator, 0)[0]
        freed = allocator.alloc(9)
        allocator.free(freed)
        packed, used, most = bytes(2 * page_size), allocator.pages_used, (1 << 32) - 1
        bad: list[tuple[type[Exception], Any, Any, Any]] = [
            (NoSpace, u32(0, 0), u32(5, page_size + 1), u64(old, 0)),
            (NoSpace, u32(0, 0), u32(5, most), u64(old, 0)),
            (InvalidValue, u32(0, 2 * page_size - 4), u32(5, 5), u64(old, 0)),
            (InvalidValue, u32(0, most), u32(5, 5), u64(old, 0)),
            (InvalidValue, u32(0, most), u32(5, 1), u64(old, 0)),
            (InvalidValue, u32(0, 0), u32(5, 5), u64(old, freed)),
            (InvalidValue, u32(0, 0), u32(5, 0), u64(old, 1 << 63)),
            (InvalidValue, u32(0, 0), u32(5, 5), u64(old, (1 << 64) - 1)),
            (Exception, u32(0), u32(5, 5), u64(old, 0)),
            (Exception, u32(0, 0), u32(5, 5), u64(old)),
            (Exception, u64(0, 0), u32(5, 5), u64(old, 0)),
            (Exception, [0, 0], u32(5, 5), u64(old, 0)),
            (Exception, u32(0, 0), u32(5, 5).astype(np.float32), u64(old, 0)),
            (Exception, u32(0, 0), u32(5, 0, 5, 0)[::2], u64(old, 0)),
        ]
        for kind, offsets, sizes, replaced in bad:
            handles = u64(0, 0)
            with pytest.raises(kind):
                call(allocator, packed, offsets, sizes, replaced, 0, handles)
            assert not handles.any()
        frozen, zeros = u64(0, 0), (u32(0, 0), u32(5, 5), u64(old, 0), 0)
        frozen.flags.writeable = False
        for wrong in (frozen, u64(0), u32(0, 0, 0, 0), bytearray(16)):
            with pytest.raises((ValueError, TypeError, BufferError)):
                call(allocator, packed, *zeros, wrong)
        with pytest.raises((ValueError, TypeError, BufferError)):
            call(allocator, "text", *zeros, u64(0, 0))
        assert (allocator.pages_used, bytes(allocator.view(old, 4))) == (used, b"kept")
        allocator.free(old)
        assert allocator.pages_used == 0
        allocator.close()

    def test_store_packed_frees_nothing_twice(self, page_size: int) -> None:
        allocator = self.make(page_size, 20)
        old, other = Packed([b"old", b"other"], [0, 0], random.Random(1)).store(allocator, 0)
        with pytest.raises(ZramError):
            Packed([b"a", b"b"], [old, old], random.Random(1)).store(allocator, 0)
        assert bytes(allocator.view(other, 5)) == b"other"
        allocator.close()

    def test_store_packed_of_nothing(self, page_size: int) -> None:
        allocator = self.make(page_size, 20)
        assert call(allocator, b"", u32(), u32(), u64(), 0, u64()) == 0
        (old,) = Packed([b"old"], [0], random.Random(1)).store(allocator, 0)
        assert call(allocator, b"", u32(99), u32(0), u64(old), 0, u64(0)) == 1, "size 0: the offset says nothing"
        assert allocator.pages_used == 0
        allocator.close()

    def test_store_packed_by_threads(self, page_size: int) -> None:
        """Three threads overwrite their objects and read them back while a fourth frees and allocates."""
        allocator = self.make(page_size, 1000)
        start = threading.Barrier(4)
        failures: list[BaseException] = []

        def overwrite(number: int) -> None:
            source = random.Random(number)
            handles = [0] * 60
            for turn in range(25):
                data = [bytes([number, turn, place]) * source.randint(1, page_size // 3) for place in range(60)]
                handles = Packed(data, handles, source).store(allocator, 0)
                for view, expected in zip(allocator.views(handles, list(map(len, data))), data, strict=True):
                    assert bytes(view) == expected
            allocator.free_many(handles)

        def churn(number: int) -> None:
            for turn in range(300):
                data = bytes([number]) * (1 + 97 * turn % page_size)
                handle = allocator.store_one(data, 0)
                assert bytes(allocator.view(handle, len(data))) == data
                allocator.free(handle)

        def work(number: int) -> None:
            try:
                start.wait(timeout=60)
                (churn if number == 3 else overwrite)(number)
            except BaseException as error:  # reported by the main thread, whatever it is
                failures.append(error)

        if allocator.store_packed is None:
            pytest.skip(f"{allocator.name} has no store_packed")
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
        assert not any(thread.is_alive() for thread in threads)
        assert failures == []
        assert allocator.pages_used == 0
        allocator.close()
