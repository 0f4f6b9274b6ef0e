"""WriteHistory: the sliding window that a daily budget is."""

from __future__ import annotations

import json
import math

import pytest

from zramcore.write_history import DAY, WriteHistory


def test_only_writes_younger_than_a_day_count() -> None:
    history = WriteHistory()
    history.record(100, 0.0)
    history.record(50, 3600.0)
    assert history.total(3600.0) == 150
    assert history.total(DAY - 1) == 150
    assert history.total(DAY) == 50
    assert history.total(DAY + 3600) == 0


def test_what_is_left_never_wraps_below_zero() -> None:
    # ZRAM.md 3.1: ChromeOS takes max(limit - sum, 0) of unsigned values, which wraps when the sum is larger
    history = WriteHistory()
    history.record(300, 0.0)
    assert history.left(262144, 0.0) == 262144 - 300
    assert history.left(200, 0.0) == 0


def test_room_comes_when_old_writes_leave_the_window() -> None:
    history = WriteHistory()
    history.record(100, 0.0)
    history.record(100, 1000.0)
    history.record(50, 2000.0)
    assert history.room_in(300, 50, 2000.0) == 0.0
    assert history.room_in(300, 51, 2000.0) == DAY - 2000.0
    assert history.room_in(300, 151, 2000.0) == DAY - 1000.0
    assert history.room_in(300, 300, 2000.0) == DAY
    assert history.room_in(300, 301, 2000.0) == math.inf


def test_many_small_writes_are_few_entries_and_none_leaves_early() -> None:
    history = WriteHistory()
    for second in range(600):
        history.record(1, float(second))
    assert len(history.rows(600.0)) == 10
    assert history.total(DAY + 58.5) == 600, "a minute's writes count from the last of them"
    assert history.total(DAY + 59.0) == 540


def test_it_survives_another_origin_of_time_as_ages() -> None:
    history = WriteHistory()
    history.record(100, 5000.0)
    rows = json.loads(json.dumps(history.rows(5600.0)))
    again = WriteHistory()
    again.take(rows, 10.0, elapsed=3600.0)
    assert again.total(10.0) == 100
    assert again.room_in(100, 100, 10.0) == pytest.approx(DAY - 4200.0)
    again.take(rows, 10.0, elapsed=-1e9)
    assert again.room_in(200, 200, 10.0) == pytest.approx(DAY - 600.0), "a clock set back makes nothing younger"


@pytest.mark.parametrize("rows", [None, 7, {"a": 1}, [1], [[1]], [["x", 2]], [[-1, 2]], [[1, math.inf]], [[1, 2, 3]]])
def test_rows_that_are_none_are_left_out(rows: object) -> None:
    history = WriteHistory()
    history.take(rows, 0.0, 0.0)
    assert history.total(0.0) == 0
