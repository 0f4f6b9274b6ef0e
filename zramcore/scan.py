"""Whole-table scans: marking pages idle, and the lines of block_state. They visit only rows that were ever written."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .slot_table import (
    HUGE,
    IDLE,
    INCOMPRESSIBLE,
    PRIORITY_MASK,
    SAME,
    WB,
    SlotTable,
    allocated,
    change_flags,
    in_memory,
)


def mark_all_idle(table: SlotTable) -> None:
    """Set IDLE on every page in memory; same-filled and written-back ones are never idle (since 6.13)."""
    for blocks in table.touched_blocks():
        with table.lock_blocks(blocks):
            for block in blocks:
                flags = table.flags[block]
                change_flags(flags, in_memory(flags, lacking=IDLE), IDLE)


def mark_idle_by_age(table: SlotTable, now: int, age: int) -> None:
    """Set IDLE on pages in memory last accessed more than `age` seconds before `now` (boot seconds), and clear it on
    the younger ones. A page exactly `age` seconds old is young (measured, Linux 7.3.4)."""
    cutoff = now - age
    for blocks in table.touched_blocks():
        with table.lock_blocks(blocks):
            for block in blocks:
                flags = table.flags[block]
                changed = in_memory(flags)
                if changed.any():
                    changed &= (table.ac_times[block] < cutoff) != ((flags & IDLE) != 0)
                    change_flags(flags, changed, IDLE)


def block_state(table: SlotTable) -> Iterator[str]:
    """The lines of debugfs block_state: index, access time in seconds, and six letters (s w h i r n, or dots)."""
    letters = ((SAME, "s"), (WB, "w"), (HUGE, "h"), (IDLE, "i"), (PRIORITY_MASK, "r"), (INCOMPRESSIBLE, "n"))
    for start, end in table.touched_ranges():
        with table.lock_range(start, end - start):
            present = np.flatnonzero(allocated(table.flags[start:end]))
            flags = table.flags[start:end][present].tolist()
            times = table.ac_times[start:end][present].tolist()
        for offset, flag, seconds in zip(present.tolist(), flags, times, strict=True):
            shown = "".join(letter if flag & bit else "." for bit, letter in letters)
            yield f"{start + offset:12d} {seconds:12d}.{0:06d} {shown}\n"
