"""Durations, page counts and the registration of the built-in policies."""

from __future__ import annotations

import pytest

from zramcore_plugins.policies import Huge, Idle, Nothing, zramcore_policies
from zramcore_plugins.policies.options import MAX_SECONDS, budget, read_duration, read_interval, read_pages


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("0", 0.0),
        ("1.5h", 5400.0),
        ("3h", 10800.0),
        ("2d", 172800.0),
        ("1w", 604800.0),
        ("250ms", 0.25),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1d 12h", 129600.0),
        (" 3H ", 10800.0),
        ("4294967295", float(MAX_SECONDS)),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "h", "3 hours", "-1", "+1", "1h30", "1e3", "nan", "inf", "1..5", "3y", "٣h", "4294967296", "1m!"]
)
def test_not_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|seconds"):
        read_duration(text)


def test_an_interval_is_not_zero() -> None:
    assert read_interval("1ms") == 0.001
    with pytest.raises(ValueError, match="duration of 0"):
        read_interval("0h")


@pytest.mark.parametrize("text", ["", "-1", "1.0", "1k", "٣", str(1 << 64)])
def test_not_pages(text: str) -> None:
    with pytest.raises(ValueError, match="pages"):
        read_pages(text)


def test_budget() -> None:
    assert read_pages("25") == 25
    assert budget(0) == []
    assert budget(25) == [("writeback_limit", "25"), ("writeback_limit_enable", "1")]


def test_all_three_are_registered() -> None:
    assert list(zramcore_policies()) == [Idle, Huge, Nothing]
