"""The slot table: 16 bytes a row that cost nothing until written, and locks of ranges."""

import itertools
import random
import threading

import numpy as np
import pytest

from zramcore import slot_table
from zramcore.errors import NoMemory
from zramcore.slot_table import (
    CHUNK_SHIFT,
    HUGE,
    IDLE,
    INCOMPRESSIBLE,
    LOCK_SHIFT,
    NR_LOCKS,
    PP_SLOT,
    PRIORITY_MASK,
    SAME,
    SCAN_ROWS,
    SIZE_MASK,
    WB,
    SlotTable,
    allocated,
    holds_object,
    in_memory,
)

CHUNK = 1 << CHUNK_SHIFT


def test_a_row_takes_16_bytes():
    table = SlotTable(1000)
    assert table.handles.itemsize + table.flags.itemsize + table.ac_times.itemsize == 16
    assert len(table.handles) == len(table.flags) == len(table.ac_times) == 1000


def test_flags_do_not_overlap_and_a_size_of_64_kib_fits():
    bits = [SIZE_MASK, SAME, WB, PP_SLOT, HUGE, IDLE, INCOMPRESSIBLE, PRIORITY_MASK]
    assert sum(bits) == np.bitwise_or.reduce(bits)
    assert sum(bits) < 1 << 32
    assert SIZE_MASK >= 65536


def test_row_and_array_are_the_same_memory():
    table = SlotTable(10)
    table.flags_row[3] = HUGE | 4096
    table.handles_row[3] = 1 << 63
    table.ac_times[3] = 77
    assert (int(table.flags[3]), int(table.handles[3]), table.ac_times_row[3]) == (HUGE | 4096, 1 << 63, 77)


def test_allocated_is_an_object_a_word_or_a_block():
    rows = np.array([0, 100, SAME, WB, WB | 50, HUGE | 4096, PP_SLOT, IDLE, INCOMPRESSIBLE], np.uint32)
    assert allocated(rows).tolist() == [False, True, True, True, True, True, False, False, False]
    assert holds_object(rows).tolist() == [False, True, False, False, False, True, False, False, False]
    assert in_memory(rows).tolist() == [False, True, False, False, False, True, False, False, False]


def test_touched_ranges_are_those_written_and_never_too_long():
    table = SlotTable(SCAN_ROWS * 3 + 5)
    assert list(table.touched_ranges()) == []
    table.touch(10, 1)
    table.touch(CHUNK * 3 - 1, 2)
    table.touch(table.nr_slots - 1, 1)
    last = (table.nr_slots - 1) >> CHUNK_SHIFT << CHUNK_SHIFT
    assert list(table.touched_ranges()) == [(0, CHUNK), (CHUNK * 2, CHUNK * 4), (last, table.nr_slots)]
    assert list(table.touched_ranges(CHUNK * 2 + 7, CHUNK * 3 - 5)) == [(CHUNK * 2 + 7, CHUNK * 3 - 5)]
    table.touch(0, table.nr_slots)
    ranges = list(table.touched_ranges())
    assert ranges[0][0] == 0
    assert ranges[-1][1] == table.nr_slots
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(ranges))
    assert max(end - start for start, end in ranges) <= SCAN_ROWS


def test_a_range_takes_the_locks_of_its_slots_and_no_others():
    table = SlotTable(1 << 20)
    stripe = 1 << LOCK_SHIFT
    for first, count, wanted in [
        (0, 1, {0}),
        (stripe - 1, 2, {0, 1}),
        (stripe * (NR_LOCKS - 1), stripe * 2, {NR_LOCKS - 1, 0}),
        (5, stripe * NR_LOCKS, set(range(NR_LOCKS))),
    ]:
        with table.lock_range(first, count):
            assert {number for number, lock in enumerate(table.locks) if lock.locked()} == wanted
        assert not any(lock.locked() for lock in table.locks)


def test_ranges_that_overlap_in_any_way_do_not_deadlock():
    table = SlotTable(1 << 16)
    counts = [0] * 4

    def work(number: int) -> None:
        choose = random.Random(number)
        for _ in range(3000):
            first = choose.randrange(table.nr_slots - 1)
            with table.lock_range(first, choose.randrange(1, min(5000, table.nr_slots - first))):
                counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counts == [3000] * 4


def test_an_interrupt_while_waiting_gives_back_what_was_taken(monkeypatch):
    table = SlotTable(1 << 16)

    class Interrupted:
        def acquire(self) -> None:
            raise KeyboardInterrupt

    locks = [table.locks[0], table.locks[1], Interrupted()]
    with pytest.raises(KeyboardInterrupt), slot_table.RangeLock(locks):
        raise AssertionError("not reached")
    assert not any(lock.locked() for lock in table.locks)


def test_more_than_the_address_space_is_enomem():
    with pytest.raises(NoMemory):
        SlotTable(1 << 60)
