"""DeviceFile: an open zramcore device as a raw binary file, for everything in Python that takes one."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .device import Device


class DeviceFile(io.RawIOBase):
    """A seekable binary file of `disksize` bytes over a device. BufferedReader, zipfile and tarfile work on it.

    It counts as a holder: while one is open, reset and hot_remove fail with EBUSY. Open one with `Device.open`.
    """

    def __init__(self, device: Device, writable: bool) -> None:
        super().__init__()
        self._device = device
        self._writable = writable
        self._position = 0
        self.name = device.name
        self.mode = "rb+" if writable else "rb"

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return self._writable

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte offset from the start, the position or the end; past the end is allowed, before 0 is not."""
        self._check_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._device.disksize}.get(whence)
        if base is None:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence}")
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        self._check_open()
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read up to len(buffer) bytes; 0 at the end."""
        self._check_open()
        count = self._device.pread_into(self._position, buffer)
        self._position += count
        return count

    def write(self, data: Any) -> int:
        """Write; short when the end of the device is reached. Raises NoSpace (ENOSPC) at or past the end."""
        self._check_open()
        if not self._writable:
            raise io.UnsupportedOperation("not open for writing")
        count = self._device.pwrite(self._position, data)
        self._position += count
        return count

    def flush(self) -> None:
        """Flush the device, unless it was only read."""
        super().flush()
        if self._writable and not self.closed:
            self._device.flush()

    def close(self) -> None:
        """Close; the device is no longer held by this file."""
        if not self.closed:
            try:
                super().close()
            finally:
                self._device.release()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
