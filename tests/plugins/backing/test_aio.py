"""Asynchronous I/O below the driver `direct`: what is under way, what failed, and what an exception leaves behind."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from zramcore.block_io import aligned_memory
from zramcore.interfaces import BackingSpec
from zramcore.testing.backing import closing, page
from zramcore_plugins.backing import aio
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


def test_closing_waits_for_what_is_under_way(ring: Ring, fd: int) -> None:
    memory = aligned_memory(PAGE)
    memory[:] = page(1000, PAGE)
    ring.start_write(fd, address_of(memory), PAGE, 5 * PAGE)
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
    with closing(DirectDriver(BackingSpec(str(folder / "disk"), {"size": str(100 * PAGE)}))) as made:
        assert isinstance(made, DirectDriver)
        made.write_blocks(0, [page(number, PAGE) for number in range(100)])
        yield made


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
    memory = aligned_memory(2 * PAGE)
    memory[:] = page(200, PAGE) + page(201, PAGE)
    for _ in range(MAX_RINGS + 1):
        assert driver.begin_write(10, memory) is None
        assert scattered(driver, BLOCKS) == CONTENT
    assert driver.read_blocks(10, 2) == page(200, PAGE) + page(201, PAGE)


def test_what_comes_short_is_completed(driver: DirectDriver, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """One transfer failed, another did only half: what is missing is done synchronously."""
    real = Ring.finish

    def finish(self: Ring) -> list[int]:
        results = real(self)
        results[-1] = -errno.EIO
        results[0] //= 2
        return results

    monkeypatch.setattr(Ring, "finish", finish)
    assert scattered(driver, BLOCKS) == CONTENT
    memory = aligned_memory(2 * PAGE)
    memory[:] = page(200, PAGE) + page(201, PAGE)
    wait = driver.begin_write(10, memory)
    assert wait is not None
    wait()
    assert driver.read_blocks(10, 2) == page(200, PAGE) + page(201, PAGE)


def test_a_file_that_was_truncated_is_reported(driver: DirectDriver) -> None:
    os.truncate(driver.medium.fd, 50 * PAGE)
    with pytest.raises(OSError, match="ends at byte"):
        scattered(driver, BLOCKS)


def test_a_write_that_fails_says_why(driver: DirectDriver, ring: Ring, folder: Path) -> None:
    """The medium's own error, wherever it shows: here the file is open for reading only."""
    writable = driver.medium.fd
    driver.medium.fd = os.open(folder / "disk", os.O_RDONLY | os.O_DIRECT)
    try:
        memory = aligned_memory(PAGE)

        def write() -> None:
            wait = driver.begin_write(3, memory)
            if wait is not None:
                wait()

        with pytest.raises(OSError, match="Bad file descriptor"):
            write()
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


def test_a_write_that_nobody_waits_for_ends_all_the_same(driver: DirectDriver) -> None:
    """What an exception between start and end comes to: nothing is under way once the function is gone."""
    memory = aligned_memory(PAGE)
    for number in range(2 * MAX_RINGS):
        memory[:] = page(300 + number, PAGE)
        wait = driver.begin_write(number, memory)
        del wait
        memory[:] = bytes(PAGE)
    contents = [driver.read_blocks(number, 1) for number in range(2 * MAX_RINGS)]
    assert contents == [page(300 + number, PAGE) for number in range(2 * MAX_RINGS)]
