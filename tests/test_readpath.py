"""Reading: runs of blocks, mixed kinds, and what an access does to a row."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import DeviceIOError
from zramcore.slot_table import IDLE, PP_SLOT
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import Clock, stat

DeviceFactory = Callable[..., Device]
PAGE = 4096


def page(number: int, noise: int = 500) -> bytes:
    return (number.to_bytes(8, "little") + Random(number).randbytes(noise)).ljust(PAGE, b"\0")


@pytest.mark.parametrize("read", ["pread", "pread_into"])
@pytest.mark.parametrize("pages", [1, 2, 20])
def test_an_access_clears_idle_and_the_token_and_stamps_the_time(
    device: DeviceFactory, clock: Clock, read: str, pages: int
) -> None:
    made = device(32, blocks=0)
    made.pwrite(0, b"".join(page(n) for n in range(32)))
    assert made.path is not None
    table = made.path.table
    table.flags |= IDLE | PP_SLOT
    clock.now = 5000
    made.pread(3 * PAGE, pages * PAGE) if read == "pread" else made.pread_into(3 * PAGE, bytearray(pages * PAGE))
    for index in range(32):
        touched = 3 <= index < 3 + pages
        assert (table.flags_row[index] & (IDLE | PP_SLOT) == 0) == touched
        assert (table.ac_times_row[index] == 5000) == touched


@pytest.mark.parametrize("count", [1, 2, 63, 64, 200])
def test_every_mixture_of_kinds_comes_in_order(device: DeviceFactory, count: int) -> None:
    """Empty, same-filled, huge, primary, recompressed and written-back pages side by side, across inner batches."""
    made = device(256, blocks=256, recomp_algorithm="algo=zstd")
    random = Random(count)
    expected = []
    for index in range(count):
        kind = random.randrange(6)
        content = {
            0: bytes(PAGE),
            1: bytes([index & 0xFF]) * PAGE,
            2: page(index, PAGE - 8),
            3: page(index),
            4: b"".join(b"%d line %d\n" % (index, n) for n in range(600))[:PAGE],
            5: page(index, 900),
        }[kind]
        expected.append(content)
        if kind:
            made.pwrite(index * PAGE, content)
        if kind == 5:
            attributes.store(made, "writeback", f"page_index={index}")
    attributes.store(made, "recompress", "priority=1")
    data = made.pread(0, count * PAGE)
    for index in range(count):
        assert data[index * PAGE : (index + 1) * PAGE] == expected[index], index
    buffer = bytearray(count * PAGE)
    made.pread_into(0, buffer)
    assert buffer == data


def test_blocks_are_read_as_runs(device: DeviceFactory, disk: Callable[[], FaultyDriver]) -> None:
    """Pages written last index first lie in blocks in falling order: one read fetches them all."""
    made = device(16, blocks=16)
    made.pwrite(0, b"".join(page(n) for n in range(16)))
    attributes.store(made, "writeback", "page_indexes=0-15")
    assert made.pread(0, 16 * PAGE) == b"".join(page(n) for n in range(16))
    assert disk().read_runs == [(0, 16)]
    assert stat(made, "bd_stat") == [16, 16, 16]


def test_written_back_pages_stay_on_the_device_and_count_each_time(device: DeviceFactory) -> None:
    made = device(4, blocks=4)
    made.pwrite(0, page(1))
    attributes.store(made, "writeback", "page_index=0")
    for reads in range(1, 4):
        made.pread(0, PAGE)
        assert stat(made, "bd_stat") == [1, reads, 1]


def test_reading_what_was_never_written_touches_nothing(device: DeviceFactory, clock: Clock) -> None:
    made = device(64, blocks=0)
    clock.now = 7000
    assert made.pread(0, 64 * PAGE) == bytes(64 * PAGE)
    assert made.pread(5 * PAGE, PAGE) == bytes(PAGE)
    assert made.path is not None
    assert not made.path.table.ac_times.any()


def test_a_bad_block_fails_its_request_and_no_other(device: DeviceFactory, disk: Callable[[], FaultyDriver]) -> None:
    made = device(8, blocks=8)
    made.pwrite(0, b"".join(page(n) for n in range(8)))
    attributes.store(made, "writeback", "page_indexes=0-3")
    assert made.path is not None
    disk().bad_blocks[made.path.table.handles_row[2]] = 5
    for offset, length in ((0, 8 * PAGE), (2 * PAGE, PAGE), (2 * PAGE + 5, 1)):
        with pytest.raises(DeviceIOError, match="block"):
            made.pread(offset, length)
    assert made.pread(0, 2 * PAGE) == page(0) + page(1)
    assert made.pread(3 * PAGE, 5 * PAGE) == b"".join(page(n) for n in range(3, 8))
    assert stat(made, "io_stat")[0] == 3
    with pytest.raises(DeviceIOError):
        made.pwrite(2 * PAGE + 5, b"part")
    assert stat(made, "io_stat")[1] == 1
    made.pwrite(2 * PAGE, page(99))
    assert made.pread(2 * PAGE, PAGE) == page(99)


def test_damage_in_a_compressed_block_is_found(device: DeviceFactory, disk: Callable[[], FaultyDriver]) -> None:
    made = device(4, blocks=4, comp_algorithm="zstd", compressed_writeback="1")
    made.pwrite(0, page(1, 2000))
    attributes.store(made, "writeback", "page_index=0")
    good = disk().peek(0)
    disk().poke(0, b"\xff" * 100 + good[100:])
    with pytest.raises(DeviceIOError, match="zstd"):
        made.pread(0, PAGE)
    disk().poke(0, good)
    assert made.pread(0, PAGE) == page(1, 2000)


def test_a_closed_path_refuses(device: DeviceFactory) -> None:
    """What a request that was under way meets after a reset."""
    made = device(4, blocks=0)
    made.pwrite(0, page(1))
    path = made.path
    assert path is not None
    made.reset()
    for call in (
        lambda: path.read_page(0, PAGE), lambda: path.read_pages(0, 2), lambda: path.write_page(0, page(2)),
        lambda: path.write_page(0, bytes(PAGE)), lambda: path.write_pages(0, memoryview(page(1) * 2)),
        lambda: path.write_partial(0, 1, memoryview(b"x")), lambda: path.free_pages(0, 1), path.compact,
    ):  # fmt: skip
        with pytest.raises(DeviceIOError, match="reset"):
            call()
