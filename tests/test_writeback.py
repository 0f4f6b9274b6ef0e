"""The writeback pass on a healthy and on a failing medium; its races are in test_races.py."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import BudgetExhausted, DeviceIOError, NoSpace, PluginFault, ZramError
from zramcore.slot_table import HUGE, INCOMPRESSIBLE, PRIORITY_MASK, SIZE_MASK, WB
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import check_consistent, stat

DeviceFactory = Callable[..., Device]
PAGE = 4096


def page(number: int, noise: int = 500) -> bytes:
    return (number.to_bytes(8, "little") + Random(number).randbytes(noise)).ljust(PAGE, b"\0")


def store(device: Device, name: str, text: str) -> None:
    attributes.store(device, name, text)


def fill(device: Device, count: int) -> bytes:
    data = b"".join(page(n) for n in range(count))
    device.pwrite(0, data)
    return data


@pytest.mark.parametrize("batch", [1, 3, 32, 1000])
def test_a_pass_writes_batches_of_contiguous_blocks(
    device: DeviceFactory, disk: Callable[[], FaultyDriver], batch: int
) -> None:
    made = device(100, blocks=128)
    data = fill(made, 100)
    store(made, "writeback_batch_size", str(batch))
    store(made, "writeback", "page_indexes=0-99")
    runs = disk().write_runs
    assert [count for _, count in runs[:-1]] == [min(batch, 100)] * (len(runs) - 1)
    assert [start for start, _ in runs] == list(range(0, 100, batch))[: len(runs)]
    assert made.pread(0, 100 * PAGE) == data
    check_consistent(made)


def test_the_lowest_free_block_is_taken(device: DeviceFactory, disk: Callable[[], FaultyDriver]) -> None:
    made = device(16, blocks=16)
    fill(made, 16)
    store(made, "writeback", "page_indexes=0-7")
    made.discard(2 * PAGE, PAGE)
    made.discard(5 * PAGE, PAGE)
    store(made, "writeback", "page_indexes=8-10")
    assert made.path is not None
    rows = made.path.table
    assert sorted(rows.handles_row[index] for index in range(11) if rows.flags_row[index] & WB) == list(range(9))


def test_memory_and_letters_after_writeback(device: DeviceFactory) -> None:
    made = device(4, blocks=4, recomp_algorithm="algo=zstd")
    text = b"".join(b"line %d of a text\n" % n for n in range(300))[:PAGE]
    made.pwrite(0, page(1, PAGE - 8) + text + page(2))
    store(made, "recompress", "priority=1")
    store(made, "idle", "all")
    before = stat(made, "mm_stat")
    store(made, "writeback", "page_indexes=0-2")
    after = stat(made, "mm_stat")
    assert (before[0], after[0]) == (3 * PAGE, 3 * PAGE)
    assert after[1:3] == [0, 0]
    assert made.path is not None
    for index in range(3):
        flags = made.path.table.flags_row[index]
        assert flags & WB
        assert not flags & ~(WB | HUGE | INCOMPRESSIBLE | PRIORITY_MASK)
        assert not flags & SIZE_MASK
    letters = [line.split()[2] for line in attributes.show(made, "block_state").splitlines()]
    assert [row[1] for row in letters] == ["w"] * 3
    assert letters[0] == ".wh..n"
    assert letters[1] == ".w..r."
    assert made.pread(0, 3 * PAGE) == page(1, PAGE - 8) + text + page(2)


def test_compressed_blocks_keep_their_objects(device: DeviceFactory, disk: Callable[[], FaultyDriver]) -> None:
    """A recompressed object, a primary one and a huge one, read back through their own algorithms."""
    made = device(4, blocks=4, recomp_algorithm="algo=zstd", compressed_writeback="1")
    text = b"".join(b"line %d of a text\n" % n for n in range(300))[:PAGE]
    made.pwrite(0, text + page(1, PAGE - 8))
    store(made, "recompress", "priority=1")
    made.pwrite(2 * PAGE, text[::-1])
    path = made.path
    assert path is not None
    table = path.table
    sizes = [table.flags_row[index] & SIZE_MASK for index in range(3)]
    objects = [bytes(path.allocator.view(table.handles_row[index], sizes[index])) for index in range(3)]
    store(made, "writeback", "page_indexes=0-2")
    blocks = [disk().peek(table.handles_row[index]) for index in range(3)]
    assert blocks == [item.ljust(PAGE, b"\0") for item in objects]
    assert made.pread(0, 3 * PAGE) == text + page(1, PAGE - 8) + text[::-1]
    made.pwrite(10, b"part")
    assert made.pread(0, PAGE) == text[:10] + b"part" + text[14:]
    check_consistent(made)


@pytest.mark.parametrize("page_size", [4096, 16384])
@pytest.mark.parametrize("limit", [0, 1, 5, 15, 16, 17])
def test_the_budget_is_exact(device: DeviceFactory, page_size: int, limit: int) -> None:
    units = page_size // 4096
    made = device(16, page_size=page_size, blocks=16)
    for index in range(16):
        made.pwrite(index * page_size, Random(index).randbytes(page_size // 2).ljust(page_size, b"\0"))
    store(made, "writeback_limit", str(limit * units))
    store(made, "writeback_limit_enable", "1")
    if limit < 16:
        with pytest.raises(BudgetExhausted) as caught:
            store(made, "writeback", "page_indexes=0-15")
        assert caught.value.errno == errno.EIO
    else:
        store(made, "writeback", "page_indexes=0-15")
    assert stat(made, "bd_stat") == [min(limit, 16) * units, 0, min(limit, 16) * units]
    assert attributes.show(made, "writeback_limit") == f"{max(0, limit - 16) * units}\n"
    check_consistent(made)


def test_an_exhausted_budget_with_nothing_to_write_is_success(device: DeviceFactory) -> None:
    made = device(4, blocks=4)
    fill(made, 4)
    store(made, "writeback_limit_enable", "1")
    store(made, "writeback", "idle")
    store(made, "writeback", "incompressible")


def test_a_disabled_budget_limits_nothing(device: DeviceFactory) -> None:
    made = device(4, blocks=4)
    fill(made, 4)
    store(made, "writeback_limit", "1")
    store(made, "writeback", "page_indexes=0-3")
    assert stat(made, "bd_stat")[0] == 4
    assert attributes.show(made, "writeback_limit") == "1\n"


def test_a_full_device_takes_more_after_a_discard(device: DeviceFactory) -> None:
    made = device(8, blocks=4)
    data = fill(made, 8)
    for _ in range(2):
        with pytest.raises(NoSpace):
            store(made, "writeback", "page_indexes=0-7")
        assert stat(made, "bd_stat")[0] == 4
    made.discard(7 * PAGE, PAGE)
    with pytest.raises(NoSpace):
        store(made, "writeback", "page_indexes=0-7")
    assert stat(made, "bd_stat") == [4, 0, 5]
    assert made.pread(0, 7 * PAGE) == data[: 7 * PAGE]


def test_the_last_error_wins_and_the_rest_goes_on(device: DeviceFactory, disk: Callable[[], FaultyDriver]) -> None:
    made = device(8, blocks=16)
    fill(made, 8)
    disk().bad_blocks = {1: errno.EIO, 6: errno.EREMOTEIO}
    with pytest.raises(ZramError) as caught:
        store(made, "writeback", "page_indexes=0-7")
    assert caught.value.errno == errno.EREMOTEIO
    assert stat(made, "bd_stat") == [6, 0, 6]
    check_consistent(made)


def test_a_page_that_cannot_be_decompressed_is_reported_and_stays(device: DeviceFactory, rogue: object) -> None:
    """The kernel skips it without a word; its budget and its block come back."""
    made = device(8, blocks=8, uses=rogue.catalogue, comp_algorithm="rogue")  # type: ignore[attr-defined]
    data = fill(made, 8)
    store(made, "writeback_limit", "20")
    store(made, "writeback_limit_enable", "1")
    assert made.path is not None
    bad = bytes(made.path.allocator.view(made.path.table.handles_row[3], made.path.table.flags_row[3] & SIZE_MASK))
    real = made.path.zcomp.context(0).inner.decompress_page  # type: ignore[attr-defined]

    def decompress(packed: bytes, page_size: int) -> bytes:
        if bytes(packed) == bad:
            raise ValueError("damaged")
        return bytes(real(packed, page_size))

    rogue.acts["decompress_page"] = decompress  # type: ignore[attr-defined]
    with pytest.raises(PluginFault, match="damaged"):
        store(made, "writeback", "page_indexes=0-7")
    assert stat(made, "bd_stat") == [7, 0, 7]
    assert attributes.show(made, "writeback_limit") == "13\n"
    check_consistent(made)
    rogue.heal()  # type: ignore[attr-defined]
    assert made.pread(0, 8 * PAGE) == data


@pytest.mark.parametrize("method", ["view", "free", "trim"])
def test_an_allocator_that_crashes_in_a_pass(device: DeviceFactory, rogue: object, method: str) -> None:
    """In `free` the batch is committed already: its blocks are its own, and are not given to other pages."""
    made = device(8, blocks=8, uses=rogue.catalogue, allocator="rogue")  # type: ignore[attr-defined]
    data = fill(made, 8)
    store(made, "writeback_limit", "8")
    store(made, "writeback_limit_enable", "1")
    rogue.raises(method, RuntimeError("boom"))  # type: ignore[attr-defined]
    with pytest.raises(PluginFault, match="plugin rogue"):
        store(made, "writeback", "page_indexes=0-7")
    rogue.heal()  # type: ignore[attr-defined]
    check_consistent(made)
    committed = stat(made, "bd_stat")[0]
    assert committed == {"view": 0, "free": 8, "trim": 8}[method]
    assert attributes.show(made, "writeback_limit") == f"{8 - committed}\n"
    store(made, "writeback", "page_indexes=0-7")
    assert made.pread(0, 8 * PAGE) == data
    check_consistent(made)


def test_a_driver_that_is_closed_under_the_pass(device: DeviceFactory, disk: Callable[[], FaultyDriver]) -> None:
    made = device(4, blocks=4)
    data = fill(made, 4)
    disk().close()
    with pytest.raises(DeviceIOError) as caught:
        store(made, "writeback", "page_indexes=0-3")
    assert caught.value.errno == errno.EBADF
    assert made.pread(0, 4 * PAGE) == data
    check_consistent(made)
