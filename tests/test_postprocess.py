"""Choosing candidates, their order, and the token: set on each, and taken back however the block ends."""

from __future__ import annotations

import pytest

from zramcore.postprocess import EVERY_PAGE, MODES, Selection, qualifying, tokens
from zramcore.slot_table import HUGE, IDLE, INCOMPRESSIBLE, PP_SLOT, SAME, WB, SlotTable

ROWS = {
    0: 100, 1: 100 | IDLE, 2: 4096 | HUGE, 3: 4096 | HUGE | IDLE, 4: SAME, 5: WB | HUGE, 6: 0,
    7: 3000 | INCOMPRESSIBLE, 8: 120 | IDLE, 9: 2000 | IDLE, 10: 130 | WB, 11: 127 | IDLE,
}  # fmt: skip


@pytest.fixture
def table() -> SlotTable:
    made = SlotTable(16)
    for index, flags in ROWS.items():
        made.flags_row[index] = flags
    made.touch(0, 16)
    return made


def marked(table: SlotTable) -> set[int]:
    return {index for index in range(16) if table.flags_row[index] & PP_SLOT}


CHOSEN = {
    "idle": {1, 3, 8, 9, 11},
    "huge": {2, 3},
    "huge_idle": {3},
    "incompressible": {7},
    "idle_or_huge": {1, 2, 3, 8, 9, 11},
}


@pytest.mark.parametrize("mode", MODES)
def test_who_qualifies(table: SlotTable, mode: str) -> None:
    assert set(qualifying(table.flags, MODES[mode]).nonzero()[0].tolist()) == CHOSEN[mode]
    with tokens(table, [Selection(0, 16, MODES[mode])]) as slots:
        assert set(slots) == CHOSEN[mode] == marked(table)
    assert not marked(table)


def test_the_biggest_come_first_and_in_a_bucket_the_last(table: SlotTable) -> None:
    """Buckets are 64 bytes wide: 100, 120 and 127 share one."""
    with tokens(table, [Selection(0, 16, EVERY_PAGE)]) as slots:
        assert slots == [3, 2, 7, 9, 11, 8, 1, 0]


def test_a_selection_is_only_its_range(table: SlotTable) -> None:
    with tokens(table, [Selection(1, 3, EVERY_PAGE), Selection(8, 9, MODES["idle"])]) as slots:
        assert sorted(slots) == [1, 2, 8]
    assert not marked(table)


def test_a_slot_named_twice_comes_twice(table: SlotTable) -> None:
    with tokens(table, [Selection(0, 2, EVERY_PAGE), Selection(1, 2, EVERY_PAGE)]) as slots:
        assert slots == [1, 1, 0]
    assert not marked(table)


def test_excluded_flags_disqualify(table: SlotTable) -> None:
    with tokens(table, [Selection(0, 16, EVERY_PAGE)], INCOMPRESSIBLE | IDLE) as slots:
        assert slots == [2, 0]


def test_nothing_qualifies(table: SlotTable) -> None:
    for selections in ([], [Selection(4, 7, EVERY_PAGE)]):
        with tokens(table, selections) as slots:
            assert slots == []


@pytest.mark.parametrize("error", [OSError(), KeyboardInterrupt(), GeneratorExit()])
def test_tokens_are_taken_back_whatever_ends_the_block(table: SlotTable, error: BaseException) -> None:
    before = table.flags.tolist()

    def run() -> None:
        with tokens(table, [Selection(0, 16, EVERY_PAGE)]):
            table.flags_row[0] &= ~PP_SLOT
            raise error

    with pytest.raises(type(error)):
        run()
    assert table.flags.tolist() == before
