"""The slot table: columns, what a row means, and locks of ranges."""

from __future__ import annotations

import itertools
import threading
from random import Random

import numpy as np
import pytest

from zramcore.errors import NoMemory
from zramcore.slot_table import (
    BLOCK_ROWS,
    HUGE,
    IDLE,
    INCOMPRESSIBLE,
    LOCK_MASK,
    LOCK_SHIFT,
    NR_LOCKS,
    PP_SLOT,
    PRIORITY_MASK,
    PRIORITY_SHIFT,
    SAME,
    SCAN_ROWS,
    SIZE_MASK,
    WB,
    SlotTable,
    allocated,
    change_flags,
    holds_object,
    in_memory,
)

FLAGS = (SAME, WB, PP_SLOT, HUGE, IDLE, INCOMPRESSIBLE, 1 << PRIORITY_SHIFT, 2 << PRIORITY_SHIFT)


def column(*flags: int) -> np.ndarray:
    return np.array(flags, np.uint32)


def test_a_row_takes_16_bytes() -> None:
    table = SlotTable(1000)
    assert table.handles.itemsize + table.flags.itemsize + table.ac_times.itemsize == 16
    assert len(table.handles) == len(table.flags) == len(table.ac_times) == 1000
    assert not table.flags.any()


def test_flags_do_not_overlap_and_fit_beside_a_size() -> None:
    assert SIZE_MASK >= 65536
    for one, other in itertools.combinations((SIZE_MASK, *FLAGS), 2):
        assert not one & other
    assert max(FLAGS) < 1 << 32
    assert PRIORITY_MASK == 3 << PRIORITY_SHIFT


def test_rows_and_arrays_are_the_same_memory() -> None:
    table = SlotTable(10)
    table.handles_row[3] = (1 << 64) - 1
    table.flags_row[3] = 0xFFFFFFFF
    table.ac_times_row[3] = 7
    assert int(table.handles[3]) == (1 << 64) - 1
    assert int(table.flags[3]) == 0xFFFFFFFF
    assert int(table.ac_times[3]) == 7
    table.flags[4] = 5
    assert table.flags_row[4] == 5


def test_allocated_means_an_object_a_word_or_a_block() -> None:
    """As the seed patch redefined zram_allocated: other flags do not make a page."""
    assert allocated(column(1, SIZE_MASK, SAME, WB, 4096 | HUGE | IDLE)).all()
    assert not allocated(column(0, PP_SLOT, IDLE, HUGE, INCOMPRESSIBLE, PRIORITY_MASK, PP_SLOT | IDLE)).any()


def test_who_owns_an_object() -> None:
    rows = column(100, 4096 | HUGE, SAME, WB, 100 | WB, 0, IDLE)
    assert holds_object(rows).tolist() == [True, True, False, False, False, False, False]
    assert in_memory(rows).tolist() == [True, True, False, False, False, False, False]


def test_a_range_lock_covers_its_slots_and_no_others() -> None:
    table = SlotTable(1 << 16)
    stripe = 1 << LOCK_SHIFT
    for first, count in ((0, 1), (stripe - 1, 2), (5 * stripe, stripe), (NR_LOCKS * stripe - 1, 2), (0, 1 << 16)):
        wanted = {(index >> LOCK_SHIFT) % NR_LOCKS for index in range(first, first + count)}
        with table.lock_range(first, count):
            assert {n for n, lock in enumerate(table.locks) if lock.locked()} == wanted
        assert not any(lock.locked() for lock in table.locks)


def test_locks_are_taken_in_ascending_order() -> None:
    """Or two ranges that wrap around could deadlock."""
    table = SlotTable(1 << 16)
    order: list[int] = []

    class Recorded:
        def __init__(self, number: int) -> None:
            self.number = number

        def __enter__(self) -> None:
            order.append(self.number)

        def __exit__(self, *error: object) -> None:
            order.remove(self.number)

    table.locks = [Recorded(number) for number in range(NR_LOCKS)]  # type: ignore[misc]
    for first, count in ((NR_LOCKS * 64 - 100, 300), (70, 700), (0, 1 << 16)):
        with table.lock_range(first, count):
            assert order == sorted(order)
            assert order
        assert not order


def test_an_error_while_locking_lets_go() -> None:
    table = SlotTable(1 << 10)

    class Broken:
        def __enter__(self) -> None:
            raise KeyboardInterrupt

        def __exit__(self, *error: object) -> None:
            raise AssertionError("never taken")

    table.locks[2] = Broken()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt), table.lock_range(0, 1 << 10):
        raise AssertionError("not reached")
    assert not table.locks[0].locked()
    assert not table.locks[1].locked()


def test_overlapping_ranges_of_many_threads_do_not_deadlock() -> None:
    table = SlotTable(1 << 15)
    total = [0]

    def work(me: int) -> None:
        for step in range(300):
            with table.lock_range((me * 7919 + step * 104729) % 30000, 1 + step % 2700):
                pass
            with table.lock_all():
                total[0] += 1

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert total == [1200]


def test_too_many_slots_are_enomem() -> None:
    with pytest.raises(NoMemory):
        SlotTable(1 << 60)


@pytest.mark.parametrize("size", [0, 1, 4096, SIZE_MASK - 1, SIZE_MASK])
def test_who_is_in_memory(size: int) -> None:
    """The one comparison says what the five conditions say, for every combination of flags and of what is asked."""
    combinations = [sum(some) for count in range(9) for some in itertools.combinations(FLAGS, count)]
    rows = np.array([size | flags for flags in combinations], np.uint32)
    asked = [0, IDLE, HUGE, IDLE | HUGE, INCOMPRESSIBLE]
    for having, lacking in itertools.product(asked, asked):
        if not having & lacking:
            expected = [
                bool(size) and not row & (SAME | WB) and row & having == having and not row & lacking
                for row in rows.tolist()
            ]
            assert in_memory(rows, having, lacking).tolist() == expected


@pytest.mark.parametrize("count", [0, 1, 3, 60, 1000, 4096])
def test_changing_a_flag(count: int) -> None:
    """Few rows are picked, many are changed together: the same comes out."""
    rows = np.arange(4096, dtype=np.uint32) | IDLE
    changed = np.zeros(4096, bool)
    changed[Random(count).sample(range(4096), count)] = True
    expected = [row ^ IDLE if change else row for row, change in zip(rows.tolist(), changed.tolist(), strict=True)]
    change_flags(rows, changed, IDLE)
    assert rows.tolist() == expected


def test_blocks_are_the_touched_ranges_in_groups() -> None:
    table = SlotTable(5 * SCAN_ROWS + 7)
    for start, count in ((5, 1), (SCAN_ROWS - 100, 300), (2 * SCAN_ROWS, 2 * SCAN_ROWS), (5 * SCAN_ROWS, 7)):
        table.touch(start, count)
    groups = list(table.touched_blocks())
    assert all(sum(block.stop - block.start for block in group) <= 2 * SCAN_ROWS for group in groups)
    blocks = [block for group in groups for block in group]
    assert all(0 < block.stop - block.start <= BLOCK_ROWS for block in blocks)
    rows = [row for block in blocks for row in range(block.start, block.stop)]
    assert rows == [row for start, end in table.touched_ranges() for row in range(start, end)]
    assert list(table.touched_blocks(100, 100)) == []
    assert [(block.start, block.stop) for (block,) in table.touched_blocks(1, 3)] == [(1, 3)]


def test_the_locks_of_scattered_slots() -> None:
    table = SlotTable(1 << 20)
    slots = np.array([5, 64 * 300, 4, 64 * 9 + 1, 70_000])
    wanted = {slot >> LOCK_SHIFT & LOCK_MASK for slot in slots.tolist()}
    with table.lock_slots(slots):
        assert {stripe for stripe, lock in enumerate(table.locks) if lock.locked()} == wanted
    assert not any(lock.locked() for lock in table.locks)
