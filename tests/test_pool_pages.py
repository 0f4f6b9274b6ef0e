"""Taking pages out of the pool, and committing them: compiled and in Python, the same comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import pytest

from zramcore import attributes
from zramcore.block_io import aligned_memory
from zramcore.datapath import DataPath
from zramcore.device import Device
from zramcore.errors import ZramError
from zramcore.native import PURE_VARIABLE
from zramcore.pool_pages import KEPT_FLAGS, LOCKED_SLOTS, PoolPages
from zramcore.slot_table import HUGE, IDLE, PP_SLOT, PRIORITY_MASK, SIZE_MASK, WB

DeviceFactory = Callable[..., Device]
PAGE = 4096
SLOTS = 200


def page(number: int) -> bytes:
    kind = number % 4
    if kind == 0:
        return (number.to_bytes(8, "little") + Random(number).randbytes(900)).ljust(PAGE, b"\0")
    if kind == 1:
        return Random(number).randbytes(PAGE)
    return b"".join(b"%d line %d of a text\n" % (number, line) for line in range(400))[:PAGE]


@pytest.fixture(params=["compiled", "python"])
def path(request: pytest.FixtureRequest, device: DeviceFactory) -> Iterator[DataPath]:
    """Primary, huge and recompressed pages, each with its token."""
    made = device(SLOTS, blocks=SLOTS, recomp_algorithm="algo=zstd")
    made.pwrite(0, b"".join(page(number) for number in range(SLOTS)))
    attributes.store(made, "recompress", "type=idle threshold=0 priority=1")
    for number in range(3, SLOTS, 8):
        made.path.table.flags_row[number] |= IDLE  # type: ignore[union-attr]
    attributes.store(made, "recompress", "type=idle priority=1")
    path = made.path
    assert path is not None
    compiled = path.pages
    if request.param == "compiled" and compiled is None:
        pytest.skip(f"the extension was not built, or {PURE_VARIABLE} is set")
    path.table.flags[:] |= np.uint32(PP_SLOT)
    assert (path.table.flags & PRIORITY_MASK).any()
    assert (path.table.flags & HUGE).any()
    assert SLOTS > 2 * LOCKED_SLOTS
    if request.param == "python":
        path.pages = None
    yield path
    path.pages = compiled


def stored(path: DataPath, slot: int) -> bytes:
    """What compressed_writeback writes of a slot."""
    size = path.table.flags_row[slot] & SIZE_MASK
    return bytes(path.allocator.view(path.table.handles_row[slot], size)).ljust(PAGE, b"\0")


@pytest.mark.parametrize("as_stored", [False, True])
def test_what_is_taken(path: DataPath, as_stored: bool) -> None:
    """In any order, some without their token, more than are locked together; rows stay as they are."""
    order = list(range(SLOTS))
    Random(1).shuffle(order)
    lost = set(order[5:9] + order[-3:])
    for slot in lost:
        path.table.flags_row[slot] &= ~PP_SLOT
    before = path.table.flags.tolist()
    target = aligned_memory(SLOTS * PAGE)
    held, failures = PoolPages(path, as_stored).take(np.array(order), target)
    assert failures == {}
    assert held.tolist() == [slot not in lost for slot in order]
    for position, slot in enumerate(order):
        if slot not in lost:
            expected = stored(path, slot) if as_stored else page(slot)
            assert target[position * PAGE : (position + 1) * PAGE] == expected, slot
    assert path.table.flags.tolist() == before


def test_pages_that_cannot_be_decompressed_are_named(path: DataPath) -> None:
    """One of the primary algorithm and one of the secondary; their neighbours are taken."""
    slots = np.arange(SLOTS)
    damaged = [0, next(slot for slot in range(SLOTS) if path.table.flags_row[slot] & PRIORITY_MASK)]
    for slot in damaged:
        size = path.table.flags_row[slot] & SIZE_MASK
        path.allocator.write(path.table.handles_row[slot], b"\xff" * size)
    target = aligned_memory(SLOTS * PAGE)
    held, failures = PoolPages(path, False).take(slots, target)
    assert held.all()
    assert sorted(failures) == sorted(damaged)
    assert all(isinstance(error, ZramError) for error in failures.values())
    good = [slot for slot in range(SLOTS) if slot not in damaged]
    assert all(target[slot * PAGE : (slot + 1) * PAGE] == page(slot) for slot in good)


@pytest.mark.parametrize("as_stored", [False, True])
def test_what_is_committed(path: DataPath, as_stored: bool) -> None:
    """Not what was not written, not what lost its token; a slot named twice has the first block that was written."""
    slots = np.array([7, 3, 12, 3, 40, 41, 40, 42])
    blocks = np.arange(100, 108, dtype=np.uint64)
    written = np.array([True, True, False, True, False, True, True, True])
    path.table.flags_row[42] &= ~PP_SLOT
    before = path.table.flags.copy()
    used = path.stats.compr_data_size
    huge = path.stats.huge_pages
    kept = PoolPages(path, as_stored).commit(slots, blocks, written)
    assert kept.tolist() == [True, True, False, False, False, True, True, False]
    given = {7: 100, 3: 101, 41: 105, 40: 106}
    for slot in range(SLOTS):
        flags = before[slot]
        if slot in given:
            flags = (flags & KEPT_FLAGS) | WB | (flags & SIZE_MASK if as_stored else 0)
            assert path.table.handles_row[slot] == given[slot]
        assert path.table.flags_row[slot] == flags
    assert used - path.stats.compr_data_size == sum(int(before[slot]) & SIZE_MASK for slot in given)
    assert huge - path.stats.huge_pages == sum(bool(before[slot] & HUGE) for slot in given)


def bad_calls(pages: Any) -> list[Callable[[], object]]:
    slots, target, found = np.arange(4), bytearray(4 * PAGE), np.zeros(4, np.uint8)
    blocks, flags, handles = np.zeros(4, np.uint64), np.zeros(4, bool), np.zeros(4, np.uint64)
    return [
        lambda: pages.take(slots, target[PAGE:], found, False),
        lambda: pages.take(slots, target, found[1:], False),
        lambda: pages.take(np.array([1, SLOTS]), target, found, False),
        lambda: pages.take(np.array([-1]), target, found, False),
        lambda: pages.take(slots, bytes(target), found, False),
        lambda: pages.take(slots, target, found),
        lambda: pages.take(slots[::2], target, found, False),
        lambda: pages.commit(slots, blocks[1:], flags, flags, handles, False),
        lambda: pages.commit(slots, blocks, flags[1:], flags, handles, False),
        lambda: pages.commit(slots, blocks, flags, flags[1:], handles, False),
        lambda: pages.commit(slots, blocks, flags, flags, handles[1:], False),
        lambda: pages.commit(np.array([SLOTS]), blocks, flags, flags, handles, False),
        lambda: pages.commit(slots, blocks, flags, flags, handles),
    ]


def test_bad_arguments_reach_past_no_buffer(path: DataPath) -> None:
    if path.pages is None:
        pytest.skip("only compiled code needs it")
    before = path.table.flags.tolist()
    for call in bad_calls(path.pages):
        with pytest.raises((ValueError, IndexError, TypeError, BufferError)):
            call()
    assert path.table.flags.tolist() == before


def test_a_closed_device_has_no_pages(path: DataPath) -> None:
    if path.pages is None:
        pytest.skip("only compiled code needs it")
    pages = path.pages
    path.close()
    with pytest.raises(ValueError, match="reset"):
        pages.take(np.arange(2), bytearray(2 * PAGE), np.zeros(2, np.uint8), False)
