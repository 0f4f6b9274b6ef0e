"""The inside of the pool in Python: little overhead, nothing lost on interrupts, runs of the arena."""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from zramcore.errors import InvalidValue, NoMemory
from zramcore.interfaces import Buffer
from zramcore_plugins.allocators import arena
from zramcore_plugins.allocators.pure_pool import PurePool
from zramcore_plugins.allocators.size_classes import FULL_GROUP
from zramcore_plugins.allocators.zspages import UNLISTED, Zspage

PAGE = 4096
MIB = 1 << 20


@pytest.fixture
def pool() -> Iterator[PurePool]:
    made = PurePool(PAGE, 20_000)
    yield made
    made.close()


def resident() -> int:
    """Bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def fill(pool: PurePool, count: int, size: int) -> list[int]:
    handles: list[int] = []
    pool.store([b"\xa5" * size] * count, [0] * count, 0, handles)
    return handles


# Memory -------------------------------------------------------------------------------------------------------------


def test_python_objects_cost_little(pool: PurePool) -> None:
    """Bookkeeping stays below 5 % of the pool, for sizes of real data."""
    source = random.Random(2)
    sizes = [PAGE if source.random() < 0.15 else source.randint(300, 3000) for _ in range(15_000)]
    data = [memoryview(bytes(PAGE))[:size] for size in sizes]
    handles: list[int] = []
    gc.collect()
    tracemalloc.start()
    try:
        pool.store(data, [0] * len(data), 0, handles)
        handles.clear()
        objects = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    table = 8 * len(data)
    assert (objects + table) / (pool.pages_used * PAGE) < 0.05


def unlisted_zspages(pool: PurePool) -> list[Zspage]:
    """The full zspages and the current ones."""
    owners = {zspage for zspage in pool._owners if zspage is not None and zspage is not pool._huge_owner}
    return [zspage for zspage in owners if zspage.group in (UNLISTED, FULL_GROUP)]


def test_a_zspage_in_no_list_holds_no_other(pool: PurePool) -> None:
    """Else dead zspages would hang on full ones, each with its own old neighbours: a leak that never ends."""
    source = random.Random(3)
    handles = fill(pool, 1500, 1500)
    for _ in range(6):
        source.shuffle(handles)
        pool.free_many(handles[1000:])
        handles = handles[:1000]
        unlisted = unlisted_zspages(pool)
        handles += fill(pool, 470, 1500)
        pool.compact()
        unlisted += unlisted_zspages(pool)
        handles += [pool.store_one(bytes(1500), 0) for _ in range(30)]
        unlisted += unlisted_zspages(pool)
        assert len(unlisted) > 100
        for zspage in unlisted:
            if zspage.group in (UNLISTED, FULL_GROUP) and zspage.inuse:
                assert zspage.prev is zspage.next is zspage.pool_class.heads[0]


def test_the_current_zspage_holds_no_other(pool: PurePool) -> None:
    """The same, for one that leaves its list because an object of it is freed: eight objects, A full, B with six."""
    handles = fill(pool, 14, 1500)
    pool.free_many(handles[:3])
    pool.free(handles[8])
    (current,) = unlisted_zspages(pool)
    assert current.inuse == 5
    assert current is pool._owners[pool._positions[handles[9]] // PAGE]
    assert current.prev is current.next is current.pool_class.heads[0]


# Interrupts -----------------------------------------------------------------------------------------------------------


class Interrupter:
    """Raises KeyboardInterrupt at the n-th place where Python lets a signal in: a function's entry, a C call's end."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        inside = "allocators" in frame.f_code.co_filename and "tests" not in frame.f_code.co_filename
        if event in ("call", "c_return") and inside:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


def interrupted(work: Callable[[], object], at: int) -> bool:
    """Whether the work was interrupted; it has at most `at - 1` such places otherwise."""
    sys.setprofile(Interrupter(at))
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


SIZES = (1500, PAGE, 1500, 30, 1500, 2000, PAGE, 2000, 1500)


def build() -> tuple[PurePool, list[int]]:
    """A pool with zspages at every stage, and nine objects that will be replaced."""
    pool = PurePool(PAGE, 40)
    olds: list[int] = []
    pool.store([bytes([number]) * size for number, size in enumerate(SIZES)], [0] * 9, 0, olds)
    gap = fill(pool, 12, 1500)
    pool.free_many(gap[::2])
    pool.free_many(gap[5::6])
    return pool, olds + [handle for place, handle in enumerate(gap) if place % 2 and place % 6 != 5]


def live_objects(pool: PurePool) -> int:
    return sum(row.obj_used for row in pool.class_table())


def test_store_loses_nothing_when_interrupted() -> None:
    """Wherever it ends: what is reported is stored and its old objects are freed; everything else is as before."""
    at = 1
    while True:
        pool, olds = build()
        before = live_objects(pool)
        new: list[Buffer | None] = [bytes([99 - number]) * size for number, size in enumerate(reversed(SIZES))]
        new[4] = None
        handles: list[int] = []
        stopped = interrupted(lambda: pool.store(new, olds[:9], 0, handles), at)  # noqa: B023 - called at once
        done = len(handles)
        assert live_objects(pool) == before - sum(new[number] is None for number in range(done)), at
        for data, handle in zip(new, handles, strict=False):
            assert bool(handle) == (data is not None)
            if data is not None:
                assert bytes(pool.view(handle, len(data))) == data
        for number in range(done, 9):
            assert bytes(pool.view(olds[number], SIZES[number])) == bytes([number]) * SIZES[number]
        pool.free_many([handle for handle in handles if handle] + olds[done:])
        assert pool.pages_used == live_objects(pool) == 0, at
        pool.close()
        if not stopped:
            assert done == 9
            break
        at += 1
    assert at > 40, "there were places to interrupt"


def test_free_many_and_compact_lose_nothing_when_interrupted() -> None:
    works: list[Callable[[PurePool, list[int]], object]] = [
        lambda pool, handles: pool.free_many(handles[::2]),
        lambda pool, _: pool.compact(),
        lambda pool, _: pool.trim(),
    ]
    for work in works:
        at = 1
        while True:
            pool, handles = build()
            stopped = interrupted(lambda: work(pool, handles), at)  # noqa: B023 - called at once
            alive = []
            for handle in handles:
                try:
                    pool.view(handle, 1)
                    alive.append(handle)
                except InvalidValue:
                    continue
            assert len(alive) == live_objects(pool)
            assert pool.pages_used == sum(row.pages_used for row in pool.class_table())
            pool.compact()
            assert sum(row.freeable for row in pool.class_table()) == 0
            again = fill(pool, 10, 1500)
            pool.free_many(alive + again)
            assert pool.pages_used == 0
            pool.close()
            if not stopped:
                break
            at += 1
        assert at > 3


# Address space --------------------------------------------------------------------------------------------------------


def small_arena(pages: int) -> arena.Arena[object]:
    made: arena.Arena[object] = arena.Arena(PAGE, 1)
    made.size = (pages + 1) * PAGE
    return made


def take(space: arena.Arena[object], pages: int) -> int:
    stack = space.free_run(pages)
    if stack is space.dirty[pages]:
        space.dirty_pages -= pages
    return stack.pop()


def test_a_full_arena_cuts_its_free_runs_anew() -> None:
    """Neighbours are merged: two runs of three pages and the rest of the arena serve one of eight."""
    space = small_arena(10)
    first, second = take(space, 3), take(space, 3)
    with pytest.raises(NoMemory, match="used up"):
        take(space, 5)
    space.release(second, 3)
    space.release(first, 3)
    eight = take(space, 8)
    assert eight == PAGE
    space.memory[eight : eight + 8 * PAGE] = b"x" * 8 * PAGE
    assert sorted(take(space, 1) for _ in range(2)) == [9 * PAGE, 10 * PAGE]
    with pytest.raises(NoMemory):
        take(space, 1)
    space.close()


def test_a_dirty_run_is_used_first() -> None:
    space = small_arena(30)
    runs = [take(space, 2) for _ in range(4)]
    space.release(runs[1], 2)
    space.trim()
    space.release(runs[2], 2)
    assert space.dirty_pages == 2
    assert take(space, 2) == runs[2]
    assert take(space, 2) == runs[1]
    assert space.dirty_pages == 0
    space.close()


def test_merge_runs() -> None:
    assert arena.merge_runs([(8, 12), (0, 4), (4, 8), (20, 24)]) == [(0, 12), (20, 24)]
    assert arena.merge_runs([]) == []


def test_a_second_compaction_at_once_does_nothing(pool: PurePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like the kernel's: one at a time, the other returns 0."""
    handles = fill(pool, 400, 1000)
    pool.free_many([handle for number, handle in enumerate(handles) if number % 4])
    inner: list[int] = []
    monkeypatch.setattr(pool, "trim", lambda: inner.append(pool.compact()))
    assert pool.compact() > 0
    assert inner == [0]
    monkeypatch.undo()
    assert pool.compact() == 0
