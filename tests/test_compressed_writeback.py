"""compressed_writeback: what the blocks of a real file hold, and what reads make of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import DeviceIOError, ZramError
from zramcore.slot_table import HUGE, PRIORITY_SHIFT, SIZE_MASK, WB
from zramcore.testing.faults import FaultyDriver, Gate
from zramcore.testing.inspection import check_consistent, peek, stat
from zramcore.testing.walk import make_page

NAMES = ("lz4", "lz4hc", "zstd", "deflate", "store")
PAGES = 24
Make = Callable[..., Device]


def contents(page_size: int, count: int = PAGES) -> list[bytes]:
    """Pages that compress well, in part and not at all, and one that is same-filled."""
    kinds = ("text", "half", "random", "text", "half", "word")
    return [make_page(kinds[index % len(kinds)], index, page_size) for index in range(count)]


def blocks_of(file: Path, page_size: int) -> list[bytes]:
    """The blocks of a backing file."""
    data = file.read_bytes()
    return [data[offset : offset + page_size] for offset in range(0, len(data), page_size)]


def objects_of(device: Device) -> dict[int, tuple[int, bytes]]:
    """Flags and object of every slot that has one in the pool."""
    path = device.path
    assert path is not None
    rows = {index: path.table.flags_row[index] for index in range(device.nr_pages)}
    return {
        index: (flags, bytes(path.allocator.view(path.table.handles_row[index], flags & SIZE_MASK)))
        for index, flags in rows.items()
        if flags & SIZE_MASK and not flags & WB
    }


def write_all_back(device: Device) -> None:
    attributes.store(device, "idle", "all")
    attributes.store(device, "writeback", "idle")


def read_as(device: Device, pages: list[bytes]) -> None:
    """Every way of reading gives `pages`."""
    size = device.page_size
    assert [device.pread(index * size, size) for index in range(len(pages))] == pages
    assert device.pread(0, len(pages) * size) == b"".join(pages)
    target = bytearray(len(pages) * size)
    assert device.pread_into(0, target) == len(target)
    assert target == b"".join(pages)
    assert device.pread(size // 2, size) == (pages[0] + pages[1])[size // 2 : size // 2 + size]


@pytest.fixture
def on_file(device: Make, tmp_path: Path) -> Callable[..., tuple[Device, Path]]:
    """A device whose backing file was full of 0xff before."""

    def make(page_size: int = 4096, **settings: str) -> tuple[Device, Path]:
        file = tmp_path / "backing"
        file.write_bytes(b"\xff" * (2 * PAGES * page_size))
        given = {"compressed_writeback": "1", **settings, "backing_dev": str(file)}
        return device(PAGES, blocks=0, page_size=page_size, **given), file

    return make


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
@pytest.mark.parametrize("algorithm", NAMES)
def test_a_block_is_the_object_and_zeroes(
    on_file: Callable[..., tuple[Device, Path]], algorithm: str, page_size: int, compacted: bool
) -> None:
    new, file = on_file(page_size, comp_algorithm=algorithm)
    pages = contents(page_size)
    new.pwrite(0, b"".join(pages))
    if compacted:
        # Holes first, so that there is something to move; the pages come back later.
        for index in range(0, PAGES, 2):
            new.discard(index * page_size, page_size)
        attributes.store(new, "compact", "1")
        new.pwrite(0, pages[0])
        new.pwrite(2 * page_size, b"".join(pages[2:]))
        attributes.store(new, "compact", "1")
    objects = objects_of(new)
    huge = sum(flags & HUGE != 0 for flags, _ in objects.values())
    assert stat(new, "mm_stat")[7] == huge > 0
    write_all_back(new)
    assert new.path is not None
    table, blocks = new.path.table, blocks_of(file, page_size)
    for index, (flags, data) in objects.items():
        row = table.flags_row[index]
        assert row & WB
        assert (row & (SIZE_MASK | HUGE)) == (flags & (SIZE_MASK | HUGE))
        assert blocks[table.handles_row[index]] == data.ljust(page_size, b"\0"), index
    mm = stat(new, "mm_stat")
    assert (mm[1], mm[2], mm[7], mm[8]) == (0, 0, 0, new.stats.huge_pages_since)
    assert stat(new, "bd_stat") == [len(objects) * page_size >> 12, 0, len(objects) * page_size >> 12]
    read_as(new, pages)
    assert stat(new, "bd_stat")[0] == len(objects) * page_size >> 12, "reading leaves them there"
    check_consistent(new)


@pytest.mark.parametrize("algorithm", NAMES)
def test_without_it_a_block_is_the_page(on_file: Callable[..., tuple[Device, Path]], algorithm: str) -> None:
    new, file = on_file(comp_algorithm=algorithm, compressed_writeback="0")
    pages = contents(4096)
    new.pwrite(0, b"".join(pages))
    objects = objects_of(new)
    write_all_back(new)
    assert new.path is not None
    for index in objects:
        assert blocks_of(file, 4096)[new.path.table.handles_row[index]] == pages[index]
    read_as(new, pages)


def test_linux_7_3_4_transcript_03b(on_file: Callable[..., tuple[Device, Path]]) -> None:
    """Four compressible pages and two huge ones: the figures of the compressed_writeback section, and its flags."""
    new, _ = on_file()
    new.pwrite(0, b"".join(make_page("text", index, 4096) for index in range(4)))
    new.pwrite(4 * 4096, b"".join(make_page("random", index, 4096) for index in range(2)))
    write_all_back(new)
    assert stat(new, "bd_stat") == [6, 0, 6]
    assert (stat(new, "mm_stat")[0], stat(new, "mm_stat")[7:]) == (24576, [0, 2])
    letters = [line.split()[-1] for line in attributes.show(new, "block_state").splitlines()]
    assert letters == [".w...."] * 4 + [".wh..."] * 2
    assert new.pread(0, 4 * 4096) + new.pread(4 * 4096, 2 * 4096)
    assert stat(new, "bd_stat") == [6, 6, 6]
    assert [line.split()[-1] for line in attributes.show(new, "block_state").splitlines()] == letters


# Accounting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["overwrite", "same-filled", "discard", "partial", "reset"])
def test_huge_pages_does_not_fall_twice(on_file: Callable[..., tuple[Device, Path]], end: str) -> None:
    """Freeing a written-back huge slot must not lower huge_pages again (a u64 underflow in Linux 7.0-rc)."""
    new, _ = on_file()
    new.pwrite(0, b"".join(make_page("random", index, 4096) for index in range(3)))
    attributes.store(new, "writeback", "huge")
    assert stat(new, "mm_stat")[7] == 0
    if end == "overwrite":
        new.pwrite(0, make_page("text", 1, 4096) * 3)
    elif end == "same-filled":
        new.pwrite(0, bytes(3 * 4096))
    elif end == "discard":
        new.discard(0, 3 * 4096)
    elif end == "partial":
        for index in range(3):
            new.pwrite(index * 4096 + 100, b"x")
    else:
        attributes.store(new, "reset", "1")
        assert stat(new, "mm_stat")[7:] == [0, 0]
        return
    assert stat(new, "mm_stat")[7] == (3 if end == "partial" else 0)
    assert stat(new, "bd_stat")[0] == 0
    check_consistent(new)


@pytest.mark.parametrize("algorithm", ["lz4", "deflate"])
def test_a_recompressed_object_keeps_its_priority_and_is_read_with_it(
    on_file: Callable[..., tuple[Device, Path]], algorithm: str
) -> None:
    new, file = on_file(comp_algorithm=algorithm, recomp_algorithm="algo=zstd priority=2")
    pages = contents(4096)
    new.pwrite(0, b"".join(pages))
    attributes.store(new, "recompress", "priority=2")
    objects = objects_of(new)
    recompressed = [index for index, (flags, _) in objects.items() if flags >> PRIORITY_SHIFT & 3 == 2]
    assert 0 < len(recompressed) < len(objects), "some are, some are not"
    write_all_back(new)
    assert new.path is not None
    for index, (flags, data) in objects.items():
        row = new.path.table.flags_row[index]
        assert row >> PRIORITY_SHIFT & 3 == flags >> PRIORITY_SHIFT & 3
        assert blocks_of(file, 4096)[new.path.table.handles_row[index]] == data.ljust(4096, b"\0")
    letters = {int(line.split()[0]): line.split()[-1] for line in attributes.show(new, "block_state").splitlines()}
    assert {index for index, state in letters.items() if state[4] == "r"} == set(recompressed)
    read_as(new, pages)
    assert [peek(new, index) for index in range(PAGES)] == pages


def test_a_partial_write_starts_from_the_decompressed_page(on_file: Callable[..., tuple[Device, Path]]) -> None:
    new, _ = on_file(comp_algorithm="zstd")
    pages = contents(4096)
    new.pwrite(0, b"".join(pages))
    write_all_back(new)
    for index in range(PAGES):
        new.pwrite(index * 4096 + 1000, b"changed")
        pages[index] = pages[index][:1000] + b"changed" + pages[index][1007:]
    read_as(new, pages)
    assert stat(new, "bd_stat")[0] == 0
    check_consistent(new)


# Damage and races -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [name for name in NAMES if name != "store"])
def test_a_damaged_block_fails_the_read_and_nothing_else(
    device: Make, disk: Callable[[], FaultyDriver], algorithm: str
) -> None:
    new = device(PAGES, comp_algorithm=algorithm, compressed_writeback="1")
    pages = [make_page("text", index, 4096) for index in range(4)]
    new.pwrite(0, b"".join(pages))
    write_all_back(new)
    assert new.path is not None
    block = new.path.table.handles_row[1]
    whole = disk().peek(block)
    disk().poke(block, b"\xff" * 4096)
    with pytest.raises(DeviceIOError):
        new.pread(4096, 4096)
    with pytest.raises(DeviceIOError):
        new.pread(0, 4 * 4096)
    with pytest.raises(ZramError):
        new.pwrite(4096 + 10, b"part of it")
    assert stat(new, "io_stat")[:2] == [2, 1]
    assert [new.pread(index * 4096, 4096) for index in (0, 2, 3)] == [pages[0], pages[2], pages[3]]
    disk().poke(block, whole)
    read_as(new, pages)
    check_consistent(new)


@pytest.mark.parametrize("change", ["overwrite", "discard", "overwrite and write back"])
def test_a_slot_that_changed_during_the_read_is_looked_at_again(
    device: Make, disk: Callable[[], FaultyDriver], change: str
) -> None:
    """The block was read, the slot is another's or empty by then: the reader gets what the slot holds now."""
    new = device(8, blocks=2, compressed_writeback="1")
    old, young = make_page("text", 1, 4096), make_page("half", 2, 4096)
    new.pwrite(0, old)
    attributes.store(new, "writeback", "page_index=0")
    found: list[bytes] = []
    with Gate() as gate:
        disk().after_read = gate
        reader = threading.Thread(target=lambda: found.append(new.pread(0, 4096)))
        reader.start()
        gate.wait()
        if change == "discard":
            new.discard(0, 4096)
        else:
            new.pwrite(0, young)
        if change == "overwrite and write back":
            attributes.store(new, "writeback", "page_index=0")
            assert new.path is not None
            assert new.path.table.handles_row[0] == 1, "block 0 is pinned by the reader"
        gate.open()
        reader.join(20)
    assert found == [bytes(4096) if change == "discard" else young]
    check_consistent(new)


@pytest.mark.parametrize("change", ["read", "overwrite", "discard", "overwrite with a huge page"])
def test_a_slot_that_changed_during_the_write_is_not_committed(
    device: Make, disk: Callable[[], FaultyDriver], change: str
) -> None:
    new = device(8, blocks=4, compressed_writeback="1")
    old = make_page("text", 1, 4096)
    expected = {
        "read": old,
        "overwrite": make_page("half", 2, 4096),
        "discard": bytes(4096),
        "overwrite with a huge page": make_page("random", 3, 4096),
    }[change]
    new.pwrite(0, old)
    with Gate() as gate:
        disk().on_write = gate
        writer = threading.Thread(target=attributes.store, args=(new, "writeback", "page_index=0"))
        writer.start()
        gate.wait()
        if change == "read":
            assert new.pread(0, 4096) == old
        elif change == "discard":
            new.discard(0, 4096)
        else:
            new.pwrite(0, expected)
        gate.open()
        writer.join(20)
    assert stat(new, "bd_stat") == [0, 0, 1]
    assert new.pread(0, 4096) == expected
    check_consistent(new)
