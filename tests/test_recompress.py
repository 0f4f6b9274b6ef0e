"""The recompression pass: who is tried, what is accepted, and what a failure leaves."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import DeviceIOError, InvalidValue, NoMemory, PluginFault, ZramError
from zramcore.slot_table import HUGE, IDLE, INCOMPRESSIBLE, PRIORITY_SHIFT, SIZE_MASK
from zramcore.testing.inspection import Clock, check_consistent, stat

DeviceFactory = Callable[..., Device]
PAGE = 4096


def text_page(number: int) -> bytes:
    """lz4 halves it, zstd does better."""
    return b"".join(b"%d: line %d of a text\n" % (number, n * 7919 % 1000) for n in range(300))[:PAGE]


def noise(number: int) -> bytes:
    return Random(number).randbytes(PAGE)


def barely(number: int) -> bytes:
    """Raw for lz4; zstd makes it a little smaller: letters of the upper half of the alphabet only."""
    return bytes(Random(number).choices(range(128), k=PAGE))


def store(device: Device, text: str) -> None:
    attributes.store(device, "recompress", text)


def rows(device: Device) -> list[tuple[int, int, str]]:
    """Size, priority and letters of each stored page."""
    assert device.path is not None
    letters = {int(line.split()[0]): line.split()[2] for line in attributes.show(device, "block_state").splitlines()}
    flags = device.path.table.flags_row
    return [(flags[n] & SIZE_MASK, flags[n] >> PRIORITY_SHIFT & 3, letters[n]) for n in letters]


@pytest.fixture
def made(device: DeviceFactory) -> Device:
    """0 and 1 text, 2 noise, 3 barely compressible, 4 same-filled, 5 text written back."""
    new = device(8, blocks=8, recomp_algorithm="algo=zstd priority=1")
    new.pwrite(0, text_page(0) + text_page(1) + noise(2) + barely(3) + b"\1" * PAGE + text_page(5))
    attributes.store(new, "writeback", "page_index=5")
    return new


def test_what_becomes_of_each_page(made: Device, clock: Clock) -> None:
    before = rows(made)
    mm = stat(made, "mm_stat")
    data = made.pread(0, 8 * PAGE)
    attributes.store(made, "idle", "all")
    store(made, "priority=1")
    after = rows(made)
    assert [row[2] for row in after] == ["....r.", "....r.", "..h..n", "....r.", "s.....", ".w...."]
    assert [row[1] for row in after] == [1, 1, 0, 1, 0, 0]
    assert all(new[0] < old[0] for new, old in zip(after[:2], before[:2], strict=True))
    assert after[3][0] < before[3][0] == PAGE
    now = stat(made, "mm_stat")
    assert now[1] == sum(row[0] for row in after)
    assert (mm[7], now[7]) == (2, 1)
    assert now[4] == mm[4], "mem_used_max is not raised by recompression"
    assert made.path is not None
    assert [made.path.table.ac_times_row[n] for n in (0, 1, 2, 3)] == [0, 0, clock.now, 0]
    assert made.pread(0, 8 * PAGE) == data
    check_consistent(made)


def test_a_second_pass_finds_nothing_and_a_rewrite_starts_again(made: Device) -> None:
    store(made, "priority=1")
    first = rows(made)
    store(made, "priority=1")
    assert rows(made) == first
    made.pwrite(2 * PAGE, text_page(9))
    store(made, "priority=1")
    assert rows(made)[2][1:] == (1, "....r.")


@pytest.mark.parametrize(
    ("kind", "chosen"), [("huge", {2, 3}), ("idle", {1, 2}), ("huge_idle", {2}), ("", {0, 1, 2, 3})]
)
def test_types(made: Device, kind: str, chosen: set[int]) -> None:
    attributes.store(made, "idle", "all")
    made.pread(0, PAGE)
    made.pread(3 * PAGE, PAGE)
    store(made, f"type={kind} priority=1" if kind else "priority=1")
    assert {n for n, row in enumerate(rows(made)) if row[2][4] == "r" or row[2][5] == "n"} == chosen


def test_the_threshold_chooses_and_judges(made: Device) -> None:
    """Objects below it are not tried; a result that is not below it is not good enough."""
    sizes = [row[0] for row in rows(made)]
    store(made, "threshold=3000 priority=1")
    now = rows(made)
    assert [row[2] for row in now[:4]] == ["......", "......", "..h..n", "..h..n"]
    assert [row[0] for row in now] == sizes


@pytest.mark.parametrize("maximum", [0, 1, 2, 3, 4, 9])
def test_max_pages_counts_attempts(made: Device, maximum: int) -> None:
    store(made, f"max_pages={maximum} priority=1")
    assert sum(row[2][4] == "r" or row[2][5] == "n" for row in rows(made)) == min(maximum, 4)


def test_one_priority_a_pass_and_none_twice(device: DeviceFactory) -> None:
    """Since Linux 7.1 a pass has one target; a page goes up the priorities, never down."""
    made = device(4, blocks=0, recomp_algorithm="algo=lz4hc priority=1")
    made.reset()
    for priority, name in ((1, "lz4hc"), (3, "zstd")):
        attributes.store(made, "recomp_algorithm", f"algo={name} priority={priority}")
    attributes.store(made, "disksize", "16K")
    made.pwrite(0, text_page(1) + text_page(2))
    store(made, "algo=lz4hc max_pages=1")
    assert sorted(row[1] for row in rows(made)[:2]) == [0, 1]
    store(made, "algo=zstd")
    assert [row[1] for row in rows(made)[:2]] == [3, 3]
    store(made, "priority=1")
    assert [row[1] for row in rows(made)[:2]] == [3, 3]
    assert made.pread(0, 2 * PAGE) == text_page(1) + text_page(2)


def test_without_a_secondary_algorithm(device: DeviceFactory) -> None:
    for text in ("", "type=idle", "priority=1", "algo=lz4"):
        with pytest.raises(InvalidValue):
            store(device(4, blocks=0), text)


def test_it_does_not_look_at_mem_limit(made: Device) -> None:
    attributes.store(made, "mem_limit", "4096")
    store(made, "priority=1")
    assert rows(made)[0][1] == 1


@pytest.mark.parametrize(
    ("method", "error", "kind"),
    [
        ("alloc", NoMemory("none left"), NoMemory),
        ("alloc", RuntimeError("boom"), PluginFault),
        ("write", RuntimeError("boom"), PluginFault),
        ("view", RuntimeError("boom"), PluginFault),
        ("free", RuntimeError("boom"), PluginFault),
        ("compress_page", RuntimeError("boom"), PluginFault),
        ("decompress_page", RuntimeError("boom"), PluginFault),
        ("write", KeyboardInterrupt(), KeyboardInterrupt),
        ("compress_page", KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_crash_ends_the_pass_and_loses_nothing(
    device: DeviceFactory, rogue: Any, method: str, error: BaseException, kind: type[BaseException]
) -> None:
    made = device(
        8,
        blocks=0,
        uses=rogue.catalogue,
        comp_algorithm="rogue" if method == "decompress_page" else "lz4",
        allocator="rogue",
        recomp_algorithm="algo=rogue" if method == "compress_page" else "algo=zstd",
    )
    data = b"".join(text_page(n) for n in range(8))
    made.pwrite(0, data)
    used = stat(made, "mm_stat")[2]
    rogue.raises(method, error)
    with pytest.raises(kind):
        store(made, "priority=1")
    rogue.heal()
    check_consistent(made)
    assert made.pread(0, 8 * PAGE) == data
    if method != "free":
        assert stat(made, "mm_stat")[2] == used, "no object was left behind"
    made.discard(0, 8 * PAGE)


def test_it_can_be_stopped(made: Device) -> None:
    made.stop_pass.set()
    with pytest.raises(ZramError) as caught:
        store(made, "priority=1")
    assert caught.value.errno == errno.EINTR
    assert isinstance(caught.value, DeviceIOError)
    check_consistent(made)
    made.stop_pass.clear()
    store(made, "priority=1")
    assert made.path is not None
    assert not (made.path.table.flags[:8] & IDLE).any()
    assert made.path.table.flags_row[2] & (HUGE | INCOMPRESSIBLE) == HUGE | INCOMPRESSIBLE
