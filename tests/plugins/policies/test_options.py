"""Durations, page counts and the registration of the built-in policies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zramcore_plugins.policies import Huge, Idle, Nothing, zramcore_policies
from zramcore_plugins.policies.options import (
    MAX_SECONDS,
    MODES,
    budget,
    read_count,
    read_duration,
    read_fraction,
    read_interval,
    read_pages,
    read_size,
    reader_of_choice,
)


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


def test_all_are_registered() -> None:
    kinds = list(zramcore_policies())
    assert [kind for kind in kinds if kind in (Idle, Huge, Nothing)] == [Idle, Huge, Nothing]
    names = ["idle", "huge", "idle_or_huge", "adaptive", "pressure", "coldness", "watermark", "recompress", "none"]
    assert [kind.name for kind in kinds] == names


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("4096", 4096), ("300M", 300 << 20), ("1.5GiB", 3 << 29), (" 2 kb ", 2048)]
)
def test_sizes(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("25%", 0.25), ("0.002", 0.002), ("1", 1.0)])
def test_fractions(text: str, value: float) -> None:
    assert read_fraction(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_size, "-1"),
        (read_size, "M"),
        (read_size, "1Q"),
        (read_fraction, "101%"),
        (read_fraction, "-0.1"),
        (read_fraction, "nan"),
        (read_count, "0"),
        (read_count, "1.5"),
        (MODES, "idle,idle"),
        (MODES, ""),
        (MODES, "idle,all"),
        (reader_of_choice(("a", "b")), "c"),
    ],
)
def test_what_is_not_understood_is_refused(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - read_options adds what it is about
        read(text)


def test_names_come_back_in_their_order() -> None:
    assert MODES("idle , huge_idle") == "idle,huge_idle"
