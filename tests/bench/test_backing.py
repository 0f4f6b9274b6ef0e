"""`bench writeback`: what its devices do, and that nothing is read from the page cache."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from zramcore.bench.backing import BackedDevice, PlainFile, bench, drop_from_page_cache
from zramcore.bench.data import MIB, PAGE, Data, aligned_buffer
from zramcore.errors import DeviceIOError
from zramcore.interfaces import Catalogue


def cached(path: Path) -> bool:
    """Whether the first page of a file is in the page cache. Skips where the file system does not tell."""
    with path.open("rb", buffering=0) as file:
        try:
            os.preadv(file.fileno(), [bytearray(PAGE)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            pytest.skip(f"needs a file system with RWF_NOWAIT: {error}")
    return True


@pytest.mark.parametrize("mapped", [False, True])
def test_a_file_is_dropped_from_the_page_cache_even_when_it_is_mapped(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(MIB))
    if not cached(path):
        pytest.skip("needs a file system with a page cache")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), MIB) as memory:
        if mapped:
            memory[5] = 77
            before = memory[:]
        drop_from_page_cache(path)
        if cached(path):
            pytest.skip("this file system keeps its pages")
        if mapped:
            assert memory[:] == before
    assert len(path.read_bytes()) == MIB


@pytest.mark.parametrize("driver", ["file", "direct", "mmap"])
def test_a_device_is_written_back_whole_and_reads_the_same(
    driver: str, built_in: Catalogue, data: Data, tmp_path: Path
) -> None:
    device = BackedDevice(built_in, driver, "lz4", tmp_path / "file", data, 3 * MIB)
    for _ in range(2):
        device.fill()
        with pytest.raises(DeviceIOError, match="0 of 768 pages"):
            device.check_written()
        device.write_back()
        device.check_written()
        device.forget_cached()
        device.read()
        device.verify()
    device.check_written()
    assert (tmp_path / "file").read_bytes() != bytes(3 * MIB)
    device.device.pwrite(2 * MIB, os.urandom(PAGE))
    with pytest.raises(DeviceIOError, match="other bytes back at byte 2097152"):
        device.verify()
    device.close()


def test_plain_io_writes_the_same_bytes(data: Data, tmp_path: Path) -> None:
    plain = PlainFile(tmp_path / "plain", data, 3 * MIB)
    plain.write()
    plain.read()
    assert plain.buffer == data.view[:MIB]
    plain.close()
    assert (tmp_path / "plain").read_bytes() == bytes(data.view) + bytes(data.view[:MIB])


def test_rounds_start_with_everything_in_memory(
    built_in: Catalogue, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    for name in ("fill", "write_back", "check_written", "forget_cached", "read", "verify"):
        really = getattr(BackedDevice, name)
        monkeypatch.setattr(
            BackedDevice, name, lambda self, name=name, really=really: (log.append(name), really(self))[1]
        )
    list(bench(built_in, ["file"], "lz4", data, 2 * MIB, tmp_path, 2, lambda what: None))
    assert log == ["fill", "write_back", "check_written"] * 3 + ["forget_cached", "read"] * 3 + ["verify"]


def test_aligned_buffers_may_be_written(tmp_path: Path) -> None:
    buffer = aligned_buffer(MIB)
    fd = os.open(tmp_path / "direct", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    assert os.pwrite(fd, buffer, 0) == os.preadv(fd, [buffer], 0) == MIB
    os.close(fd)
