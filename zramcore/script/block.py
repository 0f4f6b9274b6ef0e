"""What the kernel's block layer does in front of zram: alignment, the end of the device, the page cache.

None of this is zram's; a script needs it because real programs meet a device through it. The rules are those of
block/fops.c, block/ioctl.c and the queue limits that zram sets, as Linux 7.3.4 answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..errors import DeviceIOError, InvalidValue, NoSpace, NotSupported, ZramError

BLOCK = 4096
"""zram's logical block size, in bytes."""

KEEP_SIZE, PUNCH_HOLE, NO_HIDE_STALE, ZERO_RANGE = 1, 2, 4, 16
"""The fallocate(2) mode bits a block device meets."""

QUEUE: Mapping[str, str] = {
    "logical_block_size": "4096",
    "physical_block_size": "4096",
    "hw_sector_size": "4096",
    "minimum_io_size": "4096",
    "optimal_io_size": "4096",
    "discard_granularity": "4096",
    "discard_max_bytes": "2199023255040",
    "discard_max_hw_bytes": "2199023255040",
    "discard_zeroes_data": "0",
    "write_zeroes_max_bytes": "2199023255040",
    "write_same_max_bytes": "0",
    "max_sectors_kb": "124",
    "max_hw_sectors_kb": "124",
    "max_segments": "128",
    "max_segment_size": "65536",
    "dma_alignment": "511",
    "rotational": "0",
    "stable_writes": "1",
    "write_cache": "write through",
    "fua": "0",
    "io_poll": "0",
    "read_ahead_kb": "128",
    "zoned": "none",
}
"""The files of queue/ of a zram device with 4 KiB pages, without their newline."""

DISK: Mapping[str, str] = {
    "alignment_offset": "0",
    "capability": "0",
    "discard_alignment": "0",
    "ext_range": "1",
    "hidden": "0",
    "range": "1",
    "removable": "0",
    "ro": "0",
}
"""The constant files every disk has beside the attributes of zram, without their newline."""

_READAHEAD_PAGES = 4
"""A buffered read of one page at the start of the device reads this many (mm/readahead.c, 128 KiB window)."""


class BlockTarget(Protocol):
    """The part of a Device that requests reach."""

    @property
    def disksize(self) -> int: ...
    @property
    def page_size(self) -> int: ...
    def pread(self, offset: int, length: int, /) -> bytes: ...
    def pwrite(self, offset: int, data: bytes, /) -> int: ...
    def discard(self, offset: int, length: int, /) -> None: ...
    def write_zeroes(self, offset: int, length: int, /) -> None: ...


class FsyncError(DeviceIOError):
    """EIO: the data was taken into the page cache but could not be written to the device."""


class BlockFront:
    """A block device node over a zram device: what open, pread, pwrite, ioctl and fallocate do with it.

    Buffered requests behave as on a node that is closed after each one: nothing stays cached.
    """

    def __init__(self, device: BlockTarget) -> None:
        self.device = device

    @property
    def size(self) -> int:
        """BLKGETSIZE64, in bytes."""
        return self.device.disksize

    def read(self, offset: int, length: int, *, buffered: bool = False) -> bytes:
        """pread(2): short at the end, empty past it. Raises InvalidValue (EINVAL) for unaligned direct I/O."""
        length = min(length, max(self.size - offset, 0))
        if length <= 0:
            return b""
        if not buffered:
            self._check_direct(offset, length)
            return self._request_read(offset, length)
        start, end = self._pages(offset, offset + length)
        if start == 0 and end == self.device.page_size:
            end = min(end * _READAHEAD_PAGES, self.size)
        return self._request_read(start, end - start)[offset - start : offset - start + length]

    def write(self, offset: int, data: bytes, *, buffered: bool = False) -> int:
        """pwrite(2), followed by fsync(2) when buffered: the bytes taken, short when they cross the end.

        Raises NoSpace (ENOSPC) at or past the end, InvalidValue (EINVAL) for unaligned direct I/O, DeviceIOError
        (EIO) when the device fails, and its subclass FsyncError when a buffered write fails on its way out.
        """
        if not data:
            return 0
        if offset >= self.size:
            raise NoSpace("the write starts past the end of the device")
        data = data[: self.size - offset]
        if not buffered:
            self._check_direct(offset, len(data))
            self._request_write(offset, data)
            return len(data)
        start, end = self._pages(offset, offset + len(data))
        page = self.device.page_size
        head = self._request_read(start, page) if offset > start else b""
        tail = b""
        if offset + len(data) < end:
            tail = head if head and end - start == page else self._request_read(end - page, page)
        whole = head[: offset - start] + data + tail[page - (end - offset - len(data)) :]
        try:
            self._request_write(start, whole)
        except DeviceIOError as error:
            raise FsyncError(error.reason, hint=error.hint) from error
        return len(data)

    def discard(self, offset: int, length: int) -> None:
        """BLKDISCARD. Raises InvalidValue (EINVAL) when unaligned, empty, or past the end."""
        self._check_range(offset, length)
        self.device.discard(offset, length)

    def zeroout(self, offset: int, length: int) -> None:
        """BLKZEROOUT. Raises InvalidValue (EINVAL) when unaligned, empty, or past the end."""
        self._check_range(offset, length)
        self.device.write_zeroes(offset, length)

    def secure_discard(self, offset: int, length: int) -> None:
        """BLKSECDISCARD, which zram does not have: raises NotSupported (EOPNOTSUPP)."""
        raise NotSupported(f"secure discard of {length} bytes at {offset}: zram has none", hint="use discard")

    def fallocate(self, mode: int, offset: int, length: int) -> None:
        """fallocate(2) of a block device: punch or zero aligned bytes; a range past the end is cut there.

        Raises NotSupported (EOPNOTSUPP) for other modes, InvalidValue (EINVAL) when unaligned or past the end.
        """
        if offset < 0 or length <= 0:
            raise InvalidValue(f"no range: {length} bytes at {offset}")
        if mode not in (PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE):
            raise NotSupported(f"a block device has no fallocate mode {mode}")
        if offset >= self.size or (offset + length > self.size and not mode & KEEP_SIZE):
            raise InvalidValue("the range lies past the end of the device")
        length = min(length, self.size - offset)
        self._check_range(offset, length)
        self.device.write_zeroes(offset, length)

    # What reaches the device: whole pages, one request

    def _request_read(self, offset: int, length: int) -> bytes:
        try:
            return self.device.pread(offset, length)
        except ZramError as error:
            raise DeviceIOError(error.reason, hint=error.hint) from error

    def _request_write(self, offset: int, data: bytes) -> None:
        try:
            self.device.pwrite(offset, data)
        except ZramError as error:
            raise DeviceIOError(error.reason, hint=error.hint) from error

    def _pages(self, start: int, end: int) -> tuple[int, int]:
        page = self.device.page_size
        return start // page * page, -(-end // page) * page

    def _check_direct(self, offset: int, length: int) -> None:
        if offset % BLOCK or length % BLOCK:
            raise InvalidValue(f"direct I/O of {length} bytes at {offset} is not in whole blocks of {BLOCK}")

    def _check_range(self, offset: int, length: int) -> None:
        if offset % BLOCK or length % BLOCK or length <= 0 or offset + length > self.size:
            raise InvalidValue(f"{length} bytes at {offset} are not whole blocks of {BLOCK} within the device")
