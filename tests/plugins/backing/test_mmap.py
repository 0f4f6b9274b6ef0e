"""The driver `mmap`, by the conformance class and for the danger it keeps away: SIGBUS."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from zramcore.errors import InvalidValue, NoMemory, NoSpace
from zramcore.interfaces import BackingDriver, BackingSpec
from zramcore.testing.backing import BackingDriverConformance, closing, page
from zramcore_plugins.backing import MmapDriver


class TestMmap(BackingDriverConformance):
    def make(self, tmp_path: Path, nr_blocks: int, block_size: int) -> BackingDriver:
        return MmapDriver(BackingSpec(str(tmp_path / "disk"), {"size": str(nr_blocks * block_size)}, block_size))


class TestMmapSparse(BackingDriverConformance):
    def make(self, tmp_path: Path, nr_blocks: int, block_size: int) -> BackingDriver:
        options = {"size": str(nr_blocks * block_size), "sparse": "1", "discard": "1"}
        return MmapDriver(BackingSpec(str(tmp_path / "disk"), options, block_size))


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_space_is_allocated_at_once_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with closing(MmapDriver(BackingSpec(str(path), {"size": "1M"}))) as driver:
        assert allocated(path) >= 1 << 20
        driver.write_blocks(0, [page(0, 4096)])
        driver.discard_blocks(0, driver.nr_blocks)
        assert allocated(path) >= 1 << 20


def test_holes_of_an_existing_file_are_filled(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.write(page(1, 4096))
        file.truncate(1 << 20)
    assert allocated(path) < 1 << 20
    with closing(MmapDriver(BackingSpec(str(path)))) as driver:
        assert allocated(path) >= 1 << 20
        assert bytes(driver.read_blocks(0, 1)) == page(1, 4096)


def test_sparse_and_discard(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with pytest.raises(InvalidValue, match="discard=1") as caught:
        MmapDriver(BackingSpec(str(path), {"size": "1M", "discard": "1"}))
    assert "sparse=1" in caught.value.hint
    assert not path.exists()
    with closing(MmapDriver(BackingSpec(str(path), {"size": "1M", "discard": "1", "sparse": "1"}))) as driver:
        assert driver.discard_on_release
        assert allocated(path) < 1 << 20
        driver.write_blocks(0, [page(number, 4096) for number in range(256)])
        driver.flush()
        full = allocated(path)
        driver.discard_blocks(0, 256)
        assert allocated(path) < full
        assert bytes(driver.read_blocks(0, 256)) == bytes(1 << 20)


def test_no_space_is_said_when_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        os.ftruncate(fd, length // 2)  # ext4 leaves a longer file behind when it runs out half way
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoSpace):
        MmapDriver(BackingSpec(str(tmp_path / "new"), {"size": "1M"}))
    assert not (tmp_path / "new").exists()
    old = tmp_path / "old"
    old.write_bytes(page(1, 8192))
    with pytest.raises(NoSpace):
        MmapDriver(BackingSpec(str(old), {"size": "1M"}))
    assert old.read_bytes() == page(1, 8192)


def test_more_than_can_be_mapped(tmp_path: Path) -> None:
    """Only the file's length is used up: 8 TiB, sparse, more than a process may map; a smaller limit may come first."""
    path = tmp_path / "disk"
    with pytest.raises((NoMemory, OSError)) as caught:
        MmapDriver(BackingSpec(str(path), {"size": str(1 << 47), "sparse": "1"}))
    assert caught.value.errno in (errno.ENOMEM, errno.EFBIG)
    assert not path.exists()
