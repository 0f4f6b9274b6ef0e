"""Extents: the slot table as runs of neighbouring slots in the same state, for block status and maps of a device.

Only rows that were ever written are looked at: a 100 GiB hole is one extent and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .slot_table import HUGE, IDLE, SAME, SIZE_MASK, WB, Column, SlotTable, allocated

EMPTY = 0
"""The state of a slot that holds nothing, whatever the classifier."""

SAME_FILLED = 1 << 0
COMPRESSED = 1 << 1
"""Held as an object smaller than a page: in the pool, or in its block when compressed_writeback is on."""
STORED_HUGE = 1 << 2
STORED_IDLE = 1 << 3
WRITTEN_BACK = 1 << 4

HOLDS = 1 << 0
"""The slot holds a page."""
NOT_ZERO = 1 << 1
"""The page is not known to read as zeroes."""

Classifier = Callable[[Column, Column], Column]
"""Makes states of rows, given their flags and handles; an all-zero row must be EMPTY."""

Extent = tuple[int, int]
"""Number of slots and their state."""


def slot_state(flags: Column, handles: Column) -> Column:
    """States made of SAME_FILLED, COMPRESSED, STORED_HUGE, STORED_IDLE and WRITTEN_BACK."""
    state = np.zeros(len(flags), np.uint32)
    state[(flags & SAME) != 0] |= SAME_FILLED
    state[((flags & SIZE_MASK) != 0) & ((flags & (SAME | HUGE)) == 0)] |= COMPRESSED
    state[(flags & HUGE) != 0] |= STORED_HUGE
    state[(flags & IDLE) != 0] |= STORED_IDLE
    state[(flags & WB) != 0] |= WRITTEN_BACK
    return state


def slot_content(flags: Column, handles: Column) -> Column:
    """States made of HOLDS and NOT_ZERO: an empty slot is a hole, a page filled with zeroes holds but is zero."""
    holds = allocated(flags)
    zero = ((flags & SAME) != 0) & (handles == 0)
    state: Column = holds * np.uint32(HOLDS) + (holds & ~zero) * np.uint32(NOT_ZERO)
    return state


def extents(table: SlotTable, first: int, end: int, classify: Classifier, limit: int) -> list[Extent]:
    """Slots `first` .. `end - 1` as at most `limit` (>= 1) extents, neighbours of different state; when there are
    more, those that come first. Each stretch of rows is consistent in itself; between two, slots may change."""
    found: list[Extent] = []
    position = first
    for start, stop in table.touched_ranges(first, end):
        _append(found, start - position, EMPTY)
        with table.lock_range(start, stop - start):
            flags, handles = table.flags[start:stop].copy(), table.handles[start:stop].copy()
        states = classify(flags, handles)
        starts = np.concatenate(([0], np.flatnonzero(states[1:] != states[:-1]) + 1))
        counts = np.diff(starts, append=stop - start)[: limit + 1]
        for count, state in zip(counts.tolist(), states[starts[: limit + 1]].tolist(), strict=True):
            _append(found, count, state)
        if len(found) > limit:
            return found[:limit]
        position = stop
    _append(found, end - position, EMPTY)
    return found[:limit]


def _append(found: list[Extent], count: int, state: int) -> None:
    """Add an extent, or make the last one longer when it has the same state."""
    if not count:
        return
    if found and found[-1][1] == state:
        count += found.pop()[0]
    found.append((count, state))


def all_hold_objects(table: SlotTable, first: int, count: int) -> bool:
    """Whether each of the slots has an object or a block of its own: a quick no to "is there any zero among them"."""
    flags = table.flags[first : first + count]
    return bool(((flags & (SIZE_MASK | WB)) != 0).all())
