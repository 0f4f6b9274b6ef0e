"""`bench writeback`: idle pages written to each backing driver and read again, against plain direct I/O.

The limit is what the place can do: the same bytes as plain O_DIRECT requests of 1 MiB to a file beside, which is as
large and already allocated, as the backing files are after the round that warms up. Every pass ends with a flush, so
that no driver leaves its work to the page cache, and before anything is read the backing file's pages are dropped
from it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from ..control import Control
from ..errors import DeviceIOError, NotSupported
from ..interfaces import Catalogue
from .data import MIB, PAGE, Data, aligned_buffer
from .rounds import Contender, Tell, in_one, labelled, take_turns
from .rows import Row, compare

_libc = ctypes.CDLL(None, use_errno=True)


def drop_from_page_cache(path: Path) -> None:
    """Let the system forget what it keeps of a file. Mappings of this process let go of their pages first: what is
    mapped is never dropped. Raises OSError."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(f" {path}"):
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            if _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


class PlainFile:
    """A file of `size` bytes, written and read by 1 MiB requests past the page cache: the limit of its place."""

    def __init__(self, path: Path, data: Data, size: int) -> None:
        """Raises NotSupported (EOPNOTSUPP) on a file system without O_DIRECT, OSError."""
        self.data = data
        self.size = size
        self.buffer = aligned_buffer(MIB)
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NotSupported(
                f"cannot do direct I/O in {path.parent}: {error.strerror}", hint="--folder names another place"
            ) from error

    def write(self) -> None:
        """All of it, and then a flush."""
        for offset in range(0, self.size, MIB):
            start = offset % self.data.size
            os.pwrite(self.fd, self.data.view[start : start + MIB], offset)
        os.fdatasync(self.fd)

    def read(self) -> None:
        """All of it."""
        for offset in range(0, self.size, MIB):
            os.preadv(self.fd, [self.buffer], offset)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


class BackedDevice:
    """A device of `size` bytes, filled with the data over and over, with its backing store in a file."""

    def __init__(self, catalogue: Catalogue, driver: str, comp: str, path: Path, data: Data, size: int) -> None:
        self.control = Control(catalogue)
        self.target = self.control.target(f"zram{self.control.hot_add(PAGE)}")
        self.device = self.target.device
        self.path = path
        self.data = data
        self.size = size
        self.settings = {
            "comp_algorithm": comp,
            "backing_dev": f"{driver}:{path},size={size}",
            "disksize": str(size),
        }
        self.buffer = aligned_buffer(MIB)

    def fill(self) -> None:
        """Start anew: everything in memory, and idle."""
        self.device.reset()
        for attribute, value in self.settings.items():
            self.target.store(attribute, value)
        for offset in range(0, self.size, MIB):
            self.device.pwrite(offset, self._chunk(offset))
        self.target.store("idle", "all")

    def write_back(self) -> None:
        """One pass over all pages, and then a flush."""
        self.target.store("writeback", "idle")
        self.device.flush()

    def check_written(self) -> None:
        """Raises DeviceIOError (EIO) unless every page is on the backing store."""
        blocks = int(self.target.show("bd_stat").split()[0])
        if blocks != self.size // PAGE:
            raise DeviceIOError(f"{blocks} of {self.size // PAGE} pages were written back to {self.path}")

    def forget_cached(self) -> None:
        """Drop the backing file from the page cache."""
        drop_from_page_cache(self.path)

    def read(self) -> None:
        """All of it, by requests of 1 MiB."""
        for offset in range(0, self.size, MIB):
            self.device.pread_into(offset, self.buffer)

    def verify(self) -> None:
        """Raises DeviceIOError (EIO) when it does not hold what was written."""
        for offset in range(0, self.size, MIB):
            if self.device.pread(offset, MIB) != self._chunk(offset):
                raise DeviceIOError(f"{self.settings['backing_dev']} gave other bytes back at byte {offset}")

    def _chunk(self, offset: int) -> memoryview:
        start = offset % self.data.size
        return self.data.view[start : start + MIB]

    def close(self) -> None:
        """Give everything back but the file."""
        self.device.reset()


def bench(
    catalogue: Catalogue,
    drivers: Sequence[str],
    comp: str,
    data: Data,
    size: int,
    folder: Path,
    rounds: int,
    tell: Tell,
) -> Iterator[Row]:
    """Rows for writing back and reading again, `size` bytes (whole MiBs) with each driver, in files in `folder`."""
    with ExitStack() as stack:
        plain = PlainFile(folder / "plain", data, size)
        stack.callback(plain.close)
        devices = {}
        for name in drivers:
            devices[name] = BackedDevice(catalogue, name, comp, folder / name, data, size)
            stack.callback(devices[name].close)

        def rows(work: str, contenders: list[Contender]) -> list[Row]:
            take_turns(contenders, 1, rounds, labelled(tell, work))
            return compare(work, MIB, contenders, size // PAGE)

        labels = {f"zramcore {comp}, {name}": device for name, device in devices.items()}
        writers = [
            in_one(side, device.write_back, before=device.fill, after=device.check_written)
            for side, device in labels.items()
        ]
        yield from rows("writeback", [*writers, in_one("plain O_DIRECT", plain.write, role="limit")])
        readers = [in_one(side, device.read, before=device.forget_cached) for side, device in labels.items()]
        yield from rows("read back", [*readers, in_one("plain O_DIRECT", plain.read, role="limit")])
        for device in devices.values():
            device.verify()
