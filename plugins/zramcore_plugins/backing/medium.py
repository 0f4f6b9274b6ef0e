"""Medium: the open, locked and sized file or block device under each of the built-in drivers.

One holder at a time. A regular file is locked with flock(LOCK_EX | LOCK_NB): the lock belongs to the open file, so
two devices of one process exclude each other as two processes do, links to the file are seen through, and nothing
is left to clean up after a crash. A block device is opened O_EXCL, which the kernel's own zram, mounts, swap and md
respect. Python opens files close-on-exec; a child forked without exec shares the lock until it ends.

What an existing file holds is kept until blocks are written to it: `size` makes a file longer, never shorter (of a
longer file the first `size` bytes are used), and an open that fails removes what it created.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct

from zramcore.backing_spec import not_a_medium, system_error
from zramcore.errors import DeviceBusy, InvalidValue, ZramError

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
_BLKDISCARD = 0x1277  # linux/fs.h

_libc = ctypes.CDLL(None, use_errno=True)
# Python has no fallocate(2). glibc's plain name takes a 32-bit offset on 32-bit machines; musl has only that name.
_fallocate = getattr(_libc, "fallocate64", None) or _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)
_fallocate.restype = ctypes.c_int


class Medium:
    """`fd`, opened for reading and writing; `size` in bytes; `is_block`; `path`."""

    fd: int
    size: int

    def __init__(self, path: str, size: int, sparse: bool) -> None:
        """Open `path`, lock it and give it `size` bytes (0: as it is); without `sparse`, allocate what will be used.

        A file is created only when `size` is given. Raises ZramError: ENOENT, EISDIR, ENOTBLK, EACCES, EROFS, EBUSY
        (held by another device), ENOSPC, EFBIG, EINVAL (a block device smaller than `size`); nothing is left behind.
        """
        self.path = path
        self._grown_from: int | None = None
        mode = self._mode(path, size)
        self._created = not mode
        self.is_block = stat.S_ISBLK(mode)
        flags = os.O_RDWR
        if self._created:
            flags |= os.O_CREAT | os.O_EXCL
        elif self.is_block:
            flags |= os.O_EXCL
        try:
            # Private: it will hold what was in memory.
            self.fd = os.open(path, flags, 0o600)
        except OSError as error:
            hint = "it is mounted, swapped to or held by another device" if error.errno == errno.EBUSY else ""
            raise system_error(error, f"cannot open {path}", hint) from error
        try:
            self._lock()
        except BaseException:
            # Whoever holds the lock of a file that was just created may be using it: it stays.
            os.close(self.fd)
            raise
        try:
            self._resize(size, sparse)
        except BaseException as error:
            self.undo()
            if not isinstance(error, OSError) or isinstance(error, ZramError):
                raise
            raise system_error(error, f"cannot give {path} {size} bytes") from error

    @staticmethod
    def _mode(path: str, size: int) -> int:
        """The file's st_mode; 0 when it is to be created."""
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            if error.errno == errno.ENOENT and size:
                return 0
            hint = "add size=64M to create it" if error.errno == errno.ENOENT else ""
            raise system_error(error, f"cannot open {path}", hint) from error
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise not_a_medium(path, mode)
        return mode

    def _lock(self) -> None:
        status = os.fstat(self.fd)
        if stat.S_ISBLK(status.st_mode) != self.is_block:
            raise DeviceBusy(f"{self.path} was replaced while it was opened")
        if self.is_block:
            return
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeviceBusy(
                f"{self.path} is in use", hint="another device holds it, in this or another process"
            ) from error
        except OSError as error:
            raise system_error(error, f"cannot lock {self.path}", "its file system must support flock(2)") from error
        if os.fstat(self.fd).st_nlink == 0:
            raise DeviceBusy(f"{self.path} was removed while it was opened", hint="try again")

    def _resize(self, size: int, sparse: bool) -> None:
        if self.is_block:
            self.size = os.lseek(self.fd, 0, os.SEEK_END)
            if size > self.size:
                raise InvalidValue(f"{self.path} has {self.size} bytes, fewer than size={size}")
            return
        had = os.fstat(self.fd).st_size
        self.size = max(had, size)
        if size > had:
            self._grown_from = had
            if sparse:
                os.ftruncate(self.fd, size)
        if not sparse and self.size:
            os.posix_fallocate(self.fd, 0, size or self.size)

    def undo(self) -> None:
        """Close after a failure, leaving the file as it was found: gone if it was created, as long as before."""
        with contextlib.suppress(OSError):  # the error that led here is the one to report
            if self._created:
                if os.path.samestat(os.stat(self.path, follow_symlinks=False), os.fstat(self.fd)):
                    os.unlink(self.path)
            elif self._grown_from is not None:
                os.ftruncate(self.fd, self._grown_from)
        os.close(self.fd)

    def discard(self, offset: int, length: int) -> None:
        """Give `length` bytes at `offset` back to the file system or the device; does nothing where neither can."""
        try:
            if self.is_block:
                fcntl.ioctl(self.fd, _BLKDISCARD, struct.pack("QQ", offset, length))
            elif _fallocate(self.fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise

    def flush(self) -> None:
        """Return when everything written is on stable storage."""
        os.fdatasync(self.fd)

    def close(self) -> None:
        """Release the file and its lock."""
        os.close(self.fd)
