"""The known defects of the seed patch, B1 to B20, one test each: we implement what it documents, not its slips.

Then the truth table of its modes as they were meant, and its own way of being used.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import BudgetExhausted, InvalidValue, NoBackingDevice, NoSpace, NotPermitted, ZramError
from zramcore.slot_table import IDLE, WB
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import Clock, check_consistent, peek, stat

DeviceFactory = Callable[..., Device]
PAGE = 4096


def small(number: int) -> bytes:
    """A page that compresses well."""
    return (number.to_bytes(8, "little") + Random(number).randbytes(200)).ljust(PAGE, b"\0")


def huge(number: int) -> bytes:
    """A page that does not compress."""
    return number.to_bytes(8, "little") + Random(number).randbytes(PAGE - 8)


def store(device: Device, name: str, text: str) -> None:
    attributes.store(device, name, text)


def written_back(device: Device) -> list[int]:
    assert device.path is not None
    return [index for index in range(device.nr_pages) if device.path.table.flags_row[index] & WB]


def letters(device: Device) -> dict[int, str]:
    """block_state: the letters of each page."""
    lines = attributes.show(device, "block_state").splitlines()
    return {int(line.split()[0]): line.split()[2] for line in lines}


@pytest.fixture
def four(device: DeviceFactory) -> Device:
    """The four rows of the truth table: 0 neither, 1 huge, 2 idle, 3 idle and huge."""
    made = device(4, blocks=8)
    for index, content in enumerate((small(0), huge(1), small(2), huge(3))):
        made.pwrite(index * PAGE, content)
    store(made, "idle", "all")
    made.pread(0, 2 * PAGE)
    assert letters(made) == {0: "......", 1: "..h...", 2: "...i..", 3: "..hi.."}
    return made


def contents(device: Device) -> bytes:
    return device.pread(0, 4 * PAGE)


INTENDED = {"1": [1, 3], "2": [2, 3], "3": [1, 2, 3], "huge": [1, 3], "idle": [2, 3], "huge_idle": [3]}


@pytest.mark.parametrize("mode", INTENDED)
def test_truth_table(four: Device, mode: str) -> None:
    """Each mode writes and frees exactly the pages it names; the seed freed the idle ones whatever the mode."""
    before = contents_without_access(four)
    store(four, "writeback", mode)
    assert written_back(four) == INTENDED[mode]
    assert stat(four, "bd_stat") == [len(INTENDED[mode]), 0, len(INTENDED[mode])]
    assert contents(four) == before
    check_consistent(four)


def contents_without_access(device: Device) -> bytes:
    return b"".join(peek(device, index) for index in range(device.nr_pages))


def test_writeback_is_write_only(four: Device) -> None:
    """The patch's 0200: reading the attribute is EACCES, writing starts the pass and returns when it is done."""
    assert attributes.ATTRIBUTES["writeback"].mode == "wo"
    with pytest.raises(NotPermitted) as caught:
        attributes.show(four, "writeback")
    assert caught.value.errno == errno.EACCES
    store(four, "writeback", "3\n")
    assert written_back(four) == [1, 2, 3]


def test_b01_a_mode_selects_only_its_pages(four: Device) -> None:
    """B1: the `&&` between the two rejections made modes 1 and 2 select every page."""
    store(four, "writeback", "1")
    store(four, "writeback", "2")
    assert 0 not in written_back(four)
    assert stat(four, "bd_stat")[2] == 3, "and nothing was written in vain"


def test_b02_huge_pages_that_are_not_idle_are_freed(four: Device) -> None:
    """B2: a huge page was written and then kept, because the last check asked for IDLE."""
    used = stat(four, "mm_stat")
    store(four, "writeback", "huge")
    now = stat(four, "mm_stat")
    assert written_back(four) == [1, 3]
    assert used[7] == 2
    assert now[7] == 0
    assert used[1] - now[1] == 2 * PAGE
    assert used[2] - now[2] >= 2 * PAGE


def test_b03_a_full_backing_device_is_reported(device: DeviceFactory) -> None:
    """B3: `ret = len` after the loop turned ENOSPC into success."""
    made = device(4, blocks=2)
    made.pwrite(0, b"".join(map(small, range(4))))
    with pytest.raises(NoSpace) as caught:
        store(made, "writeback", "page_indexes=0-3")
    assert caught.value.errno == errno.ENOSPC
    assert len(written_back(made)) == 2


def test_b04_a_failed_write_is_reported(four: Device) -> None:
    """B4: errors of single pages were lost; the last one is returned, and the others still go on."""
    FaultyDriver.named("disk").bad_blocks[0] = errno.ENXIO
    with pytest.raises(ZramError) as caught:
        store(four, "writeback", "3")
    assert caught.value.errno == errno.ENXIO
    assert len(written_back(four)) == 2
    check_consistent(four)


def test_b05_a_slot_written_back_meanwhile_is_not_read_asynchronously(four: Device) -> None:
    """B5: a slot that became written back in the window was read asynchronously into a page that was then freed."""
    driver = FaultyDriver.named("disk")
    store(four, "writeback_batch_size", "1")
    driver.on_write = lambda block, count: four.pread(0, 4 * PAGE)
    store(four, "writeback", "3")
    store(four, "writeback", "page_indexes=0-3")
    pass_reads = stat(four, "bd_stat")[1]
    driver.on_write = None
    store(four, "writeback", "page_indexes=0-3")
    assert stat(four, "bd_stat")[1] == pass_reads
    assert contents(four) == small(0) + huge(1) + small(2) + huge(3)


def test_b06_the_number_of_pages_is_read_after_the_lock(device: DeviceFactory) -> None:
    """B6: reset and a smaller disksize before the pass got its lock meant indexes out of bounds."""
    made = device(64, blocks=8)
    made.pwrite(63 * PAGE, small(1))
    answers: list[int | None] = []

    def late() -> None:
        try:
            store(made, "writeback", "page_indexes=0-63")
            answers.append(None)
        except ZramError as error:
            answers.append(error.errno)

    with made.pass_lock:
        thread = threading.Thread(target=late)
        thread.start()
        assert made.path is not None
        made.path.close()
        made.path = None
        made.initialize(8 * PAGE)
    thread.join()
    assert answers == [errno.ERANGE], "the pass sees the new size"


def test_b07_indexes_beyond_32_bits_work(device: DeviceFactory) -> None:
    """B7: `int index` overflowed at 8 TiB."""
    last = (9 << 40) // PAGE - 1
    made = device(0, blocks=8)
    try:
        store(made, "disksize", "9T")
    except ZramError as error:  # a machine with little address space refuses, as the kernel may
        pytest.skip(str(error))
    assert last > 1 << 31
    made.pwrite(last * PAGE, small(7))
    store(made, "writeback", f"page_index={last}")
    assert made.path is not None
    assert made.path.table.flags_row[last] & WB
    assert made.pread(last * PAGE, PAGE) == small(7)
    assert letters(made) == {last: ".w...."}


def test_b08_a_full_device_with_nothing_to_write_is_success(device: DeviceFactory) -> None:
    """B8: a block was reserved before the slot was looked at, so ENOSPC came with no page to write."""
    made = device(4, blocks=1)
    made.pwrite(0, small(0))
    store(made, "writeback", "page_index=0")
    store(made, "writeback", "idle")
    store(made, "writeback", "page_indexes=0-3")
    made.pwrite(PAGE, bytes(PAGE))
    store(made, "writeback", "page_indexes=0-3")
    assert stat(made, "bd_stat") == [1, 0, 1]


def test_b09_same_filled_and_written_back_pages_are_never_idle(device: DeviceFactory) -> None:
    """B9: `idle` marked pages that can never be written back."""
    made = device(3, blocks=4)
    made.pwrite(0, b"\1" * PAGE + small(1) + small(2))
    store(made, "writeback", "page_index=1")
    store(made, "idle", "all")
    assert letters(made) == {0: "s.....", 1: ".w....", 2: "...i.."}


def test_b10_no_backing_device_is_enodev(device: DeviceFactory) -> None:
    """B10: it was EINVAL, which bad input is too."""
    made = device(2, blocks=0)
    with pytest.raises(NoBackingDevice) as caught:
        store(made, "writeback", "idle")
    assert caught.value.errno == errno.ENODEV


def test_b11_a_budget_limits_the_writes(four: Device) -> None:
    """B11: nothing limited the wear of the backing device."""
    store(four, "writeback_limit", "1")
    store(four, "writeback_limit_enable", "1")
    with pytest.raises(BudgetExhausted) as caught:
        store(four, "writeback", "3")
    assert caught.value.errno == errno.EIO
    assert stat(four, "bd_stat") == [1, 0, 1]
    assert attributes.show(four, "writeback_limit") == "0\n"


def test_b12_writeback_is_counted(four: Device) -> None:
    """B12: there were no statistics."""
    store(four, "writeback", "3")
    contents(four)
    assert attributes.show(four, "bd_stat") == "       3        3        3\n"


def test_b13_the_biggest_objects_go_first(device: DeviceFactory) -> None:
    """B13: index order gave a whole block to a 48-byte object while a huge one waited."""
    made = device(6, blocks=6)
    sizes = [100, 3000, 600, 4088, 1500, 40]
    for index, noise in enumerate(sizes):
        made.pwrite(index * PAGE, Random(index).randbytes(noise).ljust(PAGE, b"\0"))
    store(made, "idle", "all")
    store(made, "writeback_limit_enable", "1")
    order = []
    for _ in sizes:
        store(made, "writeback_limit", "1")
        known = set(written_back(made))
        with contextlib.suppress(BudgetExhausted):
            store(made, "writeback", "idle")
        order += [index for index in written_back(made) if index not in known]
    assert order == [3, 1, 4, 2, 0, 5]


def test_b14_pages_are_written_in_batches(device: DeviceFactory) -> None:
    """B14: one synchronous write per page."""
    made = device(64, blocks=64)
    made.pwrite(0, b"".join(map(small, range(64))))
    store(made, "writeback", "page_indexes=0-63")
    assert FaultyDriver.named("disk").write_runs == [(0, 32), (32, 32)]


def test_b15_a_pass_can_be_stopped_and_keeps_nobody_waiting(four: Device) -> None:
    """B15: no way to stop it, and mem_limit, stats and I/O waited for it."""
    store(four, "writeback_batch_size", "1")
    seen: list[Any] = []

    def during(block: int, count: int) -> None:
        store(four, "mem_limit", "1M")
        seen.append((stat(four, "mm_stat")[3], four.pread(0, 8)))
        four.stop_pass.set()

    FaultyDriver.named("disk").on_write = during
    with pytest.raises(ZramError) as caught:
        store(four, "writeback", "3")
    assert caught.value.errno == errno.EINTR
    assert seen == [(1 << 20, small(0)[:8])]
    assert stat(four, "bd_stat")[2] == 1
    check_consistent(four)


def test_b16_one_pass_at_a_time(four: Device) -> None:
    """B16: two writers scanned everything side by side."""
    driver = FaultyDriver.named("disk")
    running = itertools.count(1)
    most = [0]
    others = [threading.Thread(target=store, args=(four, "writeback", "3")) for _ in range(2)]

    def during(block: int, count: int) -> None:
        most[0] = max(most[0], next(running))
        for other in others:
            if other.ident is None:
                other.start()

    driver.on_write = during
    store(four, "writeback", "3")
    for other in others:
        other.join()
    assert most == [1], "the others found nothing left"
    assert stat(four, "bd_stat") == [3, 0, 3]


def test_b17_block_0_is_used(device: DeviceFactory) -> None:
    """B17: block 0 meant "none", so a device of n blocks held n - 1."""
    made = device(4, blocks=4)
    made.pwrite(0, b"".join(map(small, range(4))))
    store(made, "writeback", "page_indexes=0-3")
    assert stat(made, "bd_stat")[0] == 4
    assert FaultyDriver.named("disk").write_runs[0][0] == 0


def test_b18_wasted_writes_are_counted(four: Device) -> None:
    """B18: a block written for a slot that changed was invisible."""
    FaultyDriver.named("disk").on_write = lambda block, count: four.pread(2 * PAGE, PAGE)
    store(four, "writeback", "page_index=2")
    assert stat(four, "bd_stat") == [0, 0, 1]


def test_b19_pages_need_not_be_decompressed_to_be_written(device: DeviceFactory, rogue: Any) -> None:
    """B19: everything was decompressed first; compressed_writeback writes the object as it is."""
    made = device(2, blocks=2, uses=rogue.catalogue, comp_algorithm="rogue", compressed_writeback="1")
    made.pwrite(0, small(0) + small(1))
    rogue.calls.clear()
    store(made, "writeback", "page_indexes=0-1")
    assert "decompress_page" not in rogue.calls
    assert "decompress_pages" not in rogue.calls
    assert made.pread(0, 2 * PAGE) == small(0) + small(1)


def test_b20_pages_are_chosen_by_word_by_index_and_by_age(device: DeviceFactory, clock: Clock) -> None:
    """B20: a number of bits was the whole interface; its numbers still work beside the words."""
    made = device(8, blocks=8)
    made.pwrite(0, b"".join(map(small, range(4))))
    clock.now += 100
    made.pwrite(4 * PAGE, b"".join(map(small, range(4, 8))))
    store(made, "idle", "50")
    store(made, "writeback", "idle")
    assert written_back(made) == [0, 1, 2, 3]
    store(made, "writeback", "page_index=7")
    store(made, "writeback", "page_indexes=4-5")
    assert written_back(made) == [0, 1, 2, 3, 4, 5, 7]
    for bad in ("0", "4", "7", "-1", "both"):
        with pytest.raises(InvalidValue):
            store(made, "writeback", bad)
    assert stat(made, "bd_stat")[2] == 7


def test_the_loop_of_the_seed(device: DeviceFactory, clock: Clock) -> None:
    """The patch's own use: `echo 1 > idle`, the system runs for a while, `echo 3 > writeback`. Pages touched in between
    stay in memory; the others, and huge ones, go. Then it all starts again."""
    made = device(32, blocks=64)
    for index in range(32):
        made.pwrite(index * PAGE, huge(index) if index % 8 == 7 else small(index))
    clock.now += 60
    store(made, "idle", "1\n")
    assert all(row == ("..hi.." if index % 8 == 7 else "...i..") for index, row in letters(made).items())
    for index in range(0, 32, 2):
        made.pread(index * PAGE, PAGE)
    made.pwrite(5 * PAGE, small(500))
    made.pread(15 * PAGE, PAGE)  # a huge page that is in use
    store(made, "writeback", "3\n")
    untouched = [index for index in range(1, 32, 2) if index != 5]
    assert written_back(made) == untouched, "15 is huge, so the union takes it"
    clock.now += 60
    store(made, "idle", "1\n")
    store(made, "writeback", "3\n")
    assert written_back(made) == list(range(32))
    assert made.path is not None
    assert not (made.path.table.flags[:32] & IDLE).any()
    for index in range(32):
        content = small(500) if index == 5 else huge(index) if index % 8 == 7 else small(index)
        assert made.pread(index * PAGE, PAGE) == content
    check_consistent(made)
