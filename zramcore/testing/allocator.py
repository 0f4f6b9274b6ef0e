"""Conformance of an Allocator, for pytest::

from zramcore.testing.allocator import AllocatorConformance

class TestMine(AllocatorConformance):
    def make(self, page_size, max_objects):
        return Mine(page_size, max_objects)
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest

from ..errors import InvalidValue, NoMemory, NoSpace, ZramError
from ..interfaces import API_VERSION, Allocator, Buffer
from .packed import PackedStoreConformance
from .replaced import ReplaceOneConformance


def content(seed: int, size: int) -> bytes:
    """`size` bytes that tell which object they belong to."""
    return random.Random(seed).randbytes(size)


class AllocatorConformance(PackedStoreConformance, ReplaceOneConformance):
    """Everything the device relies on. A subclass gives `make`."""

    page_sizes: ClassVar[tuple[int, ...]] = (4096, 16384, 65536)
    """Page sizes the allocator supports; each test runs with each."""

    def make(self, page_size: int, max_objects: int) -> Allocator:
        """A new, empty allocator."""
        raise NotImplementedError("a conformance class needs make(page_size, max_objects)")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test with each page size."""
        if "page_size" in metafunc.fixturenames:
            metafunc.parametrize("page_size", self.page_sizes)

    @pytest.fixture
    def allocator(self, page_size: int) -> Iterator[Allocator]:
        """An allocator for 300 objects, closed at the end."""
        made = self.make(page_size, 300)
        yield made
        made.close()

    @staticmethod
    def put(allocator: Allocator, data: bytes) -> int:
        """Allocate an object and fill it."""
        handle = allocator.alloc(len(data))
        allocator.write(handle, data)
        return handle

    @staticmethod
    def get(allocator: Allocator, handle: int, size: int) -> bytes:
        """The object's bytes, copied."""
        return bytes(allocator.view(handle, size))

    # What it says about itself ------------------------------------------------------------------------------------

    def test_names_itself_and_the_contract(self, allocator: Allocator, page_size: int) -> None:
        kind = type(allocator)
        assert kind.name
        assert not set(kind.name) & set(" \t\n[]=")
        assert kind.summary
        assert kind.api_version == API_VERSION
        assert allocator.page_size == page_size
        assert 0 < allocator.huge_class_size <= page_size

    def test_starts_empty(self, allocator: Allocator) -> None:
        assert (allocator.pages_used, allocator.peak_pages, allocator.pages_compacted) == (0, 0, 0)

    # One object ---------------------------------------------------------------------------------------------------

    def test_every_size_comes_back(self, allocator: Allocator, page_size: int) -> None:
        """All lengths at both ends, around powers of two and around the huge threshold; the rest in steps."""
        near = {2**power + offset for power in range(17) for offset in (-9, -8, -7, -1, 0, 1)}
        near |= {allocator.huge_class_size + offset for offset in range(-2, 3)}
        near |= set(range(1, page_size + 1, page_size // 50))
        sizes = sorted(size for size in near if 1 <= size <= page_size)
        kept = {size: self.put(allocator, content(size, size)) for size in sizes}
        assert len(set(kept.values())) == len(sizes)
        assert all(handle > 0 for handle in kept.values())
        for size, handle in kept.items():
            assert self.get(allocator, handle, size) == content(size, size)
        assert allocator.pages_used > 0
        for handle in kept.values():
            allocator.free(handle)
        assert allocator.pages_used == 0

    def test_neighbours_do_not_touch(self, allocator: Allocator, page_size: int) -> None:
        """Rewriting every other object leaves the others alone."""
        size = page_size // 3
        handles = [self.put(allocator, content(number, size)) for number in range(40)]
        for number in range(0, 40, 2):
            allocator.write(handles[number], b"\xff" * size)
        for number in range(1, 40, 2):
            assert self.get(allocator, handles[number], size) == content(number, size)

    def test_takes_every_kind_of_buffer(self, allocator: Allocator) -> None:
        data = content(1, 100)
        kinds: list[Buffer] = [data, bytearray(data), memoryview(data), memoryview(bytearray(b"x" + data))[1:]]
        for kind in kinds:
            handle = allocator.alloc(100)
            allocator.write(handle, kind)
            assert self.get(allocator, handle, 100) == data

    def test_keeps_no_reference_to_a_buffer(self, allocator: Allocator) -> None:
        """A buffer is valid until the call returns: what happens to it later must not show."""
        buffer = bytearray(content(1, 500))
        handles: list[int] = []
        allocator.store([buffer], [0], 0, handles)
        written = allocator.alloc(500)
        allocator.write(written, buffer)
        buffer[:] = bytes(500)
        assert self.get(allocator, handles[0], 500) == content(1, 500)
        assert self.get(allocator, written, 500) == content(1, 500)
        buffer.extend(b"not exported any more")

    def test_a_freed_place_is_used_again(self, allocator: Allocator, page_size: int) -> None:
        data = content(1, page_size)
        for number in range(2000):
            size = page_size - number % 50
            handle = self.put(allocator, data[:size])
            assert self.get(allocator, handle, size) == data[:size]
            allocator.free(handle)
        assert allocator.pages_used == 0

    def test_bad_sizes(self, allocator: Allocator, page_size: int) -> None:
        for size, kind, number in ((0, InvalidValue, errno.EINVAL), (page_size + 1, NoSpace, errno.ENOSPC)):
            with pytest.raises(kind) as caught:
                allocator.alloc(size)
            assert caught.value.errno == number
        assert allocator.pages_used == 0

    def test_a_handle_that_is_not_allocated(self, allocator: Allocator) -> None:
        """Freeing twice would hand one place to two pages: it must fail, not corrupt."""
        handle = self.put(allocator, content(1, 700))
        other = self.put(allocator, content(2, 700))
        allocator.free(handle)
        for bad in (handle, 0):
            with pytest.raises(ZramError):
                allocator.free(bad)
        assert self.get(allocator, other, 700) == content(2, 700)

    def test_max_objects(self, page_size: int) -> None:
        """As many objects as asked for fit, one more is ENOMEM, and after freeing one there is room for one."""
        allocator = self.make(page_size, 50)
        handles = [self.put(allocator, content(number, 64)) for number in range(50)]
        with pytest.raises(NoMemory) as caught:
            allocator.alloc(64)
        assert caught.value.errno == errno.ENOMEM
        assert self.get(allocator, handles[7], 64) == content(7, 64)
        allocator.free(handles[7])
        assert self.get(allocator, self.put(allocator, content(99, 64)), 64) == content(99, 64)
        allocator.close()

    # Many objects -------------------------------------------------------------------------------------------------

    def test_views_and_free_many(self, allocator: Allocator, page_size: int) -> None:
        sizes = [1 + 997 * number % page_size for number in range(200)]
        handles = [self.put(allocator, content(size, size)) for size in sizes]
        views = allocator.views(handles, sizes)
        assert [bytes(view) for view in views] == [content(size, size) for size in sizes]
        del views
        allocator.free_many(handles[::2])
        assert self.get(allocator, handles[1], sizes[1]) == content(sizes[1], sizes[1])
        allocator.free_many(handles[1::2])
        assert allocator.pages_used == 0
        assert allocator.views([], []) == []
        allocator.free_many([])

    def test_store_replaces(self, allocator: Allocator) -> None:
        old = self.put(allocator, content(1, 1000))
        gone = self.put(allocator, content(2, 1000))
        handles = [77]
        allocator.store([content(3, 900), None, content(4, 30), None], [old, gone, 0, 0], 0, handles)
        assert handles[0] == 77, "store appends"
        assert handles[2] == handles[4] == 0, "nothing to store has handle 0"
        assert self.get(allocator, handles[1], 900) == content(3, 900)
        assert self.get(allocator, handles[3], 30) == content(4, 30)
        allocator.free_many([handles[1], handles[3]])
        assert allocator.pages_used == 0, "the replaced objects were freed"

    def test_store_of_nothing(self, allocator: Allocator) -> None:
        handles: list[int] = []
        allocator.store([], [], 0, handles)
        assert handles == []

    def test_the_new_object_exists_before_the_old_one_goes(self, allocator: Allocator, page_size: int) -> None:
        handles: list[int] = []
        allocator.store([content(1, page_size)], [0], 0, handles)
        before = allocator.pages_used
        assert allocator.peak_pages == before
        allocator.store([content(2, page_size)], [handles[0]], 0, handles)
        assert allocator.pages_used == before
        assert allocator.peak_pages == 2 * before

    def test_store_at_the_limit(self, allocator: Allocator, page_size: int) -> None:
        """Over the limit: the object is given back, its old one kept, and the peak shows that it was there."""
        handles: list[int] = []
        pages = [content(number, page_size) for number in range(6)]
        allocator.store(pages[:3], [0, 0, 0], 0, handles)
        used = allocator.pages_used
        limit = used + used // 3
        rest: list[int] = []
        allocator.store(pages[3:], [0, handles[1], handles[2]], limit, rest)
        assert len(rest) == 1
        assert allocator.pages_used == limit
        assert allocator.peak_pages > limit
        assert self.get(allocator, handles[1], page_size) == pages[1]
        assert self.get(allocator, rest[0], page_size) == pages[3]
        assert allocator.store_one(pages[5], limit) == 0
        assert allocator.pages_used == limit
        nothing: list[int] = []
        allocator.store([None, pages[5]], [handles[1], 0], limit, nothing)
        assert len(nothing) == 2, "freeing makes room, also within one call"

    def test_a_limit_that_is_already_passed(self, allocator: Allocator, page_size: int) -> None:
        """The check is made after every allocation, also one that needs no new page."""
        for number in range(3):
            self.put(allocator, content(number, page_size))
        small = self.put(allocator, b"a")
        used = allocator.pages_used
        assert allocator.store_one(b"b", 1) == 0
        handles: list[int] = []
        allocator.store([None, b"c"], [small, 0], 1, handles)
        assert handles == [0]
        assert allocator.pages_used <= used
        assert allocator.peak_pages >= allocator.pages_used

    def test_peak_pages_is_not_raised_by_alloc(self, allocator: Allocator, page_size: int) -> None:
        """Recompression allocates and does not count in mem_used_max; the next write sees it all."""
        handle = self.put(allocator, content(1, page_size))
        assert allocator.peak_pages == 0
        other = allocator.store_one(b"x", 0)
        assert allocator.peak_pages == allocator.pages_used > 0
        allocator.free_many([handle, other])
        allocator.peak_pages = allocator.pages_used
        assert allocator.peak_pages == 0

    def test_store_without_handles_left(self, page_size: int) -> None:
        """When handles run out, what was stored is reported and the rest keeps its old objects."""
        allocator = self.make(page_size, 10)
        old = self.put(allocator, content(1, 40))
        data = [content(number, 40) for number in range(12)]
        handles: list[int] = []
        allocator.store(data, [0] * 11 + [old], 0, handles)
        assert len(handles) == 9
        assert self.get(allocator, old, 40) == content(1, 40)
        assert [self.get(allocator, handle, 40) for handle in handles] == data[:9]
        assert allocator.store_one(b"x", 0) == 0
        allocator.close()

    def test_store_ended_by_a_bad_buffer(self, allocator: Allocator, page_size: int) -> None:
        """What was done is reported and stays; the old objects of all other positions stay too; nothing is lost."""
        bad: list[object] = ["text", 12, b"", bytes(page_size + 1), memoryview(bytes(64)).cast("Q")[::2]]
        for buffer in bad:
            olds = [self.put(allocator, content(number, 600)) for number in range(3)]
            handles: list[int] = []
            with pytest.raises(Exception, match=r".*"):
                allocator.store([content(9, 50), buffer, content(8, 50)], olds, 0, handles)  # type: ignore[list-item]
            assert len(handles) == 1
            assert self.get(allocator, handles[0], 50) == content(9, 50)
            for number in (1, 2):
                assert self.get(allocator, olds[number], 600) == content(number, 600)
            allocator.free_many([handles[0], *olds[1:]])
            assert allocator.pages_used == 0
            with pytest.raises(Exception, match=r".*"):
                allocator.store_one(buffer, 0)  # type: ignore[arg-type]
            assert allocator.pages_used == 0

    # The pool as a whole ------------------------------------------------------------------------------------------

    def test_compact_keeps_contents(self, allocator: Allocator, page_size: int) -> None:
        sizes = [1 + 613 * number % (page_size // 2) for number in range(300)]
        handles = [self.put(allocator, content(number, size)) for number, size in enumerate(sizes)]
        kept = [number for number in range(300) if number % 3 == 0]
        allocator.free_many([handles[number] for number in range(300) if number % 3])
        before = allocator.pages_used
        freed = allocator.compact()
        assert freed >= 0
        assert allocator.pages_used == before - freed
        assert allocator.pages_compacted == freed
        for number in kept:
            assert self.get(allocator, handles[number], sizes[number]) == content(number, sizes[number])
        assert allocator.compact() == 0, "a second pass finds nothing to do"
        for number in kept:
            allocator.write(handles[number], bytes(sizes[number]))
            allocator.free(handles[number])
        assert allocator.pages_used == 0
        assert allocator.compact() == 0
        assert allocator.pages_compacted == freed

    def test_trim_changes_nothing_visible(self, allocator: Allocator, page_size: int) -> None:
        handles = [self.put(allocator, content(number, page_size // 2)) for number in range(60)]
        allocator.free_many(handles[1::2])
        before = allocator.pages_used
        allocator.trim()
        assert allocator.pages_used == before
        for number in range(0, 60, 2):
            assert self.get(allocator, handles[number], page_size // 2) == content(number, page_size // 2)
        allocator.free_many(handles[::2])
        allocator.trim()
        again = self.put(allocator, content(5, page_size))
        assert self.get(allocator, again, page_size) == content(5, page_size)

    def test_size_class_grows_with_size(self, allocator: Allocator, page_size: int) -> None:
        classes = [allocator.size_class(size) for size in range(1, page_size + 1)]
        assert classes == sorted(classes)
        assert classes[-1] > classes[0]

    def test_random_walk(self, allocator: Allocator, page_size: int) -> None:
        """Every operation in any order, against a dict of what must be there."""
        source = random.Random(page_size)
        alive: dict[int, bytes] = {}
        for step in range(600):
            choice = source.random()
            if choice < 0.5:
                count = min(source.randint(1, 12), 280 - len(alive))
                if count < 1:
                    continue
                data = [source.randbytes(source.choice((1, 40, 700, page_size // 2, page_size))) for _ in range(count)]
                olds = source.sample(sorted(alive), min(len(alive), source.randint(0, count)))
                handles: list[int] = []
                allocator.store(data, olds + [0] * (count - len(olds)), 0, handles)
                for old in olds:
                    del alive[old]
                assert not alive.keys() & set(handles)
                alive.update(zip(handles, data, strict=True))
            elif choice < 0.9:
                doomed = source.sample(sorted(alive), source.randint(0, len(alive) // 2))
                allocator.free_many(doomed)
                for handle in doomed:
                    del alive[handle]
            else:
                allocator.compact()
            assert (allocator.pages_used > 0) == bool(alive)
            assert allocator.pages_used <= allocator.peak_pages
            if step % 20 == 0:
                views = allocator.views(list(alive), [len(data) for data in alive.values()])
                assert [bytes(view) for view in views] == list(alive.values())
        allocator.free_many(list(alive))
        assert allocator.pages_used == 0

    def test_threads(self, page_size: int) -> None:
        """Four threads store, read and free at once; one of them compacts too, while nobody reads."""
        allocator = self.make(page_size, 1000)
        start = threading.Barrier(4)
        reading = threading.Lock()
        failures: list[BaseException] = []

        def work(number: int) -> None:
            source = random.Random(number)
            mine: dict[int, bytes] = {}
            try:
                start.wait(timeout=60)
                for turn in range(60):
                    data = [bytes([number, turn]) * source.randint(1, page_size // 2) for _ in range(20)]
                    olds = (list(mine) + [0] * 20)[:20]
                    handles: list[int] = []
                    allocator.store(data, olds, 0, handles)
                    for old in olds:
                        mine.pop(old, None)
                    mine.update(zip(handles, data, strict=True))
                    with reading:
                        for handle, expected in mine.items():
                            assert bytes(allocator.view(handle, len(expected))) == expected
                        if number == 0 and turn % 10 == 9:
                            allocator.compact()
                    doomed = list(mine)[: source.randint(0, len(mine))]
                    allocator.free_many(doomed)
                    for handle in doomed:
                        del mine[handle]
                allocator.free_many(list(mine))
            except BaseException as error:  # reported by the main thread, whatever it is
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
        assert not any(thread.is_alive() for thread in threads)
        assert failures == []
        assert allocator.pages_used == 0
        allocator.close()

    def test_close_with_objects_and_views(self, page_size: int) -> None:
        """Closing needs no clean-up before it, not even when somebody forgot a view."""
        allocator = self.make(page_size, 20)
        handle = self.put(allocator, content(1, 100))
        forgotten = allocator.view(handle, 100)
        allocator.close()
        assert len(forgotten) == 100
