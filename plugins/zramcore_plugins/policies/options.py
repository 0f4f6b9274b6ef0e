"""Option values that the policies share: durations, and a budget for each round of writeback."""

from __future__ import annotations

import re
from collections.abc import Callable

from zramcore.interfaces import Option

_UNIT_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw]?)\s*", re.ASCII)

MAX_SECONDS = 0xFFFFFFFF
"""The longest duration: `idle` takes its age as a u32."""


def read_duration(text: str) -> float:
    """Seconds, from a number with an optional unit (ms, s, m, h, d or w), or several: ``90``, ``3h``, ``1h30m``.

    Raises ValueError for anything else, for nothing at all, and for more than a u32 of seconds.
    """
    text = text.strip().lower()
    seconds, position = 0.0, 0
    while position < len(text):
        part = _DURATION.match(text, position)
        # a bare number is seconds only when it is everything: "1h30" leaves the reader guessing
        if part is None or (part[2] == "" and part[0] != text):
            break
        seconds += float(part[1]) * _UNIT_SECONDS[part[2]]
        position = part.end()
    if not text or position < len(text):
        raise ValueError("not a duration: write a number of seconds, or a number with ms, s, m, h, d or w")
    if seconds > MAX_SECONDS:
        raise ValueError(f"longer than {MAX_SECONDS} seconds")
    return seconds


def read_interval(text: str) -> float:
    """`read_duration` that is not 0."""
    seconds = read_duration(text)
    if not seconds:
        raise ValueError("a duration of 0")
    return seconds


def read_pages(text: str) -> int:
    """A number of 4 KiB pages, 0 or more."""
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise ValueError("not a number of pages")
    pages = int(text)
    if pages >= 1 << 64:
        raise ValueError("more than a u64 of pages")
    return pages


LIMIT = Option(
    "limit",
    read_pages,
    0,
    "4 KiB pages to write back in a round at most, set as writeback_limit; 0 leaves writeback_limit alone",
)


def budget(pages: int) -> list[tuple[str, str]]:
    """The writes that give the next writeback a budget of `pages`; none for 0."""
    return [("writeback_limit", str(pages)), ("writeback_limit_enable", "1")] if pages else []


_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.ASCII)


def read_size(text: str) -> int:
    """Bytes, from a number with an optional K, M, G or T: ``300M``, ``1.5GiB``. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError("not a size: write a number of bytes, or a number with K, M, G or T")
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


def read_fraction(text: str) -> float:
    """A number from 0 to 1, or percent: ``0.25``, ``25%``. Raises ValueError."""
    number = text.strip()
    value = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    if not 0 <= value <= 1:
        raise ValueError("not between 0 and 1, or 0% and 100%")
    return value


def reader_of_names(known: tuple[str, ...]) -> Callable[[str], str]:
    """A reader of names separated by commas, in the order given; it returns them so, without blanks."""

    def read(text: str) -> str:
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in known:
                raise ValueError(f"{name!r} is not one of {', '.join(known)}")
        if len(set(names)) < len(names):
            raise ValueError("a name is given twice")
        return ",".join(names)

    return read


def reader_of_choice(known: tuple[str, ...]) -> Callable[[str], str]:
    """A reader of one of some names."""

    def read(text: str) -> str:
        if text not in known:
            raise ValueError(f"not one of {', '.join(known)}")
        return text

    return read


def read_count(text: str) -> int:
    """A whole number of 1 or more."""
    if not re.fullmatch(r"\d+", text, re.ASCII) or int(text) < 1:
        raise ValueError("not a whole number of 1 or more")
    return int(text)


MODES = reader_of_names(("huge_idle", "idle", "huge"))
"""Kinds of pages, in the order they are written back."""
