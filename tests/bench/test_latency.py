"""Threads that use a device while something else is done: every request is timed, errors are not lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from zramcore.bench.backing import BackedDevice
from zramcore.bench.data import MIB, PAGE, Data
from zramcore.bench.latency import HOT, THREADS, Users, bench
from zramcore.errors import DeviceIOError
from zramcore.interfaces import Catalogue


@pytest.fixture
def device(built_in: Catalogue, data: Data, tmp_path: Path) -> BackedDevice:
    made = BackedDevice(built_in, "file", "lz4", tmp_path / "file", data, 4 * MIB)
    made.fill()
    return made


def test_the_hot_part_alone_is_used_by_all_threads(device: BackedDevice) -> None:
    users: set[int] = set()
    pages: set[int] = set()
    enough = threading.Event()
    read, write = device.device.pread, device.device.pwrite

    def pread(offset: int, length: int) -> bytes:
        users.add(threading.get_ident())
        pages.add(offset // PAGE)
        if len(users) == THREADS:
            enough.set()
        return read(offset, length)

    device.device.pread = pread  # type: ignore[method-assign]
    times = Users(device).during(lambda: enough.wait(30))
    assert enough.is_set()
    assert threading.get_ident() not in users
    assert max(pages) < 4 * MIB // PAGE // HOT
    assert len(times) >= 2 * THREADS
    assert all(0 <= seconds < 30 for seconds in times)
    assert device.device.pwrite == write
    assert not [thread for thread in threading.enumerate() if thread.name == "bench"]
    device.close()


@pytest.mark.parametrize("fails", ["pread", "work"])
def test_an_error_ends_all_threads_and_is_raised(device: BackedDevice, fails: str) -> None:
    tried = threading.Event()

    def broken(offset: int = 0, length: int = 0) -> bytes:
        tried.set()
        raise DeviceIOError("broken")

    if fails == "pread":
        device.device.pread = broken  # type: ignore[method-assign]
    with pytest.raises(DeviceIOError, match="broken"):
        Users(device).during(broken if fails == "work" else lambda: tried.wait(30))
    assert not [thread for thread in threading.enumerate() if thread.name == "bench"]
    device.close()


def test_the_rest_is_written_back_in_every_round(
    built_in: Catalogue, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    close = BackedDevice.close

    def note(self: BackedDevice) -> None:
        written.append(int(self.target.show("bd_stat").split()[0]))
        close(self)

    monkeypatch.setattr(BackedDevice, "close", note)
    rows = list(bench(built_in, "file", "lz4", data, 4 * MIB, tmp_path, 1, lambda what: None))
    assert written == [3 * MIB // PAGE]
    assert len(rows) == 4
