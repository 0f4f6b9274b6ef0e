"""Metadata contexts: what a client may ask of a range, and the answers made from the slot table.

``base:allocation``: empty slots are HOLE and ZERO; same-filled pages of zeroes are ZERO; everything else is data.

``zram:state``: how a page is kept, as bits: 1 same-filled, 2 compressed, 4 huge (stored uncompressed), 8 idle,
16 written back; 0 is a slot that holds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct

from ..extents import EMPTY, HOLDS, NOT_ZERO, Classifier, extents, slot_content, slot_state
from ..slot_table import SlotTable
from .protocol import STATE_HOLE, STATE_ZERO

MAX_EXTENTS = 1 << 14
"""Extents in one answer: 128 KiB. The protocol allows 2^20, and clients ask on where an answer ends."""

_PAIR = Struct(">II")


@dataclass(frozen=True)
class Context:
    """A metadata context: its id on the wire, its name, and how its status comes from states of slots."""

    number: int
    name: str
    classify: Classifier
    statuses: Mapping[int, int] | None
    """The status of each state; None: they are the same."""


ALLOCATION = Context(
    1,
    "base:allocation",
    slot_content,
    {EMPTY: STATE_HOLE | STATE_ZERO, HOLDS: STATE_ZERO, HOLDS | NOT_ZERO: 0},
)
ZRAM_STATE = Context(2, "zram:state", slot_state, None)
CONTEXTS = (ALLOCATION, ZRAM_STATE)


def matching(queries: Sequence[str]) -> tuple[Context, ...]:
    """The contexts that queries of LIST_META_CONTEXT name: one by its name, or all of a namespace (``base:``)."""
    wanted = set(queries)
    return tuple(each for each in CONTEXTS if wanted & {each.name, each.name.partition(":")[0] + ":"})


def chosen(queries: Sequence[str]) -> tuple[Context, ...]:
    """The contexts that SET_META_CONTEXT selects: exact names only, each once."""
    return tuple(context for context in CONTEXTS if context.name in queries)


def status(context: Context, table: SlotTable, page_size: int, offset: int, length: int, only_one: bool) -> bytes:
    """The descriptors (length, status) of `length` (>= 1) bytes from `offset`, which lie within the table. They start
    at `offset` and end at or before the end of the range."""
    first, end = offset // page_size, -(-(offset + length) // page_size)
    found = extents(table, first, end, context.classify, 1 if only_one else MAX_EXTENTS)
    position, stop = first * page_size, offset + length
    statuses = context.statuses
    parts = []
    for count, state in found:
        upto = position + count * page_size
        parts.append(
            _PAIR.pack(min(upto, stop) - max(position, offset), state if statuses is None else statuses[state])
        )
        position = upto
    return b"".join(parts)
