"""Whole-table scans against a row by row reading of the rules."""

from __future__ import annotations

from random import Random

import pytest

from zramcore.scan import block_state, mark_all_idle, mark_idle_by_age
from zramcore.slot_table import HUGE, IDLE, INCOMPRESSIBLE, PP_SLOT, PRIORITY_SHIFT, SAME, SIZE_MASK, WB, SlotTable

ROWS = 10_000


@pytest.fixture
def table() -> SlotTable:
    """Rows of every kind, in the first and the last of three chunks."""
    made = SlotTable(ROWS)
    random = Random(3)
    kinds = (0, 0, SAME, WB, WB | HUGE, 100, 3000, 4096 | HUGE, 200 | 1 << PRIORITY_SHIFT, 4096 | HUGE | INCOMPRESSIBLE)
    for index in (*range(500), *range(9500, ROWS)):
        flags = random.choice(kinds)
        if flags & SIZE_MASK:
            flags |= random.choice((0, IDLE)) | random.choice((0, PP_SLOT))
        made.flags_row[index] = flags
        made.ac_times_row[index] = random.randrange(90, 111)
    made.touch(0, 500)
    made.touch(9500, 500)
    return made


def in_pool(flags: int) -> bool:
    return bool(flags & SIZE_MASK) and not flags & (SAME | WB)


def test_marking_all(table: SlotTable) -> None:
    before = table.flags.tolist()
    mark_all_idle(table)
    assert table.flags.tolist() == [flags | IDLE if in_pool(flags) else flags for flags in before]


@pytest.mark.parametrize("age", [0, 1, 9, 10, 11, 100, 101, 1000, (1 << 32) - 1])
def test_marking_by_age(table: SlotTable, age: int) -> None:
    """Older than the age: idle. Exactly as old or younger: not idle any more. An age beyond the clock finds none."""
    now = 100
    before = list(zip(table.flags.tolist(), table.ac_times.tolist(), strict=True))
    mark_idle_by_age(table, now, age)
    expected = [
        (flags | IDLE if used < now - age else flags & ~IDLE) if in_pool(flags) else flags for flags, used in before
    ]
    assert table.flags.tolist() == expected
    assert table.ac_times.tolist() == [used for _, used in before]


def test_block_state_lists_what_is_stored(table: SlotTable) -> None:
    lines = list(block_state(table))
    present = [index for index in range(ROWS) if table.flags_row[index] & (SIZE_MASK | SAME | WB)]
    assert [int(line.split()[0]) for line in lines] == present
    for line, index in zip(lines, present, strict=True):
        flags = table.flags_row[index]
        expected = "".join(
            letter if flags & bit else "."
            for bit, letter in (
                (SAME, "s"), (WB, "w"), (HUGE, "h"), (IDLE, "i"), (3 << PRIORITY_SHIFT, "r"), (INCOMPRESSIBLE, "n"),
            )
        )  # fmt: skip
        assert line == f"{index:12d} {table.ac_times_row[index]:12d}.000000 {expected}\n"


def test_an_untouched_table_is_not_looked_at() -> None:
    made = SlotTable(ROWS)
    made.flags_row[5] = 100
    mark_all_idle(made)
    assert made.flags_row[5] == 100
    assert list(block_state(made)) == []
