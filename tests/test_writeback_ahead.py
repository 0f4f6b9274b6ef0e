"""A pass on a medium that takes its time: while a batch is being written, the next one is read, and anything happens.

The driver is a FaultyDriver with ``deferred=1``: a write happens when its end is waited for, so the next batch has been
read by then. `on_write` is the window in which both are at stake.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from random import Random

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import BudgetExhausted, NoSpace, PluginFault, ZramError
from zramcore.interfaces import Buffer
from zramcore.slot_table import WB
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import check_consistent, stat

DeviceFactory = Callable[..., Device]
PAGE = 4096
PAGES = 12
BATCH = 4


def page(number: int) -> bytes:
    return (number.to_bytes(8, "little") + Random(number).randbytes(900)).ljust(PAGE, b"\0")


CONTENT = b"".join(page(index) for index in range(PAGES))


def store(device: Device, name: str, text: str) -> None:
    attributes.store(device, name, text)


def is_written_back(device: Device, index: int) -> bool:
    assert device.path is not None
    return bool(device.path.table.flags_row[index] & WB)


def written_back(device: Device) -> list[int]:
    return [index for index in range(PAGES) if is_written_back(device, index)]


def at_write(driver: FaultyDriver, number: int, action: Callable[[], object]) -> None:
    """Act in the window of the `number`th write from now."""
    wanted = len(driver.write_runs) + number

    def act(block: int, count: int) -> None:
        if len(driver.write_runs) == wanted:
            action()

    driver.on_write = act


@pytest.fixture
def slow(device: DeviceFactory, rogue: object) -> Device:
    """Twelve idle pages, which a pass takes from the last to the first, four to a batch."""
    made = device(
        0, blocks=0, uses=rogue.catalogue, comp_algorithm="rogue", allocator="rogue",  # type: ignore[attr-defined]
        backing_dev="faulty:slow,blocks=32,deferred=1", writeback_batch_size=str(BATCH), disksize=str(PAGES * PAGE),
    )  # fmt: skip
    made.pwrite(0, CONTENT)
    store(made, "idle", "all")
    store(made, "writeback_limit", "100")
    store(made, "writeback_limit_enable", "1")
    return made


@pytest.fixture
def driver(slow: Device) -> FaultyDriver:
    return FaultyDriver.named("slow")


def go_on(device: Device, driver: FaultyDriver, rogue: object, written: int) -> None:
    """`written` units were charged for good; nothing else is left of the pass, and the next one writes all the rest."""
    check_consistent(device)
    assert attributes.show(device, "writeback_limit") == f"{100 - written}\n"
    driver.heal()
    driver.on_write = None
    rogue.heal()  # type: ignore[attr-defined]
    store(device, "writeback", f"page_indexes=0-{PAGES - 1}")
    assert written_back(device) == list(range(PAGES))
    assert device.pread(0, PAGES * PAGE) == CONTENT
    check_consistent(device)


def test_the_next_batch_is_read_while_one_is_written(slow: Device, driver: FaultyDriver, rogue: object) -> None:
    seen: list[tuple[int, int]] = []
    calls = rogue.calls  # type: ignore[attr-defined]
    driver.on_write = lambda block, count: seen.append((block, calls["decompress_page"]))
    store(slow, "writeback", "idle")
    assert seen == [(0, 2 * BATCH), (BATCH, 3 * BATCH), (2 * BATCH, 3 * BATCH)]
    assert driver.begun == 3
    assert stat(slow, "bd_stat") == [PAGES, 0, PAGES]
    assert slow.pread(0, PAGES * PAGE) == CONTENT
    check_consistent(slow)


def test_a_page_that_was_read_ahead_and_then_changed_costs_no_write(slow: Device, driver: FaultyDriver) -> None:
    """Indexes 7 to 4 are the second batch. What is left of it is written, and still contiguous."""
    new = page(100)

    def change() -> None:
        slow.pwrite(6 * PAGE, new)
        slow.discard(4 * PAGE, PAGE)

    at_write(driver, 1, change)
    store(slow, "writeback", "idle")
    assert driver.write_runs == [(0, 4), (4, 2), (6, 4)]
    assert stat(slow, "bd_stat") == [10, 0, 10]
    expected = CONTENT[: 4 * PAGE] + bytes(PAGE) + page(5) + new + CONTENT[7 * PAGE :]
    assert slow.pread(0, PAGES * PAGE) == expected
    check_consistent(slow)


def test_a_batch_that_was_lost_as_a_whole_is_passed_over(slow: Device, driver: FaultyDriver) -> None:
    at_write(driver, 1, lambda: slow.pread(4 * PAGE, 4 * PAGE))
    store(slow, "writeback", "idle")
    assert driver.write_runs == [(0, 4), (4, 4)]
    assert written_back(slow) == [0, 1, 2, 3, 8, 9, 10, 11]


def test_stopped_while_the_next_batch_is_ready(slow: Device, driver: FaultyDriver, rogue: object) -> None:
    at_write(driver, 1, slow.stop_pass.set)
    with pytest.raises(ZramError) as caught:
        store(slow, "writeback", "idle")
    assert caught.value.errno == errno.EINTR
    assert stat(slow, "bd_stat") == [BATCH, 0, BATCH]
    slow.stop_pass.clear()
    go_on(slow, driver, rogue, BATCH)


def test_the_budget_is_looked_at_when_a_batch_is_submitted(slow: Device, driver: FaultyDriver) -> None:
    at_write(driver, 1, lambda: store(slow, "writeback_limit", "3"))
    with pytest.raises(BudgetExhausted):
        store(slow, "writeback", "idle")
    assert stat(slow, "bd_stat") == [7, 0, 7]
    assert written_back(slow) == [5, 6, 7, 8, 9, 10, 11]
    assert attributes.show(slow, "writeback_limit") == "0\n"
    check_consistent(slow)


def test_what_a_failed_batch_gives_back_is_there_for_the_next(slow: Device, driver: FaultyDriver) -> None:
    """Its blocks are the lowest free ones again, and its budget is enough for two more batches."""
    store(slow, "writeback_limit", "8")
    driver.fail_write(1, errno.EIO, times=1 + BATCH)
    with pytest.raises(ZramError) as caught:
        store(slow, "writeback", "idle")
    assert caught.value.errno == errno.EIO
    assert driver.write_runs[1 + BATCH :] == [(0, 4), (4, 4)]
    assert written_back(slow) == list(range(8))
    assert attributes.show(slow, "writeback_limit") == "0\n"
    check_consistent(slow)


def test_a_run_that_fails_at_its_end_is_tried_block_by_block(slow: Device, driver: FaultyDriver, rogue: object) -> None:
    """The bad block is the lowest free one again, so it costs the next batch a page, too (as in the kernel)."""
    driver.bad_blocks = {5: errno.ENXIO}
    with pytest.raises(ZramError) as caught:
        store(slow, "writeback", "idle")
    assert caught.value.errno == errno.ENXIO
    assert len(written_back(slow)) == PAGES - 2
    go_on(slow, driver, rogue, PAGES - 2)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_reading_ahead_fails_while_a_write_is_under_way(
    slow: Device, driver: FaultyDriver, rogue: object, error: BaseException
) -> None:
    """An error of the plugin's lets the batch be committed first; after an interrupt its write has ended, at least,
    before its blocks are anybody else's."""
    assert slow.path is not None
    real = super(type(slow.path.allocator), slow.path.allocator).view
    calls = [0]

    def view(handle: int, size: int) -> Buffer:
        calls[0] += 1
        if calls[0] > BATCH:
            raise error
        return real(handle, size)

    rogue.acts["view"] = view  # type: ignore[attr-defined]
    is_fault = isinstance(error, RuntimeError)
    with pytest.raises(PluginFault if is_fault else KeyboardInterrupt):
        store(slow, "writeback", "idle")
    assert driver.write_runs == [(0, BATCH)]
    assert written_back(slow) == ([8, 9, 10, 11] if is_fault else [])
    go_on(slow, driver, rogue, BATCH if is_fault else 0)


@pytest.mark.parametrize("write", [1, 2, 3])
def test_an_interrupt_while_a_write_is_waited_for(
    slow: Device, driver: FaultyDriver, rogue: object, write: int
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    at_write(driver, write, interrupt)
    with pytest.raises(KeyboardInterrupt):
        store(slow, "writeback", "idle")
    go_on(slow, driver, rogue, (write - 1) * BATCH)


def test_a_damaged_page_in_the_batch_that_is_read_ahead(slow: Device, driver: FaultyDriver, rogue: object) -> None:
    """It is left out, stays in memory, and is the pass's error; it takes no block and no budget."""
    assert slow.path is not None
    row = slow.path.table.flags_row[6] & 0x1FFFF
    bad = bytes(slow.path.allocator.view(slow.path.table.handles_row[6], row))
    real = slow.path.zcomp.context(0).inner.decompress_page  # type: ignore[attr-defined]

    def decompress(packed: bytes, page_size: int) -> bytes:
        if bytes(packed) == bad:
            raise ValueError("damaged")
        return bytes(real(packed, page_size))

    rogue.acts["decompress_page"] = decompress  # type: ignore[attr-defined]
    with pytest.raises(PluginFault, match="damaged"):
        store(slow, "writeback", "idle")
    assert written_back(slow) == [index for index in range(PAGES) if index != 6]
    assert stat(slow, "bd_stat") == [11, 0, 11]
    go_on(slow, driver, rogue, 11)


def test_a_full_store_with_a_batch_read_ahead(slow: Device, driver: FaultyDriver) -> None:
    assert slow.backing is not None
    taken = slow.backing.reserve_many(32 - 6)
    with pytest.raises(NoSpace):
        store(slow, "writeback", "idle")
    assert stat(slow, "bd_stat")[2] == 6
    assert written_back(slow) == list(range(6, PAGES))
    slow.backing.release_many(taken)
    check_consistent(slow)


def test_a_reset_waits_for_the_end_of_a_write(slow: Device, driver: FaultyDriver) -> None:
    other = threading.Thread(target=store, args=(slow, "reset", "1"))

    def reset() -> None:
        other.start()
        assert slow.stop_pass.wait(30)
        assert not driver.closed

    at_write(driver, 2, reset)
    with pytest.raises(ZramError) as caught:
        store(slow, "writeback", "idle")
    assert caught.value.errno == errno.EINTR
    other.join()
    assert driver.closed
    assert not slow.initialized


def test_a_slot_named_twice_is_not_read_ahead(slow: Device, driver: FaultyDriver) -> None:
    """Whether it still has its token is known only when its first batch is done: batches are as on any medium."""
    store(slow, "writeback_batch_size", "2")
    store(slow, "writeback", "page_indexes=0-3 page_indexes=2-4")
    assert written_back(slow) == [0, 1, 2, 3, 4]
    check_consistent(slow)
