"""State: the pages of a running device, from its attributes alone, without changing anything."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DeviceIOError, InvalidValue, NotSupported, ZramError
from ..interfaces import PolicyTarget, can
from .tokens import Lines
from .trace import HUGE, KNOWN, SAME, Array

LETTERS = b"swhirn"
"""The letters of block_state, in their order: same-filled, written back, huge, idle, recompressed, incompressible."""


@dataclass(frozen=True)
class State:
    """The pages that hold something: their numbers, ascending; `accessed` in microseconds of boot time; a row of
    booleans for each of LETTERS."""

    pages: Array
    accessed: Array
    letters: Array

    def has(self, letter: str) -> Array:
        """Which pages have a letter."""
        row: Array = self.letters[LETTERS.index(letter.encode())]
        return row

    @property
    def in_memory(self) -> Array:
        """Which pages are objects in memory."""
        held: Array = ~self.has("s") & ~self.has("w")
        return held

    @property
    def classes(self) -> Array:
        """Flags of a trace's record for each page: SAME, HUGE, KNOWN."""
        flags: Array = (KNOWN + SAME * self.has("s") + HUGE * self.has("h")).astype(np.uint8)
        return flags


def read_state(target: PolicyTarget) -> State:
    """The pages of a target, by its block_state.

    Raises NotSupported (EOPNOTSUPP) where it has none that can be read, InvalidValue (EINVAL) when it is not
    initialised, DeviceIOError (EIO) for a text that is no block_state.
    """
    if not can(target, "block_state"):
        feature = getattr(target, "features", {}).get("block_state")
        raise NotSupported(
            f"the pages of {target.name} cannot be seen",
            hint=feature.line() if feature is not None else "",
        )
    try:
        text = target.show("block_state")
    except ZramError as error:
        if isinstance(error, InvalidValue):
            raise InvalidValue(f"{target.name} is not initialised", hint="write its disksize first") from error
        raise
    return parse_state(text)


def parse_state(text: str) -> State:
    """Read the lines of block_state; old kernels have four letters. Raises DeviceIOError (EIO)."""
    lines = Lines(text.encode("ascii", "replace"), Path("block_state"), 1)
    first = lines.first
    _refuse(lines, lines.words != 3)
    pages, bad_page = lines.numbers(first)
    accessed, bad_time = lines.numbers(first + 1, ignore=b".")
    bad = bad_page | bad_time | (lines.data[lines.end[first + 1] - 7] != ord("."))
    _refuse(lines, bad)
    return State(pages, accessed, np.array([lines.contains(first + 2, bytes([letter])) for letter in LETTERS]))


def _refuse(lines: Lines, bad: Array) -> None:
    if np.any(bad):
        text = lines.text(int(np.flatnonzero(bad)[0]))
        raise DeviceIOError(f"block_state has a line that is none: {text!r}", hint="read it again")


def mean_size(target: PolicyTarget, state: State) -> float | None:
    """Bytes of an object that is neither same-filled nor huge, on average; None where nobody says or there is none."""
    plain = int(np.count_nonzero(state.in_memory & ~state.has("h")))
    try:
        columns = [int(word) for word in target.show("mm_stat").split()]
        held = columns[1] - columns[7] * page_size_of(target)
    except (ZramError, ValueError, IndexError):
        return None
    return held / plain if plain and held > 0 else None


def page_size_of(target: PolicyTarget) -> int:
    """Bytes of a page: a zramcore device's own, else this machine's, which is the kernel's zram's."""
    size = getattr(target, "page_size", None)
    return int(size) if size else mmap.PAGESIZE
