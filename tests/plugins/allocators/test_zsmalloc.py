"""What zsmalloc promises beyond the contract, in both forms: memory goes back, and no argument does harm."""

from __future__ import annotations

import ctypes
import gc
import mmap
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zramcore.errors import InvalidValue, NoMemory, NoSpace
from zramcore_plugins.allocators import address_space
from zramcore_plugins.allocators.pool import Pool

PAGE = 4096
MIB = 1 << 20
SPARE_MOST = 8192
"""Free handles that the pool in Python keeps at hand."""


@pytest.fixture
def pool(kind: type[Pool]) -> Iterator[Pool]:
    made = kind(PAGE, 20_000)
    yield made
    made.close()


def resident() -> int:
    """Bytes of memory this process holds, when what tests before have left behind is gone."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def fill(pool: Pool, count: int, size: int) -> list[int]:
    handles: list[int] = []
    pool.store([b"\xa5" * size] * count, [0] * count, 0, handles)
    return handles


# Memory -------------------------------------------------------------------------------------------------------------


def test_an_empty_pool_of_a_100_gib_device_costs_nothing(kind: type[Pool]) -> None:
    before = resident()
    pool = kind(PAGE, 26_214_400)
    assert resident() - before < MIB
    handle = pool.store_one(b"x" * 1000, 0)
    assert bytes(pool.view(handle, 1000)) == b"x" * 1000
    assert resident() - before < 2 * MIB
    pool.close()


@pytest.mark.parametrize("size", [PAGE, 1500])
def test_resident_memory_follows_pages_used(pool: Pool, size: int) -> None:
    """It rises and falls with the pool: all of it, and half of it in runs between live ones."""
    empty = resident()
    handles = fill(pool, 12_000, size)
    full = resident() - empty
    used = pool.pages_used * PAGE
    assert used * 0.98 < full < used * 1.1
    ranges = [handles[start : start + 500] for start in range(0, 12_000, 500)]
    for doomed in ranges[::2]:
        pool.free_many(doomed)
    pool.trim()
    used = pool.pages_used * PAGE
    assert used < full * 0.55
    assert resident() - empty < used * 1.1 + 2 * MIB
    for doomed in ranges[1::2]:
        for handle in doomed:
            pool.free(handle)
    assert resident() - empty < 4 * MIB, "without trim: only what waits for it is left"
    pool.trim()
    assert resident() - empty < 2 * MIB


def test_compaction_gives_memory_back(pool: Pool) -> None:
    handles = fill(pool, 16_000, 1000)
    empty = resident() - pool.pages_used * PAGE
    pool.free_many([handle for number, handle in enumerate(handles) if number % 4])
    before = pool.pages_used
    assert pool.compact() > before // 2
    assert resident() - empty < pool.pages_used * PAGE + 2 * MIB


def test_overwriting_for_ever_uses_no_more_memory(pool: Pool) -> None:
    source = random.Random(1)
    handles = fill(pool, 2000, 1500)
    empty = resident() - pool.pages_used * PAGE
    for _ in range(60):
        places = source.sample(range(2000), 300)
        new: list[int] = []
        data = [bytes(source.randint(1, PAGE)) for _ in places]
        pool.store(data, [handles[place] for place in places], 0, new)
        for place, handle in zip(places, new, strict=True):
            handles[place] = handle
    assert resident() - empty < pool.pages_used * PAGE * 1.1 + 3 * MIB
    assert max(handles) < 4000, "handles are used again"


# Handles and buffers ------------------------------------------------------------------------------------------------


def test_many_free_handles_are_chained(pool: Pool) -> None:
    """Twice through more handles than are kept at hand: each is given out once."""
    for _ in range(2):
        handles = fill(pool, 20_000, 20)
        assert sorted(handles) == list(range(1, 20_001))
        assert pool.store_one(b"x", 0) == 0, "max_objects are alive"
        keep, doomed = handles[0], handles[1:]
        pool.free_many(doomed)
        assert bytes(pool.view(keep, 20)) == b"\xa5" * 20
        with pytest.raises(InvalidValue):
            pool.free(doomed[SPARE_MOST])
        with pytest.raises(InvalidValue):
            pool.free(doomed[-1])
        pool.free(keep)
        assert pool.pages_used == 0


def test_unknown_handles(pool: Pool) -> None:
    handle = pool.alloc(10)
    pool.free(handle)
    calls: list[Callable[[int], object]] = [
        pool.free,
        lambda bad: pool.view(bad, 10),
        lambda bad: pool.views([bad], [10]),
        lambda bad: pool.write(bad, b"x"),
    ]
    for call in calls:
        for bad in (handle, 0, 19_999, 10**9):
            with pytest.raises(InvalidValue, match=str(bad)) as caught:
                call(bad)
            assert caught.value.hint


def test_size_errors_in_store(pool: Pool) -> None:
    for data, kind in ((b"", InvalidValue), (bytes(PAGE + 1), NoSpace)):
        with pytest.raises(kind):
            pool.store_one(data, 0)
        with pytest.raises(kind):
            pool.store([data], [0], 0, [])
    assert pool.pages_used == 0


def test_write_stays_inside_its_object(pool: Pool) -> None:
    first, second = pool.alloc(100), pool.alloc(100)
    huge = pool.alloc(PAGE)
    pool.write(second, b"s" * 100)
    for handle, room in ((first, 104), (huge, PAGE)):
        pool.write(handle, b"x" * room)
        with pytest.raises(InvalidValue, match="do not fit"):
            pool.write(handle, b"x" * (room + 1))
    assert bytes(pool.view(second, 100)) == b"s" * 100


# Address space --------------------------------------------------------------------------------------------------------


def test_less_address_space_than_wanted(kind: type[Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Half, a quarter, ... down to 64 MiB, then ENOMEM."""
    real = mmap.mmap
    most = 200 * MIB

    def scarce(fileno: int, length: int, **options: Any) -> Any:
        if length > most:
            raise OSError(12, "no address space")
        return real(fileno, length, **options)

    monkeypatch.setattr(mmap, "mmap", scarce)
    pool = kind(PAGE, 100_000)
    assert bytes(pool.view(pool.store_one(b"here", 0), 4)) == b"here"
    pool.close()
    most = 10 * MIB
    with pytest.raises(NoMemory, match="address space"):
        kind(PAGE, 100_000)


@pytest.fixture
def small(kind: type[Pool], monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """A pool that found address space for 32 to 64 pages only."""
    real = mmap.mmap

    def scarce(fileno: int, length: int, **options: Any) -> Any:
        if length > 70 * PAGE:
            raise OSError(12, "no address space")
        return real(fileno, length, **options)

    monkeypatch.setattr(mmap, "mmap", scarce)
    monkeypatch.setattr(address_space, "SMALLEST", 32 * PAGE)
    made = kind(PAGE, 1000)
    yield made
    made.close()


def test_store_in_a_full_arena_is_short(small: Pool) -> None:
    """Out of address space is out of memory, like mem_limit."""
    handles: list[int] = []
    small.store([bytes(PAGE)] * 80, [0] * 80, 0, handles)
    assert 32 <= len(handles) < 64
    with pytest.raises(NoMemory, match="used up"):
        small.alloc(2000)
    assert small.store_one(bytes(2000), 0) == 0
    small.free(handles[3])
    assert small.store_one(bytes(2000), 0) > 0


def test_a_full_arena_cuts_its_free_runs_anew(small: Pool) -> None:
    """Neighbours are merged: eight runs of a page serve a zspage of eight pages, and the other way round."""
    handles: list[int] = []
    small.store([bytes(PAGE)] * 80, [0] * 80, 0, handles)
    full = len(handles)
    assert small.pages_used == full
    small.free_many(handles[:16:2])
    assert small.store_one(bytes(3600), 0) == 0, "eight pages are free, but no two in a row"
    small.free_many(handles[1:16:2])
    nines = [small.store_one(bytes([number]) * 3600, 0) for number in range(18)]
    assert all(nines), "two zspages of nine"
    assert small.store_one(b"x", 0) == 0
    for number, handle in enumerate(nines):
        assert bytes(small.view(handle, 3600)) == bytes([number]) * 3600
    small.free_many(nines)
    again: list[int] = []
    small.store([bytes(PAGE)] * 80, [0] * 80, 0, again)
    assert len(again) == 16


# Threads and signals ------------------------------------------------------------------------------------------------


def test_everything_at_once(kind: type[Pool]) -> None:
    """Threads that store, free, compact, trim and ask: no deadlock, no lost object, and it ends empty."""
    pool = kind(PAGE, 4000)
    failures: list[BaseException] = []
    stop = threading.Event()

    def owner(number: int) -> None:
        source = random.Random(number)
        mine: list[int] = []
        for _ in range(80):
            new: list[int] = []
            data = [bytes([number]) * source.randint(1, 3000) for _ in range(40)]
            pool.store(data, mine[:40] + [0] * (40 - len(mine[:40])), 0, new)
            mine = mine[40:] + new
            if len(mine) > 200:
                pool.free_many(mine[100:])
                del mine[100:]
            handle = pool.alloc(50)
            pool.write(handle, bytes([number]) * 50)
            mine.append(handle)
        pool.free_many(mine)

    def busybody() -> None:
        while not stop.is_set():
            pool.compact()
            pool.trim()
            pool.class_table()
            pool.pages_freed_by(list(range(1, 500)), [1] * 499)

    def work(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # reported by the main thread, whatever it is
            failures.append(error)

    owners = [threading.Thread(target=work, args=(lambda number=number: owner(number),)) for number in range(3)]
    other = threading.Thread(target=work, args=(busybody,))
    for thread in (*owners, other):
        thread.start()
    for thread in owners:
        thread.join(timeout=120)
    stop.set()
    other.join(timeout=120)
    assert not any(thread.is_alive() for thread in (*owners, other))
    assert failures == []
    assert pool.pages_used == 0
    pool.close()


SIGNALLED = """
import signal, sys
import numpy as np
from zramcore_plugins.allocators.native_pool import NativePool

class Stop(Exception):
    pass

def stop(number, frame):
    raise Stop

pool = NativePool(4096, 5000)
count, stops, turn = 1000, 0, 0
packed = bytes(4096)
offsets, sizes = np.zeros(count, np.uint32), np.full(count, 3000, np.uint32)
held = np.zeros(count, np.uint64)
signal.signal(signal.SIGALRM, stop)
while stops < 60:
    handles = np.zeros(count, np.uint64)
    turn += 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.00001 + turn % 50 * 0.00001)  # a call takes some 300 us
        try:
            pool.store_packed(packed, offsets, sizes, held, 0, handles)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Stop:
        stops += 1
    assert handles.all() or not handles.any(), "a call is done or not begun"
    if handles.any():
        held = handles
    assert sum(row.obj_used for row in pool.class_table()) == np.count_nonzero(held)
print(stops)
"""


def test_no_signal_divides_a_packed_store(native: type[Pool]) -> None:
    """Timers that raise at once, before, in and after the call."""
    run = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "60\n"


def test_a_closed_native_pool_does_no_harm(native: type[Pool]) -> None:
    """No call follows `close`; one that does all the same fails, and touches no memory."""
    pool = native(PAGE, 10)
    handle = pool.store_one(b"data", 0)
    window = pool.view(handle, 4)
    positions, memory = pool.arena or pytest.fail("a native pool has an arena")
    pool.close()
    pool.close()
    assert bytes(window) == bytes(4), "a view that somebody held keeps the place, not the contents"
    for closed in (positions, memory):
        with pytest.raises(ValueError, match="released"):
            closed[0]
    for call in (lambda: pool.view(handle, 4), lambda: pool.free(handle), lambda: pool.alloc(4)):
        with pytest.raises((InvalidValue, NoSpace, NoMemory)):
            call()
    with pytest.raises((InvalidValue, NoSpace, NoMemory)):
        pool.store([b"x"], [0], 0, [])
    assert (pool.pages_used, pool.compact(), pool.class_table()) == (0, 0, [])
    assert pool.pages_freed_by([handle], [4]) == 0
    pool.trim()


def test_nobody_writes_behind_a_native_pools_back(native: type[Pool]) -> None:
    """Its lists lie between the objects: neither a view nor the arena lets them be overwritten."""
    pool = native(PAGE, 10)
    handle = pool.store_one(b"data", 0)
    windows = (pool.view(handle, 4), *pool.views([handle], [4]), *(pool.arena or ()))
    assert all(memoryview(window).readonly for window in windows)
    pool.close()
