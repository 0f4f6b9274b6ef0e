"""What writeback and recompression share: choosing candidates, and the slot token.

One pass runs at a time. It sets the token (PP_SLOT) on each slot it chooses, under the slot's lock; every access,
overwrite and free clears it. The pass looks again under the lock before it reads an object and before it commits:
a slot without the token has changed meanwhile and is left alone. Tokens of slots it never came to are taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from .slot_table import HUGE, IDLE, INCOMPRESSIBLE, PP_SLOT, SIZE_MASK, Column, Rows, SlotTable, in_memory

BUCKET_BYTES = 64
"""Candidates are taken biggest first, in buckets of this many bytes; within one, the last chosen first."""

MAX_BATCH = 1024
"""Pages that are in flight at most, whatever writeback_batch_size says: twice as many are held in memory. (The kernel
makes do with fewer, too, when it cannot allocate that many requests.)"""

NO_TOKEN = np.uint32(~PP_SLOT & 0xFFFFFFFF)


@dataclass(frozen=True)
class Mode:
    """Which pages qualify: all of the flags in `all_of`, and any of those in `any_of` unless it is 0."""

    all_of: int = 0
    any_of: int = 0


MODES = {
    "idle": Mode(IDLE),
    "huge": Mode(HUGE),
    "huge_idle": Mode(IDLE | HUGE),
    "incompressible": Mode(INCOMPRESSIBLE),
    "idle_or_huge": Mode(any_of=IDLE | HUGE),
}
"""The modes by name. The kernel has no `idle_or_huge`: it is the union that the seed patch's `3` meant."""

EVERY_PAGE = Mode()
"""The mode of page_index= and page_indexes=: whatever is in memory."""


@dataclass(frozen=True)
class Selection:
    """Slots `first` .. `end - 1` that qualify by `mode`."""

    first: int
    end: int
    mode: Mode


def qualifying(flags: Column, mode: Mode, excluded: int = 0) -> Rows:
    """Which of these rows hold a page in memory that `mode` wants, without any of the `excluded` flags."""
    wanted = in_memory(flags, mode.all_of, excluded)
    if mode.any_of:
        wanted &= (flags & mode.any_of) != 0
    return wanted


def gather(
    table: SlotTable,
    selections: list[Selection],
    slots: list[Column],
    sizes: list[Column],
    *,
    excluded: int = 0,
    mark: int = 0,
    handles: list[Column] | None = None,
) -> None:
    """Append the slots that qualify to `slots`, the sizes of their objects to `sizes`, and their handles to `handles`.

    `excluded` flags disqualify a slot; `mark` is set on those found, under their locks. Ranges are appended before
    they are marked, so that the caller knows of every mark even when a signal ends the call.
    """
    for selection in selections:
        for blocks in table.touched_blocks(selection.first, selection.end):
            with table.lock_blocks(blocks):
                for block in blocks:
                    flags = table.flags[block]
                    wanted = qualifying(flags, selection.mode, excluded)
                    found = np.flatnonzero(wanted)
                    if not len(found):
                        continue
                    slots.append(found + block.start)
                    sizes.append(flags[found] & SIZE_MASK)
                    if handles is not None:
                        handles.append(table.handles[block][found])
                    if mark:
                        flags[found] |= mark


def size_order(sizes: list[Column]) -> Column:
    """Positions in the concatenated `sizes` in the order a pass takes them: biggest first, in buckets."""
    # 16 bits hold a bucket, also of 64 KiB pages, and are sorted by radix.
    bucket = (np.concatenate(sizes) // BUCKET_BYTES).astype(np.uint16)
    order: Column = np.argsort(bucket, kind="stable")[::-1]
    return order


@contextmanager
def chosen(table: SlotTable, selections: list[Selection], excluded: int = 0) -> Iterator[Column]:
    """Choose candidates and set their tokens; yields the slots in the order to process them.

    A slot that two selections name comes twice (as in the kernel, where the second write is wasted). `excluded`
    flags disqualify a slot. On the way out every token that is left is taken back, however the block ends.
    """
    found: list[Column] = []
    sizes: list[Column] = []
    try:
        gather(table, selections, found, sizes, excluded=excluded, mark=PP_SLOT)
        yield np.concatenate(found)[size_order(sizes)] if found else np.zeros(0, np.int64)
    finally:
        for slots in found:
            with table.lock_range(int(slots[0]), int(slots[-1] - slots[0]) + 1):
                table.flags[slots] &= NO_TOKEN


@contextmanager
def tokens(table: SlotTable, selections: list[Selection], excluded: int = 0) -> Iterator[list[int]]:
    """`chosen`, for who takes one slot after the other."""
    with chosen(table, selections, excluded) as slots:
        yield slots.tolist()
