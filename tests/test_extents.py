"""Extents of the slot table, against a plain run-length of the rows."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from zramcore import attributes
from zramcore.extents import (
    COMPRESSED,
    HOLDS,
    NOT_ZERO,
    SAME_FILLED,
    STORED_HUGE,
    STORED_IDLE,
    WRITTEN_BACK,
    all_hold_objects,
    extents,
    slot_content,
    slot_state,
)
from zramcore.slot_table import CHUNK_SHIFT, SAME, SCAN_ROWS, SlotTable

RANDOM = random.Random(11)
CHUNK = 1 << CHUNK_SHIFT


def plain(table, first, end, classify):
    states = classify(table.flags[first:end], table.handles[first:end]).tolist()
    return [(len(list(group)), state) for state, group in itertools.groupby(states)]


def scattered(nr_slots, written):
    """A table with same-filled rows, zero or not, in runs."""
    table = SlotTable(nr_slots)
    for _ in range(written):
        first = RANDOM.randrange(nr_slots)
        count = min(RANDOM.choice([1, 2, 50]), nr_slots - first)
        table.flags[first : first + count] = RANDOM.choice([0, SAME, 700])
        table.handles[first : first + count] = RANDOM.choice([0, 9])
        table.touch(first, count)
    return table


@pytest.mark.parametrize("classify", [slot_state, slot_content])
def test_extents_are_the_run_lengths(classify):
    table = scattered(5 * CHUNK + 17, 400)
    for first, end in [(0, table.nr_slots), (1, CHUNK), (CHUNK - 1, CHUNK + 1), (3 * CHUNK, 3 * CHUNK + 1)]:
        assert extents(table, first, end, classify, 10**6) == plain(table, first, end, classify)


def test_a_limit_gives_the_first_extents_whole():
    table = scattered(3 * CHUNK, 300)
    everything = plain(table, 0, table.nr_slots, slot_content)
    assert len(everything) > 200
    for limit in (1, 2, 3, 100, len(everything) - 1, len(everything), len(everything) + 1):
        assert extents(table, 0, table.nr_slots, slot_content, limit) == everything[:limit]


def test_extents_go_on_over_chunks_and_scans():
    table = SlotTable(2 * SCAN_ROWS + 10)
    table.flags[:] = 500
    table.touch(0, table.nr_slots)
    assert extents(table, 0, table.nr_slots, slot_content, 1) == [(table.nr_slots, HOLDS | NOT_ZERO)]
    table.flags[:] = 0
    assert extents(table, 5, table.nr_slots, slot_content, 5) == [(table.nr_slots - 5, 0)]


def test_a_hundred_gib_hole_is_one_extent_and_costs_no_memory():
    table = SlotTable(100 << 18)
    assert extents(table, 0, table.nr_slots, slot_state, 10) == [(100 << 18, 0)]
    table.flags[70 << 18] = 900
    table.touch(70 << 18, 1)
    before = resident(table)
    assert extents(table, 0, table.nr_slots, slot_state, 10) == [
        (70 << 18, 0),
        (1, COMPRESSED),
        ((30 << 18) - 1, 0),
    ]
    assert resident(table) - before < 256 << 10


def resident(table):
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_states_of_a_device(device, disk):
    zram = device(pages=8, comp_algorithm="lz4")
    half = RANDOM.randbytes(2048) + bytes(2048)
    zram.pwrite(0, half + RANDOM.randbytes(4096) + b"ab" * 2048 + bytes(4096) + half + half)
    attributes.store(zram, "idle", "all")
    attributes.store(zram, "writeback", "page_indexes=4-4")
    zram.pread(0, 4096)
    table = zram.path.table
    assert extents(table, 0, 8, slot_state, 10) == [
        (1, COMPRESSED),
        (1, STORED_HUGE | STORED_IDLE),
        (2, SAME_FILLED),
        (1, WRITTEN_BACK),
        (1, COMPRESSED | STORED_IDLE),
        (2, 0),
    ]
    assert extents(table, 0, 8, slot_content, 10) == [
        (3, HOLDS | NOT_ZERO),
        (1, HOLDS),
        (2, HOLDS | NOT_ZERO),
        (2, 0),
    ]
    assert [all_hold_objects(table, *range_) for range_ in [(0, 2), (0, 3), (4, 2), (4, 3), (3, 1)]] == [
        True, False, True, False, False,
    ]  # fmt: skip


def test_an_empty_row_has_the_state_of_a_hole():
    nothing = np.zeros(1, np.uint32), np.zeros(1, np.uint64)
    assert slot_state(*nothing).tolist() == slot_content(*nothing).tolist() == [0]
