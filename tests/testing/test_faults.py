"""FaultyDriver is a good driver until it is told otherwise, and then fails exactly as told."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from zramcore.errors import DeviceBusy, InvalidValue
from zramcore.interfaces import BackingDriver, BackingSpec
from zramcore.testing.backing import BackingDriverConformance, page
from zramcore.testing.faults import FaultyDriver, Gate


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    FaultyDriver.reset()


def make(name: str = "disk", **options: str) -> FaultyDriver:
    return FaultyDriver(BackingSpec(name, options))


class TestFaultyDriver(BackingDriverConformance):
    def make(self, tmp_path: Path, nr_blocks: int, block_size: int) -> BackingDriver:
        return FaultyDriver(BackingSpec(str(tmp_path), {"blocks": str(nr_blocks)}, block_size))


def test_is_found_by_name_and_forgotten() -> None:
    driver = make(blocks="8")
    assert FaultyDriver.named("disk") is driver
    FaultyDriver.reset()
    with pytest.raises(KeyError):
        FaultyDriver.named("disk")
    driver.write_blocks(0, [page(1, 4096)])
    again = make(blocks="8")
    assert again.peek(0) == bytes(4096)
    assert driver.peek(0) == page(1, 4096)


@pytest.mark.parametrize(("options", "number"), [({"fail_open": "16"}, errno.EBUSY), ({"fail_open": "5"}, errno.EIO)])
def test_opening_fails_as_told(options: dict[str, str], number: int) -> None:
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        make(**options)
    assert caught.value.errno == number


def test_opening_refuses() -> None:
    with pytest.raises(InvalidValue):
        make(blocks="0")
    make()
    with pytest.raises(DeviceBusy):
        make()


def test_nth_write_fails_and_only_that() -> None:
    driver = make()
    driver.write_blocks(0, [page(0, 4096)])
    driver.fail_write(2, errno.ENOSPC, stored=1)
    driver.write_blocks(1, [page(1, 4096)])
    with pytest.raises(OSError, match="No space") as caught:
        driver.write_blocks(2, [page(2, 4096), page(3, 4096)])
    assert caught.value.errno == errno.ENOSPC
    assert (driver.peek(2), driver.peek(3)) == (page(2, 4096), bytes(4096))
    driver.write_blocks(3, [page(3, 4096)])
    assert driver.write_runs == [(0, 1), (1, 1), (2, 2), (3, 1)]
    assert driver.writes == 4


def test_reads_fail_for_some_time_with_any_exception() -> None:
    driver = make()
    driver.fail_read(1, RuntimeError("lost"), times=2)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="lost"):
            driver.read_blocks(0, 1)
    assert driver.read_blocks(0, 1) == bytes(4096)
    driver.shorten_read(1, 100)
    assert len(driver.read_blocks(0, 2)) == 100
    assert driver.reads == 4


def test_bad_block_stays_bad() -> None:
    driver = make()
    driver.bad_blocks[2] = errno.EIO
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            driver.write_blocks(1, [page(1, 4096), page(2, 4096)])
        with pytest.raises(OSError, match="Input/output"):
            driver.read_blocks(2, 1)
    assert driver.read_blocks(1, 1) == page(1, 4096)
    driver.poke(1, page(9, 4096))
    assert driver.read_blocks(1, 1) == page(9, 4096)


def test_discards_and_flushes() -> None:
    driver = make()
    driver.write_blocks(0, [page(0, 4096)])
    driver.fail_discards(errno.EOPNOTSUPP)
    with pytest.raises(OSError, match="not supported"):
        driver.discard_blocks(0, 1)
    assert driver.peek(0) == page(0, 4096)
    driver.fail_discards(None)
    driver.discard_blocks(0, 1)
    assert driver.peek(0) == bytes(4096)
    assert driver.discards == 2
    flushed: list[int] = []
    driver.on_flush = lambda: flushed.append(driver.flushes)
    driver.flush()
    assert flushed == [1]


def test_callbacks_run_inside_the_window() -> None:
    driver = make()
    seen: list[tuple[str, int, int, bool]] = []

    def note(when: str) -> None:
        setattr(
            driver,
            when,
            lambda block, count: seen.append((when, block, count, driver.peek(block) == page(7, 4096))),
        )

    for when in ("on_write", "after_write", "on_read", "after_read", "on_discard"):
        note(when)
    driver.write_blocks(7, [page(7, 4096)])
    driver.read_blocks(7, 1)
    driver.discard_blocks(7, 1)
    assert seen == [
        ("on_write", 7, 1, False),
        ("after_write", 7, 1, True),
        ("on_read", 7, 1, True),
        ("after_read", 7, 1, True),
        ("on_discard", 7, 1, True),
    ]


def test_gate_holds_a_writer_until_it_opens() -> None:
    driver = make()
    with Gate() as gate:
        driver.on_write = gate
        writer = threading.Thread(target=driver.write_blocks, args=(0, [page(0, 4096)]))
        writer.start()
        gate.wait()
        assert driver.peek(0) == bytes(4096)
    writer.join(30)
    assert driver.peek(0) == page(0, 4096)


def test_gate_gives_up() -> None:
    gate = Gate(timeout=0.01)
    with pytest.raises(TimeoutError):
        gate.wait()
    with pytest.raises(TimeoutError):
        gate(0, 1)


def test_closed_driver_takes_no_call() -> None:
    driver = make()
    driver.close()
    with pytest.raises(OSError, match="closed"):
        driver.read_blocks(0, 1)
