"""What zsmalloc promises beyond the contract, in both forms: memory goes back, and no argument does harm."""

from __future__ import annotations

import mmap
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zramcore.errors import InvalidValue, NoMemory, NoSpace
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
    """Bytes of memory this process holds."""
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
