"""The compiled pool against the one in Python: the same calls, and after each the same pool, down to every position."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zramcore.errors import InvalidValue, ZramError
from zramcore_plugins.allocators.pool import Pool
from zramcore_plugins.allocators.pure_pool import PurePool

# In thousandths of a page: many and few objects a zspage, zspages of 1 to 8 pages, huge objects.
SHARES = (1, 20, 90, 180, 317, 383, 390, 488, 700, 879, 900, 1000)

calls = st.lists(
    st.tuples(
        st.sampled_from(("alloc", "store", "store_one", "packed", "free", "free_many", "compact", "trim", "bad")),
        st.integers(0, 2**32),
        st.sampled_from((None, None, 0, 3, 20)),
    ),
    max_size=30,
)


def told(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, or how it refuses."""
    try:
        return call(*arguments)
    except ZramError as error:
        return type(error), str(error)


class Twins:
    """Both pools, driven alike; objects have a name, and a handle in each."""

    def __init__(self, native: type[Pool], page_size: int, max_objects: int = 600) -> None:
        self.page_size = page_size
        self.pure: Any = PurePool(page_size, max_objects)
        self.native: Any = native(page_size, max_objects)
        self.alive: dict[int, tuple[int, int, bytes]] = {}
        self.names = 0

    def add(self, pure: int, native: int, data: bytes) -> None:
        assert bool(pure) == bool(native)
        if pure:
            self.names += 1
            self.alive[self.names] = (pure, native, data)

    def data(self, source: random.Random, count: int) -> list[bytes]:
        shares = source.sample(SHARES, source.randint(1, 4))
        return [source.randbytes(1 + source.choice(shares) * (self.page_size - 1) // 1000) for _ in range(count)]

    def limit(self, above: int | None) -> int:
        return 0 if above is None else max(1, self.pure.pages_used + above)

    def some(self, source: random.Random, most: int) -> list[int]:
        return source.sample(sorted(self.alive), min(len(self.alive), source.randint(0, most)))

    def apply(self, kind: str, seed: int, above: int | None) -> None:
        getattr(self, kind)(random.Random(seed), above)
        self.check()

    def alloc(self, source: random.Random, _: int | None) -> None:
        for data in self.data(source, source.randint(1, 30)):
            handles = [told(pool.alloc, len(data)) for pool in (self.pure, self.native)]
            if not isinstance(handles[0], int):
                assert handles[0] == handles[1]
                return
            self.pure.write(handles[0], data)
            self.native.write(handles[1], data)
            self.add(*handles, data)

    def store_one(self, source: random.Random, above: int | None) -> None:
        limit = self.limit(above)
        for data in self.data(source, source.randint(1, 20)):
            self.add(self.pure.store_one(data, limit), self.native.store_one(memoryview(data), limit), data)

    def store(self, source: random.Random, above: int | None, packed: bool = False) -> None:
        objects: list[bytes | None] = [*self.data(source, source.randint(1, 60))]
        objects = [None if source.random() < 0.1 else data for data in objects]
        names: list[int] = self.some(source, len(objects))
        names += [0] * (len(objects) - len(names))
        source.shuffle(names)
        limit = self.limit(above)
        handles: list[int] = []
        twins: list[int] = []
        self.pure.store(objects, [self.alive[name][0] if name else 0 for name in names], limit, handles)
        olds = [self.alive[name][1] if name else 0 for name in names]
        if packed:
            twins = self.store_packed(objects, olds, limit)
        else:
            self.native.store(tuple(objects), np.array(olds, np.uint64), limit, twins)
        assert len(handles) == len(twins)
        for name, handle, twin, data in zip(names, handles, twins, objects, strict=False):
            self.alive.pop(name, None)
            self.add(handle, twin, data or b"")

    def store_packed(self, objects: list[bytes | None], olds: list[int], limit: int) -> list[int]:
        sizes = np.array([len(data or b"") for data in objects], np.uint32)
        offsets = (np.cumsum(sizes) - sizes).astype(np.uint32)
        handles = np.zeros(len(objects), np.uint64)
        joined = b"".join(data or b"" for data in objects)
        done = self.native.store_packed(joined, offsets, sizes, np.array(olds, np.uint64), limit, handles)
        return [int(handle) for handle in handles[:done]]

    def packed(self, source: random.Random, above: int | None) -> None:
        self.store(source, above, packed=True)

    def free(self, source: random.Random, _: int | None) -> None:
        for name in self.some(source, 30):
            pure, native, _data = self.alive.pop(name)
            self.pure.free(pure)
            self.native.free(native)

    def free_many(self, source: random.Random, above: int | None) -> None:
        rows = [self.alive.pop(name) for name in self.some(source, 400)]
        going, twins = [row[0] for row in rows], [row[1] for row in rows]
        sizes = [len(row[2]) for row in rows]
        pages = self.pure.pages_freed_by(going, sizes)
        assert self.native.pages_freed_by(twins, sizes) == pages
        before = self.native.pages_used
        self.pure.free_many(going)
        self.native.free_many(np.array(twins, np.uint64) if above is None else twins)
        assert before - self.native.pages_used == pages

    def compact(self, _: random.Random, above: int | None) -> None:
        assert self.pure.compact() == self.native.compact()

    def trim(self, _: random.Random, above: int | None) -> None:
        self.pure.trim()
        self.native.trim()

    def bad(self, source: random.Random, _: int | None) -> None:
        """Freed and foreign handles are refused by both, in the same words."""
        for handle in (0, source.randint(700, 1 << 70)):
            for method, rest in (("free", ()), ("view", (5,)), ("write", (b"x",))):
                refusals = [told(getattr(pool, method), handle, *rest) for pool in (self.pure, self.native)]
                assert refusals[0] == refusals[1]
                assert refusals[0][0] is InvalidValue

    def check(self) -> None:
        pure, native = self.pure, self.native
        assert native.pages_used == pure.pages_used
        assert native.peak_pages == pure.peak_pages
        assert native.pages_compacted == pure.pages_compacted
        assert native.class_table() == pure.class_table()
        positions, memory = pure.arena
        twin_positions, twin_memory = native.arena
        for handle, twin, data in self.alive.values():
            start = twin_positions[twin]
            assert start == positions[handle]
            assert twin_memory[start : start + len(data)] == memory[start : start + len(data)] == data
        assert len({twin for _, twin, _ in self.alive.values()}) == len(self.alive)

    def close(self) -> None:
        self.pure.close()
        self.native.close()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(calls)
def test_any_calls(native: type[Pool], calls: list[tuple[str, int, int | None]]) -> None:
    twins = Twins(native, 4096)
    try:
        for call in calls:
            twins.apply(*call)
    finally:
        twins.close()


@pytest.mark.parametrize(("page_size", "seed"), [(4096, 1), (4096, 2), (16384, 3), (65536, 4)])
def test_long_walk(native: type[Pool], page_size: int, seed: int) -> None:
    """Long enough for trims between calls, handles that run out, and fragmentation that compaction undoes."""
    source = random.Random(seed)
    twins = Twins(native, page_size)
    kinds = ("alloc", "store", "store", "store_one", "packed", "packed", "free", "free", "free_many", "compact", "trim")
    weights = (3, 4, 4, 2, 4, 4, 4, 4, 1, 1, 1)
    for _ in range(250):
        (kind,) = source.choices(kinds, weights)
        twins.apply(kind, source.randrange(2**32), source.choice((None, None, 5, 60)))
    assert twins.pure.pages_compacted > 0
    assert twins.native.classes() == twins.pure.classes()
    twins.free_many(source, None)
    twins.close()
