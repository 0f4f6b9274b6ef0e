"""The driver `direct`: O_DIRECT for real, on a file and on a loop device."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from zramcore.backing import BackingStore
from zramcore.errors import DeviceBusy, InvalidValue
from zramcore.interfaces import BackingDriver, BackingSpec
from zramcore.testing.backing import BackingDriverConformance, closing, page
from zramcore_plugins.backing import DirectDriver, FileDriver, MmapDriver
from zramcore_plugins.backing.direct import BUFFER


class TestDirect(BackingDriverConformance):
    @pytest.fixture
    def tmp_path(self, folder: Path) -> Path:
        return folder

    def make(self, tmp_path: Path, nr_blocks: int, block_size: int) -> BackingDriver:
        return DirectDriver(BackingSpec(str(tmp_path / "disk"), {"size": str(nr_blocks * block_size)}, block_size))


def make(path: Path, nr_blocks: int) -> DirectDriver:
    return DirectDriver(BackingSpec(str(path), {"size": str(nr_blocks * 4096)}))


def test_uses_direct_io_and_one_call_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    calls: list[tuple[int, int]] = []

    def pwritev(fd: int, buffers: list[memoryview], offset: int) -> int:
        calls.append((offset, sum(len(buffer) for buffer in buffers)))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    with closing(make(folder / "disk", 600)) as driver:
        assert fcntl.fcntl(driver.medium.fd, fcntl.F_GETFL) & os.O_DIRECT
        scattered = [memoryview(page(number, 4096)) for number in range(64)]
        driver.write_blocks(1, scattered)
        assert calls == [(4096, 64 * 4096)]
        calls.clear()
        driver.write_blocks(0, [bytes(4096)] * 600)
        assert calls == [(0, BUFFER), (BUFFER, BUFFER), (2 * BUFFER, 600 * 4096 - 2 * BUFFER)]


def test_threads_do_not_share_a_buffer(folder: Path) -> None:
    """One thread is stopped between filling its buffer and the write; the other writes meanwhile."""
    with closing(make(folder / "disk", 4)) as driver:
        inside, go_on = threading.Event(), threading.Event()

        real = os.pwritev

        def pwritev(fd: int, buffers: list[memoryview], offset: int) -> int:
            if offset == 0:
                inside.set()
                assert go_on.wait(30)
            return real(fd, buffers, offset)

        patch = pytest.MonkeyPatch()
        patch.setattr(os, "pwritev", pwritev)
        try:
            first = threading.Thread(target=driver.write_blocks, args=(0, [page(1, 4096)]))
            first.start()
            assert inside.wait(30)
            driver.write_blocks(2, [page(2, 4096)])
            go_on.set()
            first.join(30)
        finally:
            go_on.set()
            patch.undo()
        assert bytes(driver.read_blocks(0, 1)) == page(1, 4096)
        assert bytes(driver.read_blocks(2, 1)) == page(2, 4096)


def test_a_file_system_without_direct_io_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F_SETFL fails then; the file that was created for it is gone again."""
    real = fcntl.fcntl

    def no_direct(fd: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, command, flags)

    monkeypatch.setattr(fcntl, "fcntl", no_direct)
    with pytest.raises(InvalidValue, match="O_DIRECT") as caught:
        make(tmp_path / "disk", 4)
    assert "file:" in caught.value.hint
    assert not (tmp_path / "disk").exists()


# A real block device ----------------------------------------------------------------------------------------------


@pytest.fixture
def loop(folder: Path) -> Iterator[str]:
    """A loop device of 16 blocks over a file."""
    if os.geteuid() != 0:
        pytest.skip("a loop device takes root")
    if shutil.which("losetup") is None:
        pytest.skip("losetup is not installed")
    image = folder / "image"
    image.write_bytes(bytes(16 * 4096))
    made = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


DRIVERS = {"direct": DirectDriver, "file": FileDriver, "mmap": MmapDriver}


@pytest.mark.parametrize("name", DRIVERS)
def test_loop_device(loop: str, folder: Path, name: str) -> None:
    with closing(DRIVERS[name](BackingSpec(loop))) as driver:
        assert driver.nr_blocks == 16
        pages = [page(number, 4096) for number in range(16)]
        driver.write_blocks(0, pages)
        driver.flush()
        assert bytes(driver.read_blocks(0, 16)) == b"".join(pages)
        for other in DRIVERS.values():
            with pytest.raises(DeviceBusy):
                other(BackingSpec(loop))
        driver.discard_blocks(4, 2)
        assert len(driver.read_blocks(4, 2)) == 2 * 4096
        assert bytes(driver.read_blocks(6, 1)) == pages[6]
    assert (folder / "image").read_bytes()[: 4 * 4096] == b"".join(pages[:4])


def test_loop_device_as_the_kernel_names_it(loop: str) -> None:
    store = BackingStore.open(loop + "\n", DRIVERS, 4096)
    try:
        assert isinstance(store.driver, DirectDriver)
        assert store.spec_text == loop
        assert store.write([3, 9], [page(3, 4096), page(9, 4096)]) == [None, None]
        assert [bytes(data) for data in store.read([9, 3])] == [page(9, 4096), page(3, 4096)]
    finally:
        store.close()


def test_loop_device_held_exclusively(loop: str) -> None:
    fd = os.open(loop, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(DeviceBusy) as caught:
            DirectDriver(BackingSpec(loop))
        assert "held" in caught.value.hint
    finally:
        os.close(fd)


def test_loop_device_sizes(loop: str) -> None:
    with closing(DirectDriver(BackingSpec(loop, {"size": "16K"}))) as driver:
        assert driver.nr_blocks == 4
    with pytest.raises(InvalidValue, match="65536 bytes"):
        DirectDriver(BackingSpec(loop, {"size": "1M"}))
    with pytest.raises(InvalidValue, match="less than one block"):
        DirectDriver(BackingSpec(loop, {}, 1 << 17))
    with closing(DirectDriver(BackingSpec(loop, {}, 16384))) as driver:
        assert driver.nr_blocks == 4


def test_block_size_that_direct_io_does_not_take(loop: str) -> None:
    with pytest.raises(InvalidValue, match="100 bytes") as caught:
        DirectDriver(BackingSpec(loop, {}, 100))
    assert "file:" in caught.value.hint
