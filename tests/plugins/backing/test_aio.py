"""Asynchronous I/O below the driver `direct`: what is under way, what failed, and what an exception leaves behind."""

from __future__ import annotations

import errno
import os
import platform
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from zramcore.block_io import aligned_memory
from zramcore.errors import InvalidValue, OutOfRange
from zramcore.interfaces import BackingSpec, Verdicts
from zramcore.testing.backing import closing, page
from zramcore_plugins.backing import aio, direct
from zramcore_plugins.backing.aio import DEPTH, Ring, address_of
from zramcore_plugins.backing.direct import MAX_RINGS, DirectDriver

PAGE = 4096


@pytest.fixture
def ring() -> Iterator[Ring]:
    try:
        made = Ring()
    except OSError as error:
        pytest.skip(f"no asynchronous I/O here: {error}")
    yield made
    made.close()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A file of 100 pages, each another."""
    path = tmp_path / "file"
    path.write_bytes(b"".join(page(number, PAGE) for number in range(100)))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def read(ring: Ring, fd: int, blocks: list[int], target: memoryview) -> list[int]:
    """Read single blocks, block i to position i."""
    count = len(blocks)
    vectors = np.empty((count, 2), np.int64)
    vectors[:, 0] = address_of(target) + np.arange(count) * PAGE
    vectors[:, 1] = PAGE
    ring.start_reads(fd, vectors, np.arange(count), np.ones(count, np.int64), np.array(blocks) * PAGE)
    return ring.finish()


def test_a_full_ring_of_reads(ring: Ring, fd: int) -> None:
    blocks = [number * 37 % 100 for number in range(DEPTH)]
    target = aligned_memory(DEPTH * PAGE)
    for _ in range(2):
        target[:] = bytes(len(target))
        assert read(ring, fd, blocks, target) == [PAGE] * DEPTH
        assert target == b"".join(page(number, PAGE) for number in blocks)


def test_each_transfer_has_its_own_result(ring: Ring, fd: int) -> None:
    """Past the end nothing comes, and half of the last page when the file ends there."""
    os.truncate(fd, 99 * PAGE + 2048)
    assert read(ring, fd, [3, 99, 100, 4], aligned_memory(4 * PAGE)) == [PAGE, 2048, 0, PAGE]


def test_what_cannot_even_start_has_failed(ring: Ring) -> None:
    assert all(result < 0 for result in read(ring, 1 << 20, [1, 2], aligned_memory(2 * PAGE)))


def test_a_full_ring_of_writes(ring: Ring, fd: int) -> None:
    """Of one page and of two, from memory in another order."""
    memory = aligned_memory(2 * DEPTH * PAGE)
    memory[:] = b"".join(page(1000 + number, PAGE) for number in range(2 * DEPTH))
    order = range(DEPTH - 1, -1, -1)
    counts = [1 + number % 2 for number in order]
    addresses = [address_of(memory) + 2 * number * PAGE for number in order]
    ring.start_writes(fd, addresses, [count * PAGE for count in counts], [3 * place * PAGE for place in range(DEPTH)])
    assert ring.finish() == [count * PAGE for count in counts]
    for place, (number, count) in enumerate(zip(order, counts, strict=True)):
        expected = b"".join(page(1000 + 2 * number + index, PAGE) for index in range(count))
        assert os.pread(fd, count * PAGE, 3 * place * PAGE) == expected


def test_closing_waits_for_what_is_under_way(ring: Ring, fd: int) -> None:
    memory = aligned_memory(PAGE)
    memory[:] = page(1000, PAGE)
    ring.start_writes(fd, [address_of(memory)], [PAGE], [5 * PAGE])
    ring.close()
    assert os.pread(fd, PAGE, 5 * PAGE) == page(1000, PAGE)
    ring.close()


def test_a_machine_whose_calls_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    with pytest.raises(OSError, match="implemented") as caught:
        Ring()
    assert caught.value.errno == errno.ENOSYS


# In the driver ----------------------------------------------------------------------------------------------------


@pytest.fixture
def driver(folder: Path) -> Iterator[DirectDriver]:
    with closing(DirectDriver(BackingSpec(str(folder / "disk"), {"size": str(BLOCKS_OF_DISK * PAGE)}))) as made:
        assert isinstance(made, DirectDriver)
        made.write_blocks(0, [page(number, PAGE) for number in range(BLOCKS_OF_DISK)])
        yield made


BLOCKS_OF_DISK = 6 * DEPTH
MANY = [(block, 1 + block % 2) for block in range(0, BLOCKS_OF_DISK, 3)]
"""Twice as many runs as a ring takes."""


def new_page(block: int) -> bytes:
    return page(1 << 20 | block, PAGE)


def blocks_in(runs: list[tuple[int, int]]) -> list[int]:
    return [block for first, count in runs for block in range(first, first + count)]


def begin(driver: DirectDriver, runs: list[tuple[int, int]]) -> Callable[[], Verdicts]:
    """Start writing `new_page` to each block of `runs`."""
    contents = b"".join(map(new_page, blocks_in(runs)))
    memory = aligned_memory(len(contents))
    memory[:] = contents
    return driver.begin_write(runs, memory)


def changed(driver: DirectDriver) -> list[int]:
    """The blocks that `begin` has written. The others are as they were."""
    contents = bytes(driver.read_blocks(0, BLOCKS_OF_DISK))
    now = [contents[start : start + PAGE] for start in range(0, len(contents), PAGE)]
    new = [block for block, data in enumerate(now) if data == new_page(block)]
    assert all(data == page(block, PAGE) for block, data in enumerate(now) if block not in set(new))
    return new


def outcomes(verdicts: Verdicts) -> list[int | None]:
    return [verdict.errno if isinstance(verdict, OSError) else verdict and -1 for verdict in verdicts]


def scattered(driver: DirectDriver, blocks: list[int]) -> bytes:
    target = aligned_memory(len(blocks) * PAGE)
    assert driver.read_scattered(blocks, target)
    return bytes(target)


BLOCKS = [7, 5, 4, 90, 3, 60, 61]
CONTENT = b"".join(page(number, PAGE) for number in BLOCKS)


def test_without_rings_everything_is_done_call_by_call(driver: DirectDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Ring) -> None:
        self._context = 0
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(aio.Ring, "__init__", refused)
    for number in range(MAX_RINGS + 1):
        runs = [(10 * number + 100, 2), (10 * number + 105, 1)]
        wait = begin(driver, runs)
        assert not set(blocks_in(runs)) - set(changed(driver))
        assert list(wait()) == [None, None]
        assert scattered(driver, BLOCKS) == CONTENT


def test_more_batches_under_way_than_rings(driver: DirectDriver, ring: Ring) -> None:
    """Who finds no ring left has written when `begin_write` returns."""
    batches = [MANY[first :: MAX_RINGS + 2] for first in range(MAX_RINGS + 2)]
    under_way = [begin(driver, runs) for runs in batches]
    for runs in batches[MAX_RINGS:]:
        for block, count in runs:
            assert driver.read_blocks(block, count) == b"".join(map(new_page, range(block, block + count)))
    for wait, runs in reversed([*zip(under_way, batches, strict=True)]):
        assert list(wait()) == [None] * len(runs)
    assert changed(driver) == blocks_in(MANY)
    assert len(driver._rings) == MAX_RINGS


def test_more_runs_than_a_ring_takes(driver: DirectDriver, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them by the ring: none of them is left for the synchronous way."""
    monkeypatch.delattr(os, "pwritev")
    assert len(MANY) == 2 * DEPTH
    for runs in (MANY, [*MANY[:-1], (BLOCKS_OF_DISK - 4, 1), (BLOCKS_OF_DISK - 2, 1)]):
        assert list(begin(driver, runs)()) == [None] * len(runs)
        assert not set(blocks_in(runs)) - set(changed(driver))
    assert len(driver._rings) == 1


def test_a_run_that_is_not_on_the_medium_lets_none_be_written(driver: DirectDriver) -> None:
    memory = aligned_memory(3 * PAGE)
    for runs in ([(3, 1), (BLOCKS_OF_DISK - 1, 2)], [(-1, 1), (3, 2)], [(3, 3), (7, 0)]):
        with pytest.raises(OutOfRange):
            driver.begin_write(runs, memory)
    with pytest.raises(InvalidValue, match="8192 bytes are not the 12288 of the runs"):
        driver.begin_write([(3, 1), (5, 2)], aligned_memory(2 * PAGE))
    assert changed(driver) == []
    assert len(driver._rings) <= 1


def test_runs_that_fail_cost_only_themselves(driver: DirectDriver, ring: Ring) -> None:
    """The process may write files up to a limit: what is beyond fails, and a run across it comes short, then fails."""
    limit = 3 * (DEPTH + 9) + 1
    assert (limit - 1, 2) in MANY
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit * PAGE, before[1]))
    try:
        verdicts = begin(driver, MANY)()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    whole = [block + count <= limit for block, count in MANY]
    assert outcomes(verdicts) == [None if good else errno.EFBIG for good in whole]
    assert changed(driver) == [block for block in blocks_in(MANY) if block < limit]


def test_a_bad_run_among_many(driver: DirectDriver, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = DEPTH + 7
    real = os.pwritev
    asked: list[int] = []
    finish = Ring.finish

    def pwritev(fd: int, buffers: list[memoryview], offset: int) -> int:
        asked.append(offset)
        if offset == MANY[bad][0] * PAGE:
            raise OSError(errno.ENODATA, "bad block")
        return real(fd, buffers, offset)

    def finish_with_errors(self: Ring) -> list[int]:
        results = finish(self)
        results[7] = -errno.EIO
        return results

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(Ring, "finish", finish_with_errors)
    verdicts = begin(driver, MANY)()
    assert outcomes(verdicts) == [errno.ENODATA if run == bad else None for run in range(len(MANY))]
    assert asked == [MANY[7][0] * PAGE, MANY[bad][0] * PAGE]


def test_what_comes_short_is_completed(driver: DirectDriver, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """One transfer failed, another did only half: what is missing is done synchronously, from a whole block on."""
    real = Ring.finish
    write, written = os.pwritev, list[int]()

    def pwritev(fd: int, buffers: list[memoryview], offset: int) -> int:
        written.append(offset)
        return write(fd, buffers, offset)

    def finish(self: Ring) -> list[int]:
        results = real(self)
        results[-1] = -errno.EIO
        results[0] //= 2
        return results

    monkeypatch.setattr(Ring, "finish", finish)
    assert scattered(driver, BLOCKS) == CONTENT
    monkeypatch.setattr(os, "pwritev", pwritev)
    runs = [(10, 3), (20, 1), (30, 3)]
    assert list(begin(driver, runs)()) == [None] * 3
    assert written == [11 * PAGE, 30 * PAGE]
    assert changed(driver) == blocks_in(runs)


def test_a_file_that_was_truncated_is_reported(driver: DirectDriver) -> None:
    os.truncate(driver.medium.fd, 50 * PAGE)
    with pytest.raises(OSError, match="ends at byte"):
        scattered(driver, BLOCKS)


def test_a_write_that_fails_says_why(driver: DirectDriver, ring: Ring, folder: Path) -> None:
    """The medium's own error, wherever it shows: here the file is open for reading only."""
    writable = driver.medium.fd
    driver.medium.fd = os.open(folder / "disk", os.O_RDONLY | os.O_DIRECT)
    try:
        verdicts = begin(driver, [(3, 1), (5, 2)])()
        assert outcomes(verdicts) == [errno.EBADF] * 2
    finally:
        os.close(driver.medium.fd)
        driver.medium.fd = writable


@pytest.mark.parametrize("method", ["start_reads", "finish"])
def test_an_interrupt_on_a_ring(driver: DirectDriver, ring: Ring, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The ring is closed, which waits, and another takes its place: as often as one likes."""
    real = getattr(Ring, method)

    def interrupted(self: Ring, *arguments: object) -> None:
        if method == "start_reads":
            real(self, *arguments)
        raise KeyboardInterrupt

    for _ in range(2 * MAX_RINGS):
        with monkeypatch.context() as patch:
            patch.setattr(Ring, method, interrupted)
            with pytest.raises(KeyboardInterrupt):
                scattered(driver, BLOCKS)
    monkeypatch.undo()
    assert scattered(driver, BLOCKS) == CONTENT
    assert len(driver._rings) == 1


@pytest.mark.parametrize(("method", "call"), [("start_writes", 1), ("start_writes", 2), ("finish", 1), ("finish", 2)])
def test_an_interrupt_of_a_write(
    driver: DirectDriver, ring: Ring, monkeypatch: pytest.MonkeyPatch, method: str, call: int
) -> None:
    """Nothing is under way afterwards, so the memory may be used for something else."""
    real = getattr(Ring, method)
    calls = [0]

    def interrupted(self: Ring, *arguments: object) -> object:
        calls[0] += 1
        if calls[0] == call:
            if method == "start_writes":
                real(self, *arguments)
            raise KeyboardInterrupt
        return real(self, *arguments)

    memory = aligned_memory(len(blocks_in(MANY)) * PAGE)
    for _ in range(MAX_RINGS + 1):
        memory[:] = b"".join(map(new_page, blocks_in(MANY)))
        calls[0] = 0
        with monkeypatch.context() as patch:
            patch.setattr(Ring, method, interrupted)
            with pytest.raises(KeyboardInterrupt):
                driver.begin_write(MANY, memory)()
        memory[:] = bytes(len(memory))
        assert changed(driver) == blocks_in(MANY[: call * DEPTH])
        assert driver._rings == []
    assert list(begin(driver, MANY)()) == [None] * len(MANY)


def test_an_interrupt_when_all_is_under_way(driver: DirectDriver, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback keeps what the driver had in its hands; the write has ended all the same, and its ring is free."""

    def interrupted(writes: Iterator[Verdicts]) -> Verdicts:
        next(writes)
        raise KeyboardInterrupt

    memory = aligned_memory(PAGE)
    kept: list[BaseException] = []
    with monkeypatch.context() as patch:
        patch.setattr(direct, "next", interrupted, raising=False)
        for block in range(MAX_RINGS):
            memory[:] = new_page(block)
            with pytest.raises(KeyboardInterrupt) as caught:
                driver.begin_write([(block, 1)], memory)
            memory[:] = bytes(PAGE)
            kept.append(caught.value)
    assert changed(driver) == list(range(MAX_RINGS))
    assert list(begin(driver, MANY)()) == [None] * len(MANY)
    assert len(driver._rings) == 1


def test_a_write_that_nobody_waits_for_ends_all_the_same(driver: DirectDriver) -> None:
    """What an exception between start and end comes to: nothing is under way once the function is gone."""
    memory = aligned_memory(PAGE)
    for number in range(2 * MAX_RINGS):
        memory[:] = page(300 + number, PAGE)
        wait = driver.begin_write([(number, 1)], memory)
        del wait
        memory[:] = bytes(PAGE)
    contents = [driver.read_blocks(number, 1) for number in range(2 * MAX_RINGS)]
    assert contents == [page(300 + number, PAGE) for number in range(2 * MAX_RINGS)]
