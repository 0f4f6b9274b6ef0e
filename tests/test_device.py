"""A device's life and its byte-addressed I/O: any offset, any length, and what each refuses."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from zramcore import attributes
from zramcore.device import BATCH_PAGES, Device
from zramcore.errors import DeviceBusy, InvalidValue, NoSpace, ZramError
from zramcore.interfaces import Catalogue
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import check_consistent, snapshot, stat

DeviceFactory = Callable[..., Device]
PAGE = 4096
SIZE = 16 * PAGE


@pytest.fixture
def content() -> bytes:
    """Sixteen pages of all kinds."""
    random = Random(9)
    pages = [random.randbytes(PAGE), bytes(PAGE), b"abcdefgh" * 512, random.randbytes(400).ljust(PAGE, b".")]
    return b"".join(pages * 4)


@pytest.fixture
def filled(device: DeviceFactory, content: bytes) -> Device:
    made = device(16, blocks=16)
    assert made.pwrite(0, content) == SIZE
    attributes.store(made, "writeback", "page_indexes=4-7")
    return made


# Reading --------------------------------------------------------------------------------------------------------------

OFFSETS = [0, 1, 4095, 4096, 4097, 5 * PAGE - 1, SIZE - PAGE, SIZE - 1, SIZE, SIZE + 1, 10 * SIZE]
LENGTHS = [0, 1, 4095, 4096, 4097, 3 * PAGE, SIZE, 2 * SIZE]


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("length", LENGTHS)
def test_reading_is_slicing(filled: Device, content: bytes, offset: int, length: int) -> None:
    expected = content[offset : offset + length]
    assert filled.pread(offset, length) == expected
    buffer = bytearray(b"\xaa" * length)
    assert filled.pread_into(offset, buffer) == len(expected)
    assert buffer == expected + b"\xaa" * (length - len(expected))


def test_what_pread_returns_is_bytes(filled: Device) -> None:
    for offset, length in ((0, PAGE), (PAGE, PAGE), (4 * PAGE, PAGE), (5, 10), (0, SIZE), (SIZE, 1)):
        assert type(filled.pread(offset, length)) is bytes


def test_reading_into_any_writable_buffer(filled: Device, content: bytes) -> None:
    import array
    import mmap

    words = array.array("I", [0]) * 2048
    assert filled.pread_into(PAGE, words) == 8192
    assert words.tobytes() == content[PAGE : 3 * PAGE]
    area = mmap.mmap(-1, 3 * PAGE)
    assert filled.pread_into(0, memoryview(area)[100:5000]) == 4900
    assert area[100:5000] == content[:4900]
    with pytest.raises(TypeError):
        filled.pread_into(0, bytes(PAGE))


def test_nothing_is_read_before_disksize(device: DeviceFactory) -> None:
    made = device(0, blocks=0)
    assert made.pread(0, PAGE) == b""
    assert made.pread_into(0, bytearray(10)) == 0


def test_scattered_pages_come_in_order_up_to_one_that_is_not_for_it(filled: Device, content: bytes) -> None:
    pages = [content[at : at + PAGE] for at in range(0, SIZE, PAGE)]
    order = [9, 2, 0, 15, 1, 11]
    assert filled.read_scattered([at * PAGE for at in order]) == [pages[at] for at in order]
    for stranger in (4 * PAGE, SIZE, 5, -PAGE):  # written back, past the end, unaligned, before the beginning
        assert filled.read_scattered([PAGE, stranger, 0]) == [pages[1]]
    assert filled.read_scattered([]) == []


# Writing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 4 * PAGE + 7, SIZE - PAGE, SIZE - 1])
@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 3 * PAGE, SIZE, 2 * SIZE])
def test_writing_is_slice_assignment(filled: Device, content: bytes, offset: int, length: int) -> None:
    data = (Random(length).randbytes(1000) * (length // 1000 + 1))[:length]
    expected = bytearray(content)
    done = min(length, SIZE - offset)
    expected[offset : offset + done] = data[:done]
    assert filled.pwrite(offset, data) == done
    assert filled.pread(0, SIZE) == expected


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data)).cast("I")])
@pytest.mark.parametrize("pages", [1, 3])
def test_writing_any_buffer(filled: Device, kind: Callable[[bytes], Any], pages: int) -> None:
    data = Random(1).randbytes(pages * PAGE)
    assert filled.pwrite(0, kind(data)) == len(data)
    assert filled.pread(0, len(data)) == data


def test_the_buffer_may_be_changed_afterwards(filled: Device) -> None:
    """Huge pages are stored as they are: a copy, not the caller's memory."""
    data = bytearray(Random(1).randbytes(3 * PAGE))
    filled.pwrite(0, data)
    kept = bytes(data)
    data[:] = bytes(len(data))
    assert filled.pread(0, len(kept)) == kept


@pytest.mark.parametrize("pages", [BATCH_PAGES - 1, BATCH_PAGES, BATCH_PAGES + 1, 2 * BATCH_PAGES + 3])
def test_requests_longer_than_a_batch(device: DeviceFactory, pages: int) -> None:
    made = device(3 * BATCH_PAGES, blocks=0)
    data = Random(pages).randbytes(700 * pages)
    data = b"".join(data[700 * n : 700 * n + 700].ljust(PAGE, b"\0") for n in range(pages))
    assert made.pwrite(100, data) == len(data)
    assert made.pread(100, len(data)) == data
    assert made.pread(0, 100) == bytes(100)


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, SIZE + PAGE, 1 << 62])
def test_a_write_past_the_end_is_enospc(filled: Device, content: bytes, offset: int) -> None:
    before = snapshot(filled)
    with pytest.raises(NoSpace) as caught:
        filled.pwrite(offset, b"x")
    assert caught.value.errno == errno.ENOSPC
    assert snapshot(filled) == before
    assert filled.pread(0, SIZE) == content


def test_scattered_pages_are_written_up_to_one_that_is_not_for_it(filled: Device, content: bytes) -> None:
    random = Random(3)
    pages = [random.randbytes(PAGE), bytes(PAGE), b"x" * PAGE, random.randbytes(100).ljust(PAGE, b"-")]
    expected = bytearray(content)
    order = [14, 4, 0, 9]
    for at, page in zip(order, pages, strict=True):
        expected[at * PAGE : (at + 1) * PAGE] = page
    assert filled.write_scattered([at * PAGE for at in order], [memoryview(page) for page in pages]) == 4
    assert filled.pread(0, SIZE) == expected
    for offset, page in ((SIZE, pages[0]), (5, pages[0]), (0, pages[0][1:]), (-PAGE, pages[0])):
        assert filled.write_scattered([2 * PAGE, offset, 3 * PAGE], [pages[2], page, pages[2]]) == 1
        expected[2 * PAGE : 3 * PAGE] = pages[2]
        assert filled.pread(0, SIZE) == expected
    check_consistent(filled)


def test_a_scattered_page_that_cannot_be_stored_keeps_its_old_contents(device: DeviceFactory) -> None:
    made = device(16, blocks=0, comp_algorithm="lz4")
    old = Random(1).randbytes(PAGE)
    assert made.write_scattered([0, PAGE, 2 * PAGE], [old] * 3) == 3
    made.set_mem_limit(3)
    new = Random(2).randbytes(PAGE)
    assert made.write_scattered([5 * PAGE, PAGE, 7 * PAGE, 8 * PAGE], [bytes(PAGE), new, new, new]) == 1
    assert made.pread(PAGE, PAGE) == old
    check_consistent(made)


def test_nothing_is_scattered_before_disksize(device: DeviceFactory) -> None:
    made = device(0, blocks=0)
    assert made.read_scattered([0]) == []
    assert made.write_scattered([0], [bytes(PAGE)]) == 0


def test_a_write_before_disksize_is_enospc(device: DeviceFactory) -> None:
    with pytest.raises(NoSpace, match="disksize"):
        device(0, blocks=0).pwrite(0, bytes(PAGE))


@pytest.mark.parametrize(
    "request_",
    [
        lambda d: d.pread(-1, 10),
        lambda d: d.pread(0, -1),
        lambda d: d.pread_into(-PAGE, bytearray(PAGE)),
        lambda d: d.pwrite(-1, b"x"),
        lambda d: d.pwrite(-PAGE, bytes(PAGE)),
        lambda d: d.discard(-PAGE, PAGE),
        lambda d: d.discard(0, -1),
        lambda d: d.discard(0, SIZE + 1),
        lambda d: d.discard(SIZE, 1),
        lambda d: d.write_zeroes(SIZE - 1, 2),
        lambda d: d.write_zeroes(-1, 1),
    ],
)
@pytest.mark.parametrize("pages", [0, 16])
def test_ranges_that_make_no_sense_are_einval(
    device: DeviceFactory, pages: int, request_: Callable[[Device], object]
) -> None:
    made = device(pages, blocks=0)
    if pages:
        made.pwrite(0, Random(1).randbytes(SIZE))
    before = snapshot(made)
    with pytest.raises(InvalidValue) as caught:
        request_(made)
    assert caught.value.errno == errno.EINVAL
    assert snapshot(made) == before


@pytest.mark.parametrize("offset", [0, 1, PAGE - 1, PAGE])
@pytest.mark.parametrize("length", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 5 * PAGE + 7])
def test_discard_frees_whole_pages_and_write_zeroes_zeroes(
    device: DeviceFactory, content: bytes, offset: int, length: int
) -> None:
    first, end = -(-offset // PAGE), (offset + length) // PAGE
    whole = max(0, end - first)
    made = device(16, blocks=0)
    made.pwrite(0, content)
    made.discard(offset, length)
    expected = bytearray(content)
    expected[first * PAGE : (first + whole) * PAGE] = bytes(whole * PAGE)
    assert made.pread(0, SIZE) == expected
    assert stat(made, "io_stat")[3] == whole
    assert stat(made, "mm_stat")[0] == SIZE - whole * PAGE
    made.pwrite(0, content)
    made.write_zeroes(offset, length)
    expected = bytearray(content)
    expected[offset : offset + length] = bytes(length)
    assert made.pread(0, SIZE) == expected


def test_discarding_empty_pages_counts_them_and_costs_nothing(device: DeviceFactory) -> None:
    """Measured on Linux 7.3.4: notify_free counts pages that hold nothing, too."""
    made = device(16, blocks=0)
    made.discard(0, SIZE)
    assert stat(made, "io_stat")[3] == 16


def test_requests_and_sectors_are_counted(device: DeviceFactory) -> None:
    made = device(16, blocks=0)
    made.pwrite(0, bytes(PAGE))
    made.pwrite(0, bytes(3 * PAGE))
    made.pwrite(15 * PAGE, bytes(2 * PAGE))
    made.pread(0, PAGE)
    made.pread(0, 5 * PAGE)
    made.pread_into(14 * PAGE, bytearray(4 * PAGE))
    columns = stat(made, "stat")
    assert (columns[0], columns[2]) == (3, 8 * (1 + 5 + 2))
    assert (columns[4], columns[6]) == (3, 8 * (1 + 3 + 1))


@pytest.mark.parametrize("page_size", [16384, 65536])
def test_other_page_sizes(device: DeviceFactory, page_size: int) -> None:
    made = device(4, page_size=page_size, blocks=4)
    random = Random(page_size)
    data = random.randbytes(page_size) + random.randbytes(900).ljust(page_size, b"-") + bytes(2 * page_size)
    made.pwrite(0, data)
    made.pwrite(4096, b"part")
    attributes.store(made, "writeback", "page_indexes=0-1")
    made.pwrite(page_size + 4096, b"more")
    expected = bytearray(data)
    expected[4096:4100] = b"part"
    expected[page_size + 4096 : page_size + 4100] = b"more"
    assert made.pread(0, 4 * page_size) == expected
    assert stat(made, "mm_stat")[0] == 4 * page_size


@pytest.mark.parametrize("page_size", [0, 512, 4095, 8192, 1 << 20])
def test_page_sizes_that_do_not_exist(catalogue: Catalogue, page_size: int) -> None:
    with pytest.raises(InvalidValue, match="page_size"):
        Device(catalogue, page_size=page_size)


# Life -----------------------------------------------------------------------------------------------------------------


def test_events(catalogue: Catalogue) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []
    made = Device(catalogue, "zram7", notify=lambda event, **fields: seen.append((event, fields)))
    attributes.store(made, "backing_dev", "faulty:events,blocks=4")
    attributes.store(made, "recomp_algorithm", "algo=zstd")
    attributes.store(made, "disksize", "10000")
    made.pwrite(0, Random(1).randbytes(PAGE) + b"".join(b"line %d of a text\n" % n for n in range(300))[:PAGE])
    attributes.store(made, "recompress", "priority=1")
    attributes.store(made, "writeback", "huge")
    with pytest.raises(ZramError):
        attributes.store(made, "writeback", "page_index=99")
    attributes.store(made, "reset", "1")
    attributes.store(made, "reset", "1")
    assert [event for event, _ in seen] == ["device_initialized", "recompress_done", "writeback_done", "device_reset"]
    assert seen[0][1] == {"device": "zram7", "disksize": 12288}
    assert seen[1][1] | {"freed": 0} == {"device": "zram7", "mode": "all", "pages": 1, "freed": 0, "error": ""}
    assert seen[2][1] == {"device": "zram7", "mode": "huge", "pages": 1, "freed": PAGE, "error": ""}
    FaultyDriver.reset()


def test_a_failed_pass_tells_its_errno(catalogue: Catalogue) -> None:
    seen: list[str] = []
    made = Device(catalogue, notify=lambda event, **fields: seen.append(fields.get("error", "")))
    attributes.store(made, "backing_dev", "faulty:small,blocks=1")
    attributes.store(made, "disksize", str(SIZE))
    made.pwrite(0, Random(1).randbytes(3 * PAGE))
    with pytest.raises(NoSpace):
        attributes.store(made, "writeback", "huge")
    assert seen[-1] == "ENOSPC"
    made.reset()
    FaultyDriver.reset()


def test_holders_keep_a_device_from_being_reset(filled: Device) -> None:
    one, two = filled.open(), filled.open(writable=False)
    for _ in range(2):
        with pytest.raises(DeviceBusy, match="open"):
            filled.reset()
        one.close()
        one.close()
    two.close()
    filled.reset()


def test_disksize_can_be_set_again_after_a_reset(filled: Device) -> None:
    filled.reset()
    filled.initialize(PAGE)
    assert filled.pread(0, SIZE) == bytes(PAGE)
    with pytest.raises(DeviceBusy):
        filled.initialize(PAGE)
    with pytest.raises(InvalidValue):
        filled.initialize(0)


def test_flush_reaches_the_medium_and_its_error_comes_back(filled: Device, disk: Callable[[], FaultyDriver]) -> None:
    filled.flush()
    assert disk().flushes == 1

    def fail() -> None:
        raise OSError(errno.ENOSPC, "late")

    disk().on_flush = fail
    with pytest.raises(ZramError) as caught:
        filled.flush()
    assert caught.value.errno == errno.ENOSPC


def test_flush_without_a_backing_device(device: DeviceFactory) -> None:
    device(1, blocks=0).flush()


def test_a_catalogue_with_nothing_in_it(catalogue: Catalogue) -> None:
    """Everything can be looked at, and disksize says what is missing."""
    for empty in (replace(catalogue, compressors={}), replace(catalogue, allocators={})):
        made = Device(empty)
        snapshot(made)
        with pytest.raises(InvalidValue, match="installed"):
            attributes.store(made, "disksize", "1M")
        assert not made.initialized
