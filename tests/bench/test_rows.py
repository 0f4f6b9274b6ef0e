"""Medians, spreads, ratios and gains, of times that are known."""

from __future__ import annotations

import pytest

from zramcore.bench.rounds import Contender
from zramcore.bench.rows import Row, compare, gains, ratio, spread


def contender(side: str, *seconds: float, role: str = "ours", threads: int = 1) -> Contender:
    return Contender(side, lambda step: [], threads=threads, role=role, base=side, seconds=list(seconds))


def test_ratios_are_speeds_round_by_round_at_the_same_number_of_threads() -> None:
    rows = compare(
        "read",
        4096,
        [
            contender("ours", 2.0, 4.0, 100.0),
            contender("kernel", 1.0, 2.0, 50.0, role="kernel"),
            contender("limit", 0.5, 4.0, 25.0, role="limit"),
            contender("ours", 1.0, 1.0, 1.0, threads=2),
            contender("limit", 0.5, 0.5, 0.5, threads=2, role="limit"),
        ],
        1_000_000,
    )
    assert [(row.side, row.threads, row.us_per_page) for row in rows] == [
        ("ours", 1, 4.0),
        ("kernel", 1, 2.0),
        ("limit", 1, 4.0),
        ("ours", 2, 1.0),
        ("limit", 2, 0.5),
    ]
    assert [row.ratio_to_kernel for row in rows] == [0.5, 1.0, 2.0, None, None]
    assert [row.ratio_to_limit for row in rows] == [0.25, 0.5, 1.0, 0.5, 1.0]


def test_the_spread_is_half_the_distance_of_the_quartiles() -> None:
    assert spread([8.0, 9.0, 10.0, 11.0, 100.0]) == pytest.approx(0.1)
    assert spread([5.0]) == 0.0
    assert ratio([2.0, 2.0, 90.0], [1.0, 1.0, 1.0]) == 2.0


def test_gains_are_against_one_thread_and_then_against_the_others_gain() -> None:
    rows = gains(
        "write",
        1 << 20,
        [
            contender("ours", 4.0, 6.0),
            contender("ours", 2.0, 3.0, threads=2),
            contender("kernel", 3.0, 3.0, role="kernel"),
            contender("kernel", 2.0, 2.0, role="kernel", threads=2),
            contender("limit", 4.0, 4.0, role="limit"),
            contender("limit", 4.0, 4.0, role="limit", threads=2),
        ],
    )
    assert [(row.work, row.side, row.threads, row.figures["gain"]) for row in rows] == [
        ("write: gain", "ours", 2, 2.0),
        ("write: gain", "kernel", 2, 1.5),
        ("write: gain", "limit", 2, 1.0),
    ]
    assert rows[0].ratio_to_kernel == pytest.approx(4 / 3)
    assert [row.ratio_to_limit for row in rows] == [2.0, 1.5, 1.0]
    assert gains("write", 1 << 20, [contender("ours", 1.0)]) == []


def test_json_has_the_fields_and_the_figures() -> None:
    row = Row("read", 4096, 1, "ours", 1.23456789, 0.1, figures={"ratio": 2.0})
    assert row.as_json() == {
        "work": "read",
        "request": 4096,
        "threads": 1,
        "side": "ours",
        "us_per_page": 1.2346,
        "spread": 0.1,
        "ratio_to_kernel": None,
        "ratio_to_limit": None,
        "ratio": 2.0,
    }
