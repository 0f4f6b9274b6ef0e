"""The races of a writeback pass, one test each: the backing driver acts from inside its own write or read.

That is the very window in which the pass (or the reader) holds no lock and anything may happen to the slot. The rows
are those of the kernel's own comments: what may happen to a slot between its object's reading and its row's commit.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from random import Random

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import BudgetExhausted, DeviceIOError, NoSpace, PluginFault, ZramError
from zramcore.slot_table import IDLE, WB
from zramcore.testing.faults import FaultyDriver, Gate
from zramcore.testing.inspection import check_consistent, peek, stat

DeviceFactory = Callable[..., Device]
PAGE = 4096


def page(number: int, noise: int = 900) -> bytes:
    """A page that compresses to a little more than `noise` bytes, another one for each number."""
    return (number.to_bytes(8, "little") + Random(number).randbytes(noise)).ljust(PAGE, b"\0")


def store(device: Device, name: str, text: str) -> None:
    attributes.store(device, name, text)


def is_written_back(device: Device, index: int) -> bool:
    assert device.path is not None
    return bool(device.path.table.flags_row[index] & WB)


def is_idle(device: Device, index: int) -> bool:
    assert device.path is not None
    return bool(device.path.table.flags_row[index] & IDLE)


def block_of(device: Device, index: int) -> int:
    assert device.path is not None
    assert is_written_back(device, index)
    return int(device.path.table.handles_row[index])


def once(action: Callable[[], object], on_call: int = 1) -> Callable[[int, int], None]:
    """A callback of the driver that acts in its `on_call`th call only."""
    calls = [0]

    def callback(block: int, count: int) -> None:
        calls[0] += 1
        if calls[0] == on_call:
            action()

    return callback


@pytest.fixture
def filled(device: DeviceFactory) -> Device:
    """Eight pages, all idle, and sixteen blocks."""
    made = device(8, blocks=16, recomp_algorithm="algo=zstd")
    for index in range(8):
        made.pwrite(index * PAGE, page(index))
    store(made, "idle", "all")
    return made


@pytest.fixture
def driver(filled: Device) -> FaultyDriver:
    return FaultyDriver.named("disk")


# The race table: whatever happens to slot 0 in the window, its block is not committed --------------------------------


def abandoned(device: Device, driver: FaultyDriver, action: Callable[[], object], content: bytes) -> None:
    """Run `action` while slot 0 is being written: the pass succeeds and leaves the slot alone."""
    driver.on_write = once(action)
    store(device, "writeback", "page_index=0")
    assert not is_written_back(device, 0)
    assert stat(device, "bd_stat") == [0, 0, 1]  # the wasted write is counted, its block given back
    check_consistent(device)
    assert peek(device, 0) == content
    assert device.pread(0, PAGE) == content


def test_freed(filled: Device, driver: FaultyDriver) -> None:
    abandoned(filled, driver, lambda: filled.discard(0, PAGE), bytes(PAGE))


def test_freed_and_rewritten(filled: Device, driver: FaultyDriver) -> None:
    def action() -> None:
        filled.discard(0, PAGE)
        filled.pwrite(0, page(100))

    abandoned(filled, driver, action, page(100))


def test_freed_rewritten_and_marked_idle(filled: Device, driver: FaultyDriver) -> None:
    def action() -> None:
        filled.discard(0, PAGE)
        filled.pwrite(0, page(101))
        store(filled, "idle", "all")
        assert is_idle(filled, 0)

    abandoned(filled, driver, action, page(101))


def test_rewritten_with_the_same_bytes(filled: Device, driver: FaultyDriver) -> None:
    """Equal contents do not help a stale token: the slot was written, so it is in use."""
    abandoned(filled, driver, lambda: filled.pwrite(0, page(0)), page(0))


def test_rewritten_as_part_of_a_longer_request(filled: Device, driver: FaultyDriver) -> None:
    abandoned(filled, driver, lambda: filled.pwrite(0, page(102) + page(103)), page(102))


def test_rewritten_same_filled(filled: Device, driver: FaultyDriver) -> None:
    abandoned(filled, driver, lambda: filled.pwrite(0, b"zramcore" * 512), b"zramcore" * 512)


def test_written_in_part(filled: Device, driver: FaultyDriver) -> None:
    abandoned(filled, driver, lambda: filled.pwrite(5, b"!"), page(0)[:5] + b"!" + page(0)[6:])


def test_zeroed(filled: Device, driver: FaultyDriver) -> None:
    abandoned(filled, driver, lambda: filled.write_zeroes(0, 2 * PAGE), bytes(PAGE))


@pytest.mark.parametrize("length", [1, PAGE, 3 * PAGE])
def test_read(filled: Device, driver: FaultyDriver, length: int) -> None:
    abandoned(filled, driver, lambda: filled.pread(0, length), page(0))
    assert not is_idle(filled, 0)


def test_read_into_a_buffer(filled: Device, driver: FaultyDriver) -> None:
    abandoned(filled, driver, lambda: filled.pread_into(0, bytearray(PAGE)), page(0))


def test_recompressed(filled: Device, driver: FaultyDriver) -> None:
    """Recompression waits for the pass, and finds the slot written back."""
    other = threading.Thread(target=store, args=(filled, "recompress", "priority=1"))

    def action() -> None:
        other.start()
        assert filled.pass_lock.locked()

    driver.on_write = once(action)
    store(filled, "writeback", "page_index=0")
    other.join()
    assert is_written_back(filled, 0)
    assert filled.pread(0, PAGE) == page(0)
    check_consistent(filled)


def test_second_writer(filled: Device, driver: FaultyDriver) -> None:
    """A second pass waits for the first; no page is written twice."""
    inside = [0]
    other = threading.Thread(target=store, args=(filled, "writeback", "idle"))

    def action(block: int, count: int) -> None:
        inside[0] += 1
        assert inside[0] == 1, "two passes write at once"
        if not other.ident:
            other.start()

    def leave(block: int, count: int) -> None:
        inside[0] -= 1

    driver.on_write, driver.after_write = action, leave
    store(filled, "writeback_batch_size", "2")
    store(filled, "writeback", "idle")
    other.join()
    assert stat(filled, "bd_stat") == [8, 0, 8]
    check_consistent(filled)


def test_aborted_pass(filled: Device, driver: FaultyDriver) -> None:
    """Tokens of slots the pass never came to are taken back, and the next pass may have them."""
    store(filled, "writeback_batch_size", "2")
    driver.on_write = once(filled.stop_pass.set)
    with pytest.raises(ZramError) as caught:
        store(filled, "writeback", "idle")
    assert caught.value.errno == errno.EINTR
    assert stat(filled, "bd_stat") == [2, 0, 2]
    check_consistent(filled)
    filled.stop_pass.clear()
    store(filled, "writeback", "idle")
    assert stat(filled, "bd_stat") == [8, 0, 8]


def test_accessed_before_its_object_is_read(filled: Device, driver: FaultyDriver) -> None:
    """The first of the two looks at the token: a slot that is accessed before its turn costs no write."""
    store(filled, "writeback_batch_size", "1")
    driver.on_write = once(lambda: filled.pread(0, 7 * PAGE))
    store(filled, "writeback", "idle")
    assert stat(filled, "bd_stat") == [1, 0, 1]
    assert is_written_back(filled, 7)
    check_consistent(filled)


def test_only_the_changed_slot_of_a_batch_is_abandoned(filled: Device, driver: FaultyDriver) -> None:
    driver.on_write = once(lambda: filled.pwrite(3 * PAGE, page(200)))
    store(filled, "writeback", "idle")
    assert [is_written_back(filled, index) for index in range(8)] == [index != 3 for index in range(8)]
    assert stat(filled, "bd_stat") == [7, 0, 8]
    assert [filled.pread(index * PAGE, PAGE) for index in range(8)] == [
        page(200 if index == 3 else index) for index in range(8)
    ]
    check_consistent(filled)


def test_an_idle_mark_in_the_window_does_not_matter(filled: Device, driver: FaultyDriver) -> None:
    """IDLE is not the token (it was in the seed patch): marking keeps the pass valid, and so does unmarking."""
    driver.on_write = once(lambda: store(filled, "idle", "4000"))
    store(filled, "writeback", "page_index=0")
    assert is_written_back(filled, 0)
    check_consistent(filled)


class TestBatches:
    """What batching brought with it (Linux 6.19), and what had to be fixed there."""

    def test_a_reset_waits_for_the_last_completion(self, filled: Device, driver: FaultyDriver) -> None:
        """CVE-2026-63951: nothing that a completion uses is gone before it, here the table, the pool and the store."""
        other = threading.Thread(target=store, args=(filled, "reset", "1"))

        def action() -> None:
            other.start()
            assert filled.initialized

        driver.on_write = once(action)
        store(filled, "writeback_batch_size", "8")
        store(filled, "writeback", "idle")
        other.join()
        assert not filled.initialized
        assert driver.closed

    def test_a_reset_ends_a_running_pass(self, filled: Device, driver: FaultyDriver) -> None:
        """The pass fails with EINTR after the batch it is at; the reset then has the device for itself."""
        other = threading.Thread(target=store, args=(filled, "reset", "1"))

        def action() -> None:
            other.start()
            assert filled.stop_pass.wait(30)

        driver.on_write = once(action)
        store(filled, "writeback_batch_size", "2")
        with pytest.raises(ZramError) as caught:
            store(filled, "writeback", "idle")
        assert caught.value.errno == errno.EINTR
        other.join()
        assert not filled.initialized
        assert not filled.stop_pass.is_set()

    def test_a_reset_that_is_refused_does_not_end_the_pass(self, filled: Device, driver: FaultyDriver) -> None:
        answers: list[object] = []

        def reset() -> None:
            try:
                filled.reset()
            except ZramError as error:
                answers.append(error.errno)

        other = threading.Thread(target=reset)
        store(filled, "writeback_batch_size", "2")
        with filled.open():
            driver.on_write = once(other.start)
            store(filled, "writeback", "idle")
            other.join()
        assert answers == [errno.EBUSY]
        assert stat(filled, "bd_stat") == [8, 0, 8]

    def test_a_reserved_block_is_given_back_when_the_pass_ends_early(
        self, filled: Device, driver: FaultyDriver
    ) -> None:
        """3e8d8eb8d7f5: the block reserved for a slot that was lost, when no other slot follows."""
        store(filled, "writeback_batch_size", "1")
        driver.on_write = once(lambda: filled.discard(0, 7 * PAGE))
        store(filled, "writeback", "idle")
        assert filled.backing is not None
        assert filled.backing.bd_count == 1
        assert len(filled.backing.reserve_many(16)) == 15

    def test_the_budget_is_charged_at_submit(self, filled: Device, driver: FaultyDriver) -> None:
        """Or a batch of 32 would overshoot it."""
        store(filled, "writeback_limit", "3")
        store(filled, "writeback_limit_enable", "1")
        seen: list[str] = []
        driver.on_write = lambda block, count: seen.append(attributes.show(filled, "writeback_limit"))
        with pytest.raises(BudgetExhausted):
            store(filled, "writeback", "idle")
        assert seen == ["0\n"]
        assert stat(filled, "bd_stat") == [3, 0, 3]
        check_consistent(filled)

    def test_the_budget_is_given_back_for_a_failed_write(self, filled: Device, driver: FaultyDriver) -> None:
        store(filled, "writeback_limit", "5")
        store(filled, "writeback_limit_enable", "1")
        driver.bad_blocks = {1: errno.EIO, 3: errno.EIO}
        with pytest.raises(ZramError) as caught:
            store(filled, "writeback", "page_indexes=0-4")
        assert caught.value.errno == errno.EIO
        assert attributes.show(filled, "writeback_limit") == "2\n"
        assert stat(filled, "bd_stat") == [3, 0, 3]
        check_consistent(filled)

    def test_the_budget_is_not_given_back_for_a_lost_slot(self, filled: Device, driver: FaultyDriver) -> None:
        """The block was written, and wears: as in the kernel."""
        store(filled, "writeback_limit", "5")
        store(filled, "writeback_limit_enable", "1")
        driver.on_write = once(lambda: filled.discard(0, PAGE))
        store(filled, "writeback", "page_indexes=0-1")
        assert attributes.show(filled, "writeback_limit") == "3\n"
        assert stat(filled, "bd_stat") == [1, 0, 2]

    def test_a_budget_enabled_in_the_window_is_not_given_what_it_was_not_charged(
        self, filled: Device, driver: FaultyDriver
    ) -> None:
        store(filled, "writeback_limit", "5")
        driver.bad_blocks = {0: errno.EIO}
        driver.on_write = once(lambda: store(filled, "writeback_limit_enable", "1"))
        with pytest.raises(ZramError):
            store(filled, "writeback", "page_index=0")
        assert attributes.show(filled, "writeback_limit") == "5\n"

    def test_the_tail_of_a_compressed_block_is_zeroed(self, device: DeviceFactory) -> None:
        """3bf1c285dc40: it held whatever the buffer held before."""
        made = device(4, blocks=4, comp_algorithm="zstd", compressed_writeback="1")
        made.pwrite(0, page(1, noise=3000) + page(2, noise=40))
        store(made, "idle", "all")
        store(made, "writeback", "idle")
        driver = FaultyDriver.named("disk")
        sizes = [made.path.table.flags_row[index] & 0x1FFFF for index in (0, 1)] if made.path else []
        assert sizes[1] < 100 < 3000 < sizes[0]
        for index, size in enumerate(sizes):
            assert not any(driver.peek(block_of(made, index))[size:])
        assert made.pread(0, 2 * PAGE) == page(1, noise=3000) + page(2, noise=40)

    def test_a_slot_named_twice_takes_one_block(self, filled: Device) -> None:
        """Measured on Linux 7.3.4: both writes count, the second block is given back."""
        store(filled, "writeback", "page_index=2 page_indexes=1-3 page_index=2")
        assert stat(filled, "bd_stat") == [3, 0, 5]
        check_consistent(filled)

    def test_reads_in_the_window_get_the_object_in_memory(self, filled: Device, driver: FaultyDriver) -> None:
        seen: list[bytes] = []
        driver.on_write = once(lambda: seen.append(filled.pread(0, 8 * PAGE)))
        store(filled, "writeback", "idle")
        assert seen == [b"".join(page(index) for index in range(8))]
        assert stat(filled, "bd_stat") == [0, 0, 8]


class TestTheSlotChangesWhileItsBlockIsRead:
    """A reader of written-back pages holds no lock during the read, and looks at its slots again afterwards."""

    @pytest.fixture
    def driver(self, filled: Device) -> FaultyDriver:
        store(filled, "writeback", "idle")
        assert stat(filled, "bd_stat") == [8, 0, 8]
        return FaultyDriver.named("disk")

    @pytest.mark.parametrize("length", [PAGE, 4 * PAGE, 100])
    def test_rewritten(self, filled: Device, driver: FaultyDriver, length: int) -> None:
        driver.after_read = once(lambda: filled.pwrite(0, page(300)))
        assert filled.pread(0, length) == (page(300) + page(1) + page(2) + page(3))[:length]

    def test_freed(self, filled: Device, driver: FaultyDriver) -> None:
        driver.after_read = once(lambda: filled.discard(0, PAGE))
        assert filled.pread(0, 2 * PAGE) == bytes(PAGE) + page(1)

    def test_rewritten_and_written_back_again_to_the_lowest_free_block(
        self, filled: Device, driver: FaultyDriver
    ) -> None:
        """The ABA case: the slot must not come back with the block that was just read. A pinned block is not free."""
        block = block_of(filled, 0)

        def action() -> None:
            filled.pwrite(0, page(301))
            store(filled, "idle", "all")
            store(filled, "writeback", "idle")
            assert block_of(filled, 0) != block

        driver.after_read = once(action)
        assert filled.pread(0, PAGE) == page(301)
        assert filled.backing is not None
        assert filled.backing.reserve() == block, "the block is free again once the read is over"
        filled.backing.release(block)
        check_consistent(filled)

    def test_its_block_goes_to_no_other_slot_meanwhile(self, filled: Device, driver: FaultyDriver) -> None:
        block = block_of(filled, 0)

        def action() -> None:
            filled.discard(0, PAGE)
            filled.pwrite(PAGE, page(302))
            store(filled, "writeback", "page_index=1")
            assert block_of(filled, 1) != block

        driver.after_read = once(action)
        assert filled.pread(0, PAGE) == bytes(PAGE)
        assert filled.pread(PAGE, PAGE) == page(302)
        check_consistent(filled)

    def test_it_moves_every_time(self, filled: Device, driver: FaultyDriver) -> None:
        """A reader that keeps losing reads under the locks in the end."""
        number = [400]

        def action(block: int, count: int) -> None:
            if number[0] < 403:
                number[0] += 1
                filled.pwrite(0, page(number[0]))
                store(filled, "writeback", "page_index=0")

        driver.after_read = action
        assert filled.pread(0, PAGE) == page(403)
        check_consistent(filled)

    def test_the_device_is_reset(self, filled: Device, driver: FaultyDriver) -> None:
        """The read fails; the backing device is closed only when its read has returned."""
        with Gate() as gate:
            driver.after_read = gate
            failed: list[BaseException] = []

            def read() -> None:
                try:
                    filled.pread(0, PAGE)
                except ZramError as error:
                    failed.append(error)

            reader = threading.Thread(target=read)
            reader.start()
            gate.wait()
            resetter = threading.Thread(target=store, args=(filled, "reset", "1"))
            resetter.start()
            while filled.path is not None:
                resetter.join(0.001)
            assert not driver.closed
            gate.open()
            reader.join()
            resetter.join()
        assert [type(error) for error in failed] == [DeviceIOError]
        assert driver.closed

    def test_a_partial_write_holds_the_slot(self, filled: Device, driver: FaultyDriver) -> None:
        """CVE-2026-53185: the read of a read-modify-write is synchronous, and nobody changes the slot meanwhile."""
        other = threading.Thread(target=filled.pwrite, args=(0, page(303)))

        def action() -> None:
            other.start()
            assert filled.path is not None
            assert filled.path.table.locks[0].locked()

        driver.after_read = once(action)
        filled.pwrite(10, b"xyz")
        other.join()
        assert filled.pread(0, PAGE) == page(303)
        check_consistent(filled)


class TestNothingIsLeftBehind:
    """Whatever ends a pass: no token, no block, no budget; and the device goes on."""

    @pytest.fixture(autouse=True)
    def _budget(self, filled: Device) -> None:
        store(filled, "writeback_limit", "100")
        store(filled, "writeback_limit_enable", "1")

    def go_on(self, device: Device, driver: FaultyDriver, written: int) -> None:
        """`written` pages of eight were written and committed; everything else is as if the pass had not been."""
        check_consistent(device)
        assert device.backing is not None
        assert device.backing.bd_count == written
        assert attributes.show(device, "writeback_limit") == f"{100 - written}\n"
        driver.heal()
        driver.on_write = driver.after_write = None
        store(device, "idle", "all")
        store(device, "writeback", "idle")
        assert device.backing.bd_count == 8
        assert device.pread(0, 8 * PAGE) == b"".join(page(index) for index in range(8))

    @pytest.mark.parametrize("batch", [1, 3, 32])
    def test_every_write_fails(self, filled: Device, driver: FaultyDriver, batch: int) -> None:
        store(filled, "writeback_batch_size", str(batch))
        driver.fail_write(1, errno.ENXIO, times=99)
        with pytest.raises(DeviceIOError) as caught:
            store(filled, "writeback", "idle")
        assert caught.value.errno == errno.ENXIO
        self.go_on(filled, driver, 0)

    def test_a_short_write(self, filled: Device, driver: FaultyDriver) -> None:
        """A run that fails half way is tried again block by block: nothing is lost and nothing is reported."""
        driver.fail_write(1, errno.EIO, stored=3)
        store(filled, "writeback", "idle")
        self.go_on(filled, driver, 8)

    def test_one_bad_block(self, filled: Device, driver: FaultyDriver) -> None:
        driver.bad_blocks[4] = errno.EIO
        with pytest.raises(DeviceIOError):
            store(filled, "writeback", "idle")
        self.go_on(filled, driver, 7)

    @pytest.mark.parametrize("batch", [1, 3, 32])
    def test_the_backing_device_is_full(self, device: DeviceFactory, batch: int) -> None:
        made = device(8, blocks=5, disk="small")
        made.pwrite(0, b"".join(page(index) for index in range(8)))
        store(made, "writeback_batch_size", str(batch))
        with pytest.raises(NoSpace):
            store(made, "writeback", "page_indexes=0-7")
        assert stat(made, "bd_stat") == [5, 0, 5]
        check_consistent(made)
        made.discard(0, 8 * PAGE)
        assert stat(made, "bd_stat")[0] == 0

    @pytest.mark.parametrize("error", [RuntimeError("boom"), ValueError(), AssertionError("no")])
    def test_the_driver_raises_what_it_must_not(self, filled: Device, driver: FaultyDriver, error: Exception) -> None:
        store(filled, "writeback_batch_size", "3")
        driver.fail_write(2, error, times=9)
        with pytest.raises(PluginFault, match="faulty") as caught:
            store(filled, "writeback", "idle")
        assert caught.value.errno == errno.EIO
        assert caught.value.plugin == "faulty"
        self.go_on(filled, driver, 3)

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
    @pytest.mark.parametrize("when", ["on_write", "after_write"])
    def test_an_interrupt_inside_the_driver(
        self, filled: Device, driver: FaultyDriver, error: BaseException, when: str
    ) -> None:
        store(filled, "writeback_batch_size", "3")

        def interrupt() -> None:
            raise error

        setattr(driver, when, once(interrupt, on_call=2))
        with pytest.raises(type(error)):
            store(filled, "writeback", "idle")
        self.go_on(filled, driver, 3)

    def test_an_interrupt_inside_a_read(self, filled: Device, driver: FaultyDriver) -> None:
        """No block stays pinned."""
        store(filled, "writeback", "idle")

        def interrupt() -> None:
            raise KeyboardInterrupt

        driver.on_read = once(interrupt)
        with pytest.raises(KeyboardInterrupt):
            filled.pread(0, 8 * PAGE)
        filled.discard(0, 8 * PAGE)
        assert filled.backing is not None
        assert len(filled.backing.reserve_many(17)) == 16

    def test_a_failed_read_is_eio_and_says_what_the_medium_said(self, filled: Device, driver: FaultyDriver) -> None:
        store(filled, "writeback", "idle")
        driver.fail_read(1, errno.ETIMEDOUT)
        with pytest.raises(DeviceIOError, match="ETIMEDOUT") as caught:
            filled.pread(0, 8 * PAGE)
        assert caught.value.errno == errno.EIO
        assert stat(filled, "io_stat")[0] == 1
        assert filled.pread(0, 8 * PAGE) == b"".join(page(index) for index in range(8))

    def test_a_short_read_names_the_driver(self, filled: Device, driver: FaultyDriver) -> None:
        store(filled, "writeback", "idle")
        driver.shorten_read(1, 100)
        with pytest.raises(PluginFault, match="faulty"):
            filled.pread(0, PAGE)
        assert filled.pread(0, PAGE) == page(0)
