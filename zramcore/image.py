"""Disk images: fill a device from a plain file and write it out again, without ever holding more than a chunk.

Zero pages and holes cost nothing either way: they are neither written to the device nor stored in the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .backing_spec import system_error
from .device import Device
from .errors import InvalidValue, ZramError

CHUNK = 1 << 20
"""Bytes moved at once: what Device handles as one batch of 4 KiB pages."""


class LoadCancelled(ZramError):
    """EINTR: loading was given up because the caller asked for it."""

    code = errno.EINTR


def load_image(device: Device, path: Path, cancelled: Callable[[], bool] = lambda: False) -> int:
    """Write the file into the device, from offset 0; the bytes written. The device holds no data yet.

    Raises InvalidValue (EINVAL) when it does not fit, LoadCancelled (EINTR) soon after `cancelled()` is true,
    and ZramError with the errno of a read or a write that failed.
    """
    written = 0
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > device.disksize:
                raise InvalidValue(
                    f"image {path} has {size} bytes, {device.name} {device.disksize}", hint="raise disksize"
                )
            buffer = bytearray(CHUNK)
            view = memoryview(buffer)
            for start, end in _data_ranges(file.fileno(), size, device.page_size):
                for offset in range(start, end, CHUNK):
                    if cancelled():
                        raise LoadCancelled(f"loading {path} was given up")
                    length = _read_into(file, offset, view[: min(CHUNK, end - offset)])
                    padded = -(-length // device.page_size) * device.page_size
                    view[length:padded] = bytes(padded - length)
                    for first, last in _nonzero_runs(view[:padded], device.page_size):
                        written += _pwrite_all(device, offset + first, view[first:last])
    except ZramError as error:
        if not isinstance(error, LoadCancelled) and cancelled():  # a write that waited for memory gave up, too
            raise LoadCancelled(f"loading {path} was given up") from error
        raise
    except OSError as error:
        raise system_error(error, f"cannot load image {path}: {error.strerror}") from error
    return written


def save_image(device: Device, path: Path) -> int:
    """Write the device into the file, all `disksize` bytes of it; the bytes stored.

    The file appears under its name only when it is complete and on stable storage: until then, and after any error
    or a crash, an earlier image is untouched. Raises ZramError with the errno of what failed.
    """
    target = Path(os.path.realpath(path))
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        try:
            with open(handle, "r+b", buffering=0) as file:
                written = _write_out(device, file.fileno())
                os.fchmod(file.fileno(), _mode(target))
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        _sync_directory(target.parent)
    except ZramError:
        raise
    except OSError as error:
        raise system_error(error, f"cannot save image {path}: {error.strerror}") from error
    return written


def _write_out(device: Device, file: int) -> int:
    os.ftruncate(file, device.disksize)
    written = 0
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    for start, end in _touched_ranges(device):
        for offset in range(start, end, CHUNK):
            length = device.pread_into(offset, view[: min(CHUNK, end - offset)])
            for first, last in _nonzero_runs(view[:length], device.page_size):
                position = first
                while position < last:
                    position += os.pwrite(file, view[position:last], offset + position)
                written += last - first
    return written


def _touched_ranges(device: Device) -> Iterator[tuple[int, int]]:
    """Byte ranges (start, end) of the device that may hold data: a large empty device is not read page by page."""
    path = device.path
    if path is not None:
        for first, end in path.table.touched_ranges():
            yield first * device.page_size, end * device.page_size


def _data_ranges(file: int, size: int, page_size: int) -> Iterator[tuple[int, int]]:
    """Byte ranges (start, end) of a file that are not holes; starts are multiples of the page size."""
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
            end = os.lseek(file, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            start, end = end, size  # this file system knows no holes
        start -= start % page_size
        end = min(-(-end // page_size) * page_size, size)
        yield start, end


def _read_into(file: Any, offset: int, view: memoryview) -> int:
    """Fill `view` from the file; fewer bytes only where the file has become shorter."""
    file.seek(offset)
    length = 0
    while length < len(view):
        count = file.readinto(view[length:])
        if not count:
            break
        length += count
    return length


def _nonzero_runs(view: memoryview, page_size: int) -> Iterator[tuple[int, int]]:
    """Byte ranges (start, end) of the runs of pages that are not all zeros."""
    pages: npt.NDArray[np.uint64] = np.frombuffer(view, np.uint64).reshape(-1, page_size // 8)
    used = np.zeros(len(pages) + 2, np.int8)
    used[1:-1] = pages.any(axis=1)
    edges = np.flatnonzero(np.diff(used))
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield first * page_size, last * page_size


def _pwrite_all(device: Device, offset: int, view: memoryview) -> int:
    done = 0
    while done < len(view):
        done += device.pwrite(offset + done, view[done:])
    return done


def _mode(path: Path) -> int:
    """The permissions of the image that is replaced, or those of a new file."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _sync_directory(path: Path) -> None:
    """Make the rename itself durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
