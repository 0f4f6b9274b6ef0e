"""The driver `file`, by the conformance class and for what only it does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zramcore.errors import DeviceIOError
from zramcore.interfaces import BackingDriver, BackingSpec
from zramcore.testing.backing import BackingDriverConformance, closing, page
from zramcore_plugins.backing import FileDriver
from zramcore_plugins.backing.driver import IOV_MAX, write_all


class TestFile(BackingDriverConformance):
    def make(self, tmp_path: Path, nr_blocks: int, block_size: int) -> BackingDriver:
        return FileDriver(BackingSpec(str(tmp_path / "disk"), {"size": str(nr_blocks * block_size)}, block_size))


class TestFileAllocated(BackingDriverConformance):
    def make(self, tmp_path: Path, nr_blocks: int, block_size: int) -> BackingDriver:
        options = {"size": str(nr_blocks * block_size), "sparse": "0", "discard": "1"}
        return FileDriver(BackingSpec(str(tmp_path / "disk"), options, block_size))


def make(path: Path, nr_blocks: int) -> FileDriver:
    return FileDriver(BackingSpec(str(path), {"size": str(nr_blocks * 4096)}))


def test_read_fails_when_the_file_was_truncated(tmp_path: Path) -> None:
    with closing(make(tmp_path / "disk", 8)) as driver:
        os.truncate(tmp_path / "disk", 3 * 4096 + 100)
        assert len(driver.read_blocks(0, 3)) == 3 * 4096
        with pytest.raises(DeviceIOError):
            driver.read_blocks(2, 2)


def test_short_writes_and_reads_go_on_where_they_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call moves at most 1000 bytes, across buffer boundaries and not."""
    real_write, real_read = os.pwritev, os.preadv
    calls: list[int] = []

    def pwritev(fd: int, buffers: list[memoryview], offset: int) -> int:
        calls.append(offset)
        return real_write(fd, [b"".join(bytes(buffer) for buffer in buffers)[:1000]], offset)

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        return real_read(fd, [buffers[0][:1000]], offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: b"short")
    with closing(make(tmp_path / "disk", 4)) as driver:
        pages = [page(number, 4096) for number in range(3)]
        driver.write_blocks(1, pages)
        assert calls == list(range(4096, 4 * 4096, 1000))
        assert bytes(driver.read_blocks(1, 3)) == b"".join(pages)


def test_a_write_that_makes_no_progress_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, offset: 0)
    with closing(make(tmp_path / "disk", 1)) as driver, pytest.raises(DeviceIOError):
        driver.write_blocks(0, [bytes(4096)])


def test_more_buffers_than_iov_max(tmp_path: Path) -> None:
    with open(tmp_path / "plain", "w+b") as file:
        write_all(file.fileno(), [bytes([number & 255]) for number in range(2 * IOV_MAX + 5)], 3)
        assert file.read()[3:] == bytes(number & 255 for number in range(2 * IOV_MAX + 5))
