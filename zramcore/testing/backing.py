"""BackingDriverConformance: what every backing driver must do. A plugin's author subclasses it and gives `make`::

class TestMyDriver(BackingDriverConformance):
    def make(self, tmp_path, nr_blocks, block_size):
        return MyDriver(BackingSpec(str(tmp_path / "disk"), {"size": str(nr_blocks * block_size)}, block_size))
"""

from __future__ import annotations

import errno
import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from zramcore.backing import MAX_RUN, BackingStore
from zramcore.block_io import aligned_memory
from zramcore.errors import ZramError
from zramcore.interfaces import API_VERSION, BackingDriver, BackingSpec, Verdicts, read_options


def page(seed: int, block_size: int) -> bytes:
    """A block of bytes that depend on `seed` and do not repeat."""
    return hashlib.shake_128(seed.to_bytes(8, "little")).digest(block_size)


@contextmanager
def closing(driver: BackingDriver) -> Iterator[BackingDriver]:
    """Close `driver` at the end of the with-block."""
    try:
        yield driver
    finally:
        driver.close()


def _refuses(method: Callable[..., object], *args: object) -> bool:
    try:
        method(*args)
    except OSError:
        return True
    return False


def _raise_any(verdicts: Verdicts) -> None:
    for verdict in verdicts:
        if verdict is not None:
            raise verdict


def _contents(runs: list[tuple[int, int]], block_size: int) -> bytes:
    return b"".join(page(block, block_size) for first, count in runs for block in range(first, first + count))


class BackingDriverConformance(ABC):
    """Subclass it as ``TestX`` in a test module. Class attributes say what the driver does not claim to do."""

    persistent: ClassVar[bool] = True
    """Contents survive close and reopening with the same spec."""
    exclusive: ClassVar[bool] = True
    """A medium that is open cannot be opened again: EBUSY."""

    @abstractmethod
    def make(self, tmp_path: Path, nr_blocks: int, block_size: int) -> BackingDriver:
        """A new, open driver with exactly `nr_blocks` blocks. Opening its `spec` again must open the same medium."""

    @pytest.fixture
    def driver(self, tmp_path: Path) -> Iterator[BackingDriver]:
        """A driver of 16 blocks of 4096 bytes."""
        with closing(self.make(tmp_path, 16, 4096)) as driver:
            yield driver

    def test_declares_what_it_is(self, driver: BackingDriver) -> None:
        assert driver.name.isprintable()
        assert not set(driver.name) & set(" :,[]")
        assert driver.summary
        assert driver.api_version == API_VERSION
        assert len({option.name for option in driver.options}) == len(driver.options)
        assert set(read_options(driver.name, driver.options, driver.spec.options)) == {o.name for o in driver.options}
        assert all(option.help for option in driver.options)

    @pytest.mark.parametrize("block_size", [4096, 16384, 65536])
    def test_block_sizes(self, tmp_path: Path, block_size: int) -> None:
        with closing(self.make(tmp_path, 5, block_size)) as driver:
            assert driver.nr_blocks == 5
            assert driver.block_size == block_size
            pages = [page(block, block_size) for block in range(5)]
            driver.write_blocks(0, pages)
            assert bytes(driver.read_blocks(0, 5)) == b"".join(pages)
            assert bytes(driver.read_blocks(4, 1)) == pages[4]

    def test_single_blocks(self, driver: BackingDriver) -> None:
        order = [7, 0, 15, 3]
        for block in order:
            driver.write_blocks(block, [page(block, 4096)])
        for block in reversed(order):
            assert bytes(driver.read_blocks(block, 1)) == page(block, 4096)

    def test_block_is_overwritten(self, driver: BackingDriver) -> None:
        driver.write_blocks(2, [page(1, 4096), page(2, 4096)])
        driver.write_blocks(2, [page(3, 4096)])
        assert bytes(driver.read_blocks(2, 2)) == page(3, 4096) + page(2, 4096)

    def test_runs_overlap_freely(self, driver: BackingDriver) -> None:
        driver.write_blocks(0, [page(block, 4096) for block in range(16)])
        driver.write_blocks(4, [page(100 + block, 4096) for block in range(4)])
        expected = [page(100 + block - 4 if 4 <= block < 8 else block, 4096) for block in range(16)]
        assert bytes(driver.read_blocks(0, 16)) == b"".join(expected)
        assert bytes(driver.read_blocks(3, 6)) == b"".join(expected[3:9])

    def test_long_run(self, tmp_path: Path) -> None:
        """Longer than the store ever asks for, and than IOV_MAX."""
        count = 4 * MAX_RUN + 3
        with closing(self.make(tmp_path, count + 1, 4096)) as driver:
            pages = [page(block, 4096) for block in range(count)]
            driver.write_blocks(1, pages)
            assert bytes(driver.read_blocks(1, count)) == b"".join(pages)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_takes_any_buffer(self, driver: BackingDriver, kind: Callable[[bytes], bytes]) -> None:
        driver.write_blocks(1, [kind(page(1, 4096)), kind(page(2, 4096))])
        assert bytes(driver.read_blocks(1, 2)) == page(1, 4096) + page(2, 4096)

    def test_keeps_no_reference_to_what_it_is_given(self, driver: BackingDriver) -> None:
        """The caller reuses its buffer, and may resize it: an export left behind would raise BufferError."""
        buffer = bytearray(page(1, 4096))
        driver.write_blocks(1, [buffer])
        buffer[:] = bytes(4096)
        assert bytes(driver.read_blocks(1, 1)) == page(1, 4096)
        buffer.clear()

    def test_what_it_returned_stays(self, driver: BackingDriver) -> None:
        """A later read or write of the same thread must not change an earlier result."""
        driver.write_blocks(1, [page(1, 4096), page(2, 4096)])
        first = driver.read_blocks(1, 1)
        driver.read_blocks(2, 1)
        driver.write_blocks(1, [page(3, 4096)])
        assert bytes(first) == page(1, 4096)

    @pytest.mark.parametrize("block_size", [4096, 16384])
    def test_writes_under_way(self, tmp_path: Path, block_size: int) -> None:
        """More at once than there may be room for: each is done when its function has returned, in any order."""
        runs = [(start, 1 + start // 5 % 3) for start in range(0, 240, 5)]
        with closing(self.make(tmp_path, 240, block_size)) as driver:
            under_way = [self._begin(driver, runs[first::12]) for first in range(12)]
            for wait in reversed(under_way):
                assert list(wait()) == [None] * 4
            for block, count in runs:
                assert bytes(driver.read_blocks(block, count)) == _contents([(block, count)], block_size)

    def test_a_write_of_many_runs(self, tmp_path: Path) -> None:
        """As on a medium on which every other block or so is used: what lies between stays as it is."""
        runs = [(start, 1 + start // 3 % 2) for start in range(0, 2400, 3)]
        written = {block for first, count in runs for block in range(first, first + count)}
        with closing(self.make(tmp_path, 2400, 4096)) as driver:
            driver.write_blocks(0, [page(1 << 20, 4096)] * 2400)
            assert list(self._begin(driver, runs)()) == [None] * len(runs)
            expected = [page(block if block in written else 1 << 20, 4096) for block in range(2400)]
            assert bytes(driver.read_blocks(0, 2400)) == b"".join(expected)

    def _begin(self, driver: BackingDriver, runs: list[tuple[int, int]]) -> Callable[[], Verdicts]:
        contents = _contents(runs, driver.block_size)
        memory = aligned_memory(len(contents))
        memory[:] = contents
        return driver.begin_write(runs, memory)

    @pytest.mark.parametrize("block_size", [4096, 16384])
    @pytest.mark.parametrize("blocks", [[5], [3, 4, 5], [9, 8, 7, 2], [0, 63, 1, 31, 62, 30], [*range(0, 400, 2), 1]])
    def test_scattered_blocks(self, tmp_path: Path, block_size: int, blocks: list[int]) -> None:
        """A driver that does not do it says so and leaves the buffer alone."""
        with closing(self.make(tmp_path, max(blocks) + 1, block_size)) as driver:
            for block in blocks:
                driver.write_blocks(block, [page(block, block_size)])
            target = aligned_memory(len(blocks) * block_size)
            target[:] = bytes(len(target))
            done = driver.read_scattered(blocks, target)
            expected = b"".join(page(block, block_size) for block in blocks)
            assert target == (expected if done else bytes(len(target)))

    @pytest.mark.parametrize(("block", "count"), [(15, 2), (16, 1), (0, 17), (-1, 1), (1 << 40, 1)])
    def test_bounds(self, driver: BackingDriver, block: int, count: int) -> None:
        pages = [page(block, 4096) for block in range(16)]
        driver.write_blocks(0, pages)
        assert _refuses(driver.write_blocks, block, [page(99, 4096)] * count)
        assert _refuses(driver.read_blocks, block, count)
        assert _refuses(driver.discard_blocks, block, count)
        memory = aligned_memory(count * 4096)
        assert _refuses(lambda: _raise_any(driver.begin_write([(block, count)], memory)()))
        assert _refuses(driver.read_scattered, range(block, block + count), memory) or type(driver).read_scattered is (
            BackingDriver.read_scattered
        )
        assert bytes(driver.read_blocks(0, 16)) == b"".join(pages)

    def test_persistence(self, tmp_path: Path) -> None:
        if not self.persistent:
            pytest.skip("the driver does not claim to be persistent")
        driver = self.make(tmp_path, 8, 4096)
        with closing(driver):
            driver.write_blocks(3, [page(3, 4096), page(4, 4096)])
            driver.flush()
        with closing(type(driver)(driver.spec)) as again:
            assert again.nr_blocks == 8
            assert bytes(again.read_blocks(3, 2)) == page(3, 4096) + page(4, 4096)

    def test_second_open_is_busy(self, tmp_path: Path) -> None:
        if not self.exclusive:
            pytest.skip("the driver does not claim to be exclusive")
        driver = self.make(tmp_path, 8, 4096)
        with closing(driver):
            driver.write_blocks(0, [page(1, 4096)])
            with pytest.raises(ZramError) as caught:
                type(driver)(driver.spec)
            assert caught.value.errno == errno.EBUSY
            assert bytes(driver.read_blocks(0, 1)) == page(1, 4096)
        type(driver)(driver.spec).close()

    def test_unknown_option(self, tmp_path: Path, driver: BackingDriver) -> None:
        options = {**driver.spec.options, "no-such-option": "1"}
        with pytest.raises(ZramError, match="no-such-option") as caught:
            type(driver)(BackingSpec(str(tmp_path / "other"), options, 4096))
        assert caught.value.errno == errno.EINVAL
        assert not (tmp_path / "other").exists()

    def test_discard(self, driver: BackingDriver) -> None:
        """What a discarded block reads as is not said, but reading and writing it works, and its neighbours stay."""
        driver.write_blocks(0, [page(block, 4096) for block in range(8)])
        driver.discard_blocks(2, 3)
        driver.discard_blocks(3, 1)
        assert len(driver.read_blocks(2, 3)) == 3 * 4096
        assert bytes(driver.read_blocks(0, 2)) == page(0, 4096) + page(1, 4096)
        assert bytes(driver.read_blocks(5, 3)) == b"".join(page(block, 4096) for block in (5, 6, 7))
        driver.write_blocks(3, [page(33, 4096)])
        assert bytes(driver.read_blocks(3, 1)) == page(33, 4096)

    def test_flush(self, driver: BackingDriver) -> None:
        driver.flush()
        driver.write_blocks(0, [page(1, 4096)])
        driver.flush()
        assert bytes(driver.read_blocks(0, 1)) == page(1, 4096)

    def test_threads_on_different_blocks(self, tmp_path: Path) -> None:
        threads, rounds, run = 4, 15, 5
        failures: list[BaseException] = []
        with closing(self.make(tmp_path, threads * run, 4096)) as driver:
            start = threading.Barrier(threads)

            def work(number: int) -> None:
                try:
                    start.wait(30)
                    for turn in range(rounds):
                        pages = [page(number << 16 | turn << 8 | index, 4096) for index in range(run)]
                        driver.write_blocks(number * run, pages)
                        assert bytes(driver.read_blocks(number * run, run)) == b"".join(pages)
                        assert bytes(driver.read_blocks(number * run + 2, 1)) == pages[2]
                except BaseException as error:
                    failures.append(error)

            workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        assert failures == []

    def test_under_the_store(self, tmp_path: Path) -> None:
        """Scattered blocks by way of BackingStore, which may be closed twice."""
        store = BackingStore(self.make(tmp_path, 64, 4096))
        assert store.reserve_many(64) == list(range(64))
        blocks = [9, 3, 4, 5, 60, 8, 0]
        assert store.write(blocks, [page(block, 4096) for block in blocks]) == [None] * len(blocks)
        assert [bytes(data) for data in store.read(blocks)] == [page(block, 4096) for block in blocks]
        store.release_many(blocks)
        assert store.bd_count == 64 - len(blocks)
        assert store.reserve() == 0
        store.flush()
        store.close()
        store.close()
        if self.exclusive:
            type(store.driver)(store.driver.spec).close()
