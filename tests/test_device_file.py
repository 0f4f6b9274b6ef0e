"""DeviceFile: what Python's own file code expects of a raw file, and the libraries that sit on top of it."""

from __future__ import annotations

import errno
import io
import tarfile
import zipfile
from collections.abc import Callable
from random import Random

import pytest

from zramcore.device import Device
from zramcore.errors import NoSpace

DeviceFactory = Callable[..., Device]
PAGE = 4096
SIZE = 64 * PAGE


@pytest.fixture
def made(device: DeviceFactory) -> Device:
    return device(64, blocks=0)


def test_it_is_a_raw_binary_file(made: Device) -> None:
    with made.open() as file:
        assert isinstance(file, io.RawIOBase)
        assert (file.readable(), file.writable(), file.seekable()) == (True, True, True)
        assert (file.name, file.mode) == ("zram0", "rb+")
        assert not file.isatty()
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()
        with pytest.raises(io.UnsupportedOperation):
            file.truncate(5)
    with made.open(writable=False) as file:
        assert (file.writable(), file.mode) == (False, "rb")
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")


def test_positions(made: Device) -> None:
    with made.open() as file:
        assert file.seek(0, io.SEEK_END) == SIZE
        assert file.read(1) == b""
        assert file.seek(-10, io.SEEK_END) == SIZE - 10
        assert file.write(b"0123456789ABCDEF") == 10
        assert file.tell() == SIZE
        with pytest.raises(NoSpace) as caught:
            file.write(b"x")
        assert caught.value.errno == errno.ENOSPC
        assert file.seek(-4, io.SEEK_CUR) == SIZE - 4
        assert file.read() == b"6789"
        assert file.seek(2 * SIZE) == 2 * SIZE
        assert file.read(5) == b""
        for offset, whence in ((-1, io.SEEK_SET), (-SIZE - 1, io.SEEK_END), (0, 9)):
            with pytest.raises(ValueError, match=r"whence|negative"):
                file.seek(offset, whence)
        assert file.tell() == 2 * SIZE


def test_reading_and_writing_like_a_plain_file(made: Device) -> None:
    random = Random(4)
    plain = io.BytesIO(bytes(SIZE))
    with made.open() as file:
        for _ in range(300):
            at, size = random.randrange(SIZE), random.randrange(3 * PAGE)
            if random.random() < 0.5:
                data = random.randbytes(min(size, SIZE - at))
                assert plain.seek(at) == file.seek(at)
                assert plain.write(data) == file.write(data)
            else:
                assert plain.seek(at) == file.seek(at)
                assert plain.read(size) == file.read(size)
            assert plain.tell() == file.tell()
        file.seek(0)
        assert file.readall() == plain.getvalue()


def test_buffered_files(made: Device) -> None:
    with io.BufferedRandom(made.open(), 10_000) as file:
        for line in range(2000):
            file.write(b"line %d\n" % line)
        file.seek(0)
        assert [next(file) for _ in range(2000)] == [b"line %d\n" % line for line in range(2000)]
    assert made.holders == 0


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zipfile(made: Device, compression: int) -> None:
    members = {f"folder/{n}": Random(n).randbytes(n * 900) for n in range(12)}
    with io.BufferedRandom(made.open()) as file:
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        end = file.tell()
        file.seek(0)
        content = io.BytesIO(file.read(end))
        with zipfile.ZipFile(content) as archive:
            assert archive.testzip() is None
            assert {name: archive.read(name) for name in archive.namelist()} == members


def test_tarfile(made: Device) -> None:
    with io.BufferedRandom(made.open()) as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for n in range(8):
                entry = tarfile.TarInfo(f"member{n}")
                entry.size = n * 1000
                archive.addfile(entry, io.BytesIO(Random(n).randbytes(n * 1000)))
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r") as archive:
            for n in range(8):
                member = archive.extractfile(f"member{n}")
                assert member is not None
                assert member.read() == Random(n).randbytes(n * 1000)


def test_a_closed_file_holds_nothing_and_does_nothing(made: Device) -> None:
    file = made.open()
    assert made.holders == 1
    file.close()
    file.close()
    assert made.holders == 0
    for call in (file.tell, file.read, lambda: file.write(b"x"), lambda: file.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_a_forgotten_file_is_closed(made: Device) -> None:
    made.open()
    assert made.holders == 0


def test_a_file_of_a_device_without_disksize_is_empty(device: DeviceFactory) -> None:
    made = device(0, blocks=0)
    with made.open() as file:
        assert file.seek(0, io.SEEK_END) == 0
        assert file.read() == b""
        with pytest.raises(NoSpace):
            file.write(b"x")


def test_closing_flushes_the_medium_unless_only_read(device: DeviceFactory, disk: Callable[[], object]) -> None:
    made = device(4, blocks=4)
    made.open(writable=False).close()
    assert disk().flushes == 0  # type: ignore[attr-defined]
    made.open().close()
    assert disk().flushes > 0  # type: ignore[attr-defined]


def test_a_flush_that_fails_still_lets_go(device: DeviceFactory, disk: Callable[[], object]) -> None:
    made = device(4, blocks=4)

    def fail() -> None:
        raise OSError(errno.EIO, "no")

    disk().on_flush = fail  # type: ignore[attr-defined]
    file = made.open()
    with pytest.raises(OSError, match="flushing"):
        file.close()
    assert file.closed
    assert made.holders == 0
