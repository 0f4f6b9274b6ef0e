"""zsmalloc against a slow model written from the rules alone: lists of zspages, each a list of slots.

After every operation both must say the same pages_used, peak_pages and pages_compacted, and at the end have the same
class table and give every object back. The model shares no code and no idea with the implementation.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zramcore_plugins.allocators.pool import Pool
from zramcore_plugins.allocators.pure_pool import PurePool

ZSPAGE_SIZE = 24

LEAD = 21
"""Offset in a native zspage of the byte that counts the pages before it."""


def first_page(pool: Any, handle: int) -> int:
    """The first page of the zspage that the object is in: no call tells, so this looks at the bookkeeping."""
    page = pool.arena[0][handle] // pool.page_size
    if isinstance(pool, PurePool):
        zspage = pool._owners[page]
        assert zspage is not None
        return zspage.base // pool.page_size or page
    return page - pool._map[page * ZSPAGE_SIZE + LEAD]


class ModelZspage:
    def __init__(self, size_class: ModelClass) -> None:
        self.size_class = size_class
        self.slots: list[int | None] = [None] * size_class.objects
        self.free = list(range(size_class.objects))

    @property
    def inuse(self) -> int:
        return len(self.slots) - len(self.free)

    def put(self, name: int) -> None:
        """Into the free slot at the front: ascending at first, the last freed one first."""
        self.slots[self.free.pop(0)] = name

    def drop(self, name: int) -> None:
        index = self.slots.index(name)
        self.slots[index] = None
        self.free.insert(0, index)

    def group(self) -> int:
        if self.inuse == 0:
            return 0
        if self.inuse == len(self.slots):
            return 11
        return 100 * self.inuse // len(self.slots) // 10 + 1


class ModelClass:
    def __init__(self, size: int, pages: int, objects: int) -> None:
        self.size, self.pages, self.objects = size, pages, objects
        self.lists: list[list[ModelZspage]] = [[] for _ in range(12)]

    def zspages(self) -> list[ModelZspage]:
        return [zspage for members in self.lists for zspage in members]

    def regroup(self, zspage: ModelZspage, before: int) -> None:
        after = zspage.group()
        if after != before:
            self.lists[before].remove(zspage)
            self.lists[after].insert(0, zspage)
        if after == 0:
            self.lists[0].remove(zspage)

    def alloc(self, name: int) -> ModelZspage:
        for group in range(10, -1, -1):
            if self.lists[group]:
                zspage = self.lists[group][0]
                zspage.put(name)
                self.regroup(zspage, group)
                return zspage
        zspage = ModelZspage(self)
        zspage.put(name)
        self.lists[zspage.group()].insert(0, zspage)
        return zspage

    def can_compact(self) -> bool:
        allocated = len(self.zspages()) * self.objects
        used = sum(zspage.inuse for zspage in self.zspages())
        return (allocated - used) // self.objects > 0

    def take(self, groups: range) -> ModelZspage | None:
        for group in groups:
            if self.lists[group]:
                return self.lists[group].pop(0)
        return None

    def put_back(self, zspage: ModelZspage) -> bool:
        """Whether it is still there: an empty one is released."""
        if zspage.inuse:
            self.lists[zspage.group()].insert(0, zspage)
        return zspage.inuse > 0

    def compact(self, home: dict[int, ModelZspage]) -> int:
        freed = 0
        target: ModelZspage | None = None
        while self.can_compact_with(target):
            target = target or self.take(range(10, 0, -1))
            if target is None:
                break
            source = self.take(range(1, 11))
            if source is None:
                break
            for name in [name for name in source.slots if name is not None]:
                source.drop(name)
                target.put(name)
                home[name] = target
                if target.inuse == self.objects or not source.inuse:
                    break
            if not self.put_back(source):
                freed += self.pages
            if target.inuse == self.objects:
                self.put_back(target)
                target = None
        if target is not None:
            self.put_back(target)
        return freed

    def can_compact_with(self, isolated: ModelZspage | None) -> bool:
        """`can_compact`, counting the zspage that is out of the lists."""
        if isolated is None:
            return self.can_compact()
        self.lists[0].append(isolated)
        answer = self.can_compact()
        self.lists[0].remove(isolated)
        return answer


class Model:
    """The pool: object names are numbers the test gives out."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        delta = page_size // 256
        self.sizes = [32 + delta * index for index in range((page_size - 32 + delta - 1) // delta)] + [page_size]
        self.classes: dict[int, ModelClass] = {}
        previous: ModelClass | None = None
        for size in reversed(self.sizes):
            if size in [2**power for power in range(17)]:
                pages = 1
            else:
                waste = [(count * page_size % size, count) for count in range(1, 9)]
                pages = min(waste)[1]
            objects = pages * page_size // size
            if previous is None or (previous.pages, previous.objects) != (pages, objects):
                previous = ModelClass(size, pages, objects)
            self.classes[size] = previous
        self.home: dict[int, ModelZspage] = {}
        self.peak = 0
        self.compacted = 0

    def distinct(self) -> list[ModelClass]:
        """Smallest first."""
        return sorted(set(self.classes.values()), key=lambda each: each.size)

    @property
    def pages(self) -> int:
        return sum(len(each.zspages()) * each.pages for each in self.distinct())

    def alloc(self, name: int, size: int) -> None:
        fits = next((each for each in self.sizes if each >= size + 8), self.page_size)
        self.home[name] = self.classes[fits].alloc(name)

    def free(self, name: int) -> None:
        zspage = self.home.pop(name)
        before = zspage.group()
        zspage.drop(name)
        zspage.size_class.regroup(zspage, before)

    def store(self, name: int, size: int, replaced: int | None, limit: int) -> bool:
        self.alloc(name, size)
        self.peak = max(self.peak, self.pages)
        if limit and self.pages > limit:
            self.free(name)
            return False
        if replaced is not None:
            self.free(replaced)
        return True

    def compact(self) -> int:
        freed = sum(each.compact(self.home) for each in reversed(self.distinct()))
        self.compacted += freed
        return freed


class Pair:
    """The pool and the model, driven alike."""

    def __init__(self, kind: type[Pool], page_size: int, max_objects: int = 4000) -> None:
        self.pool = kind(page_size, max_objects)
        self.model = Model(page_size)
        self.handles: dict[int, int] = {}
        self.data: dict[int, bytes] = {}
        self.names = 0

    def new(self, size: int) -> tuple[int, bytes]:
        self.names += 1
        return self.names, random.Random(self.names).randbytes(size)

    def alloc(self, size: int) -> None:
        name, data = self.new(size)
        self.handles[name] = self.pool.alloc(size)
        self.pool.write(self.handles[name], data)
        self.data[name] = data
        self.model.alloc(name, size)

    def free(self, name: int) -> None:
        self.pool.free(self.handles.pop(name))
        self.model.free(name)
        del self.data[name]

    def store(self, sizes: list[int | None], olds: list[int | None], limit: int, one_by_one: bool = False) -> None:
        fresh = [self.new(size) if size else None for size in sizes]
        handles: list[int] = []
        objects = [item[1] if item else None for item in fresh]
        replaced = [self.handles[old] if old is not None else 0 for old in olds]
        if one_by_one:
            for data, handle in zip(objects, replaced, strict=True):
                stored = self.pool.store_one(data, limit) if data is not None else 0
                if data is not None and not stored:
                    break
                handles.append(stored)
                if handle:
                    self.pool.free(handle)
        else:
            self.pool.store(objects, replaced, limit, handles)
        done = 0
        for item, old in zip(fresh, olds, strict=True):
            if item is None:
                if old is not None:
                    self.model.free(old)
            elif not self.model.store(item[0], len(item[1]), old, limit):
                break
            if old is not None:
                del self.handles[old], self.data[old]
            if item is not None:
                self.handles[item[0]] = handles[done]
                self.data[item[0]] = item[1]
            done += 1
        assert len(handles) == done

    def compact(self) -> None:
        assert self.pool.compact() == self.model.compact()

    def check(self) -> None:
        assert self.pool.pages_used == self.model.pages
        assert self.pool.peak_pages == self.model.peak
        assert self.pool.pages_compacted == self.model.compacted

    def check_all(self) -> None:
        self.check()
        for row, expected in zip(self.pool.class_table(), self.model.distinct(), strict=True):
            assert (row.size, row.pages_per_zspage) == (expected.size, expected.pages)
            assert list(row.zspages) == [len(members) for members in expected.lists[1:]], row.size
            assert row.obj_used == sum(zspage.inuse for zspage in expected.zspages())
            assert row.pages_used == len(expected.zspages()) * expected.pages
            assert (row.freeable > 0) == expected.can_compact()
        views = self.pool.views([self.handles[name] for name in self.data], [len(data) for data in self.data.values()])
        assert [bytes(view) for view in views] == list(self.data.values())
        assert len(set(self.handles.values())) == len(self.handles)
        assert self.neighbours_in_pool() == self.neighbours_in_model()

    def neighbours_in_pool(self) -> set[frozenset[int]]:
        """The objects (names) that share a zspage, for each zspage; a huge object has its own."""
        groups: dict[int, set[int]] = {}
        for name, handle in self.handles.items():
            groups.setdefault(first_page(self.pool, handle), set()).add(name)
        return {frozenset(group) for group in groups.values()}

    def neighbours_in_model(self) -> set[frozenset[int]]:
        zspages = set(self.model.home.values())
        return {frozenset(name for name in zspage.slots if name is not None) for zspage in zspages}


# Few sizes, so that classes fill: 2, 3, 5, 9 and 18 objects a zspage, huge ones, and small ones.
SIZES = (2000, 1300, 1600, 3600, 1570, 4096, 90, 1, 740)

operations = st.one_of(
    st.tuples(st.just("alloc"), st.sampled_from(SIZES), st.integers(1, 25)),
    st.tuples(
        st.just("store"), st.lists(st.sampled_from((*SIZES, None)), min_size=1, max_size=12), st.integers(0, 2**32)
    ),
    st.tuples(st.just("free"), st.integers(0, 2**32), st.integers(1, 40)),
    st.tuples(st.just("limit"), st.sampled_from(SIZES), st.integers(0, 4)),
    st.tuples(st.just("compact"), st.none(), st.none()),
    st.tuples(st.just("trim"), st.none(), st.none()),
)


def apply(pair: Pair, operation: tuple[str, Any, Any]) -> None:
    kind, first, second = operation
    if kind == "alloc":
        for _ in range(second):
            pair.alloc(first)
    elif kind == "store":
        source = random.Random(second)
        olds: list[int | None] = list(source.sample(sorted(pair.data), min(len(pair.data), len(first))))
        olds += [None] * (len(first) - len(olds))
        source.shuffle(olds)
        pair.store(first, olds, 0, one_by_one=source.random() < 0.3)
    elif kind == "free":
        source = random.Random(first)
        for name in source.sample(sorted(pair.data), min(len(pair.data), second)):
            pair.free(name)
    elif kind == "limit":
        pair.store([first] * 6, [None] * 6, max(1, pair.model.pages + second))
    elif kind == "compact":
        pair.compact()
    else:
        pair.pool.trim()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(operations, max_size=25))
def test_any_sequence(kind: type[Pool], sequence: list[tuple[str, Any, Any]]) -> None:
    pair = Pair(kind, 4096)
    try:
        for operation in sequence:
            apply(pair, operation)
            pair.check()
        pair.check_all()
    finally:
        pair.pool.close()


@pytest.mark.parametrize(("page_size", "seed"), [(4096, 1), (4096, 2), (4096, 3), (16384, 4), (65536, 5)])
def test_long_walk(kind: type[Pool], page_size: int, seed: int) -> None:
    """Fragmentation needs many objects of a few classes, and frees in no order."""
    source = random.Random(seed)
    sizes = [source.randint(1, page_size) for _ in range(6)] + [page_size // 40, page_size // 5, page_size // 2 - 30]
    pair = Pair(kind, page_size)
    for step in range(400):
        choice = source.random()
        count = source.randint(1, 12)
        names = sorted(pair.data)
        if choice < 0.35:
            olds = [source.choice([None, *names[-20:]]) for _ in range(count)]
            unique = [old if old not in olds[:place] else None for place, old in enumerate(olds)]
            pair.store([source.choice([*sizes, None]) for _ in range(count)], unique, 0)
        elif choice < 0.55:
            pair.store([source.choice(sizes)] * count, [None] * count, 0)
        elif choice < 0.6:
            pair.alloc(source.choice(sizes))
        elif choice < 0.95:
            for name in source.sample(names, min(len(names), count + (step % 40 == 0) * 60)):
                pair.free(name)
        else:
            pair.compact()
        pair.check()
    pair.compact()
    pair.check_all()
    for name in list(pair.data):
        pair.free(name)
    assert pair.pool.pages_used == 0
    pair.pool.close()


@pytest.mark.parametrize("seed", range(4))
def test_compaction_moves_the_same_objects(kind: type[Pool], seed: int) -> None:
    """Three rounds of filling, freeing and compacting: the same objects are neighbours after each."""
    source = random.Random(seed)
    pair = Pair(kind, 4096)
    for _ in range(3):
        for size in (1300, 1600, 760, 2000):
            for _ in range(60):
                pair.alloc(size)
        for name in source.sample(sorted(pair.data), len(pair.data) * 3 // 5):
            pair.free(name)
        pair.check_all()
        assert any(row.freeable for row in pair.pool.class_table())
        pair.compact()
        pair.check_all()
    pair.pool.close()
