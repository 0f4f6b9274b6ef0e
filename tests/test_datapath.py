"""Writing: what a page becomes, what an overwrite frees, and what the counters say of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import ZramError
from zramcore.slot_table import HUGE, SAME, SIZE_MASK, WB
from zramcore.testing.inspection import Clock, check_consistent, stat

DeviceFactory = Callable[..., Device]
PAGE = 4096

KINDS: dict[str, Callable[[int], bytes]] = {
    "empty": lambda n: b"",
    "zero": lambda n: bytes(PAGE),
    "same": lambda n: n.to_bytes(8, "big") * 512,
    "small": lambda n: (n.to_bytes(8, "big") + Random(n).randbytes(300)).ljust(PAGE, b"\0"),
    "huge": lambda n: n.to_bytes(8, "big") + Random(n).randbytes(PAGE - 8),
    "block": lambda n: (n.to_bytes(8, "big") + Random(n).randbytes(800)).ljust(PAGE, b"\0"),
}


def put(device: Device, index: int, kind: str, number: int) -> bytes:
    content = KINDS[kind](number)
    if content:
        device.pwrite(index * PAGE, content)
    if kind == "block":
        attributes.store(device, "writeback", f"page_index={index}")
    return content or bytes(PAGE)


@pytest.mark.parametrize("allocator", ["zsmalloc", "malloc"])
@pytest.mark.parametrize("batch", [1, 2])
def test_every_kind_over_every_kind(device: DeviceFactory, allocator: str, batch: int) -> None:
    """Each page over each other one, alone and in a request of two: contents, counters, blocks and the pool agree."""
    made = device(4, blocks=4, allocator=allocator)
    for number, (old, new) in enumerate(itertools.product(KINDS, KINDS)):
        made.discard(0, 4 * PAGE)
        assert stat(made, "mm_stat")[:3] == [0, 0, 0]
        assert stat(made, "bd_stat")[0] == 0
        put(made, 0, old, 2 * number)
        if batch == 1 or new in ("empty", "block"):
            expected = put(made, 0, new, 2 * number + 1) if new != "empty" else made.pread(0, PAGE)
        else:
            expected = KINDS[new](2 * number + 1)
            made.pwrite(0, expected + KINDS["small"](9))
        check_consistent(made)
        assert made.pread(0, PAGE) == expected, (old, new)


@pytest.mark.parametrize(("length", "huge"), [(3624, False), (3625, True), (4096, True), (5000, True)])
def test_from_3625_bytes_on_a_page_is_stored_raw(device: DeviceFactory, rogue: object, length: int, huge: bool) -> None:
    """Measured on Linux 7.3.4: 3624 is the longest compressed object."""
    made = device(4, blocks=0, uses=rogue.catalogue, comp_algorithm="rogue", allocator="zsmalloc")  # type: ignore[attr-defined]
    rogue.returns("compress_page", b"\1" * length)  # type: ignore[attr-defined]
    made.pwrite(0, KINDS["small"](1))
    made.pwrite(PAGE, KINDS["small"](1) + KINDS["small"](2))
    assert made.path is not None
    for index in range(3):
        flags = made.path.table.flags_row[index]
        assert flags == (PAGE | HUGE if huge else length)
    assert stat(made, "mm_stat")[7] == 3 * huge
    assert made.pread(0, PAGE) == KINDS["small"](1) if huge else True


def test_any_repeated_word_is_same_filled(device: DeviceFactory) -> None:
    made = device(4, blocks=0)
    made.pwrite(0, b"12345678" * 512 + bytes(PAGE) + b"\xff" * PAGE)
    assert made.path is not None
    assert [made.path.table.flags_row[index] for index in range(3)] == [SAME] * 3
    assert stat(made, "mm_stat")[:6] == [3 * PAGE, 0, 0, 0, 0, 3]


def test_a_partial_write_may_make_a_page_same_filled_or_not(device: DeviceFactory) -> None:
    made = device(2, blocks=0)
    made.pwrite(0, b"\7" * PAGE)
    made.pwrite(100, b"\1")
    assert stat(made, "mm_stat")[5] == 0
    made.pwrite(100, b"\7")
    assert stat(made, "mm_stat")[5] == 1
    made.pwrite(PAGE + 10, bytes(10))
    assert stat(made, "mm_stat")[0] == 2 * PAGE


def test_huge_pages_since_only_grows(device: DeviceFactory) -> None:
    made = device(4, blocks=4)
    made.pwrite(0, KINDS["huge"](1) + KINDS["huge"](2))
    made.pwrite(0, KINDS["huge"](3))
    made.discard(0, PAGE)
    attributes.store(made, "writeback", "huge")
    assert stat(made, "mm_stat")[7:] == [0, 3]


def test_a_compressed_huge_block_counts_once(device: DeviceFactory) -> None:
    """A bug seen in Linux 7.0-rc: huge_pages fell twice, below zero."""
    made = device(4, blocks=4, compressed_writeback="1")
    made.pwrite(0, KINDS["huge"](1) + KINDS["small"](2))
    attributes.store(made, "writeback", "page_indexes=0-1")
    assert stat(made, "mm_stat")[7] == 0
    for change in (lambda: made.pwrite(0, KINDS["small"](5)), lambda: made.discard(0, 2 * PAGE)):
        change()
        assert stat(made, "mm_stat")[7] == 0
        check_consistent(made)


@pytest.mark.parametrize("request_pages", [1, 4])
def test_at_the_limit_pages_before_the_one_that_fails_stay_written(device: DeviceFactory, request_pages: int) -> None:
    made = device(8, blocks=0, allocator="malloc", mem_limit=str(6 * PAGE))
    old = b"".join(KINDS["huge"](n) for n in range(4))
    made.pwrite(0, old)
    new = b"".join(KINDS["huge"](10 + n) for n in range(4))

    def write_all() -> None:
        for index in range(0, 4, request_pages):
            made.pwrite((4 + index) * PAGE, new[index * PAGE : (index + request_pages) * PAGE])

    with pytest.raises(ZramError, match="mem_limit") as caught:
        write_all()
    assert caught.value.errno_name == "EIO"
    assert made.pread(0, 8 * PAGE) == old + new[: 2 * PAGE] + bytes(2 * PAGE)
    check_consistent(made)
    assert stat(made, "io_stat")[1] == 1
    attributes.store(made, "mem_limit", "0")
    made.pwrite(4 * PAGE, new)
    assert made.pread(4 * PAGE, 4 * PAGE) == new


def test_writing_stamps_the_access_time_and_discarding_forgets_it(device: DeviceFactory, clock: Clock) -> None:
    made = device(4, blocks=0)
    clock.now = 42
    made.pwrite(0, KINDS["small"](1) + KINDS["same"](2) + KINDS["huge"](3))
    assert made.path is not None
    table = made.path.table
    assert table.ac_times[:4].tolist() == [42, 42, 42, 0]
    made.discard(0, 4 * PAGE)
    assert not table.ac_times.any()
    assert not table.handles.any()
    assert not table.flags.any()


def test_compaction_moves_objects_and_loses_none(device: DeviceFactory) -> None:
    made = device(256, blocks=0, allocator="zsmalloc")
    for index in range(256):
        made.pwrite(index * PAGE, KINDS["small"](index))
    for index in range(256):
        if index % 4:
            made.discard(index * PAGE, PAGE)
    used = stat(made, "mm_stat")
    attributes.store(made, "compact", "1")
    now = stat(made, "mm_stat")
    assert now[2] < used[2]
    assert now[6] == (used[2] - now[2]) // PAGE
    for index in range(0, 256, 4):
        assert made.pread(index * PAGE, PAGE) == KINDS["small"](index)
    check_consistent(made)


def test_overwriting_a_written_back_page_frees_its_block(device: DeviceFactory) -> None:
    made = device(4, blocks=2)
    for round_ in range(10):
        put(made, 0, "block", round_)
        put(made, 1, "block", 100 + round_)
        assert stat(made, "bd_stat")[0] == 2
    assert made.path is not None
    assert all(made.path.table.flags_row[index] & WB for index in (0, 1))
    assert all(not made.path.table.flags_row[index] & SIZE_MASK for index in (0, 1))
