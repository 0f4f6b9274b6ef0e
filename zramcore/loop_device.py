"""A loop device over a plain file: the kernel's zram takes block devices only, and says ENOTBLK to a file.

The loop device is told to go as soon as nobody has it open (autoclear), right after zram has opened it: then a reset
takes it away, also one that comes after the process that made it is gone.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess

from .errors import DeviceBusy, InvalidValue, NotSupported, ZramError
from .parse import memparse_rest

DRIVERS = ("file", "direct", "mmap")
"""Names of zramcore's drivers, which may lead a `backing_dev`: to the kernel they are all a path."""

_SECONDS = 30.0


def backing_path(text: str, *, create: bool = True) -> str:
    """The path that a `backing_dev` in zramcore's form names; a file of the given ``size=`` is created if missing.

    Raises InvalidValue (EINVAL) for an option that the kernel has no counterpart of, and ZramError with the errno of
    creating the file.
    """
    driver, colon, rest = text.partition(":")
    if not colon or driver not in DRIVERS:
        return text
    path, *options = rest.split(",")
    size = 0
    for option in options:
        key, _, value = option.partition("=")
        if key != "size":
            raise InvalidValue(f"the kernel's zram has no option {key!r} of a backing device", hint="size=1G is one")
        size, left = memparse_rest(value)
        if not size or left.lower() not in ("", "b", "ib"):
            raise InvalidValue(f"{value!r} is not a size", hint="size=1G")
    if size and create and not os.path.lexists(path):
        _create(path, size)
    return path


def _create(path: str, size: int) -> None:
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ZramError(f"cannot create {path}: {error.strerror}", errno=error.errno) from error
    try:
        os.ftruncate(number, size)
    except OSError as error:
        os.unlink(path)
        raise ZramError(f"cannot make {path} {size} bytes long: {error.strerror}", errno=error.errno) from error
    finally:
        os.close(number)


def is_plain_file(path: str) -> bool:
    """Whether a path leads to a regular file, which needs a loop device."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False  # for the kernel to say


def loops_over(path: str) -> list[str]:
    """The loop devices over a file, whoever made them. Raises as LoopDevice."""
    return _losetup("--associated", path, "--noheadings", "--output", "NAME").split()


class LoopDevice:
    """A loop device over `path`, with direct I/O where the file system has it, so that no page is cached twice."""

    def __init__(self, path: str) -> None:
        """Attach it. Raises DeviceBusy (EBUSY) when another one is over the file already (two devices would write into
        each other's blocks), NotSupported (EOPNOTSUPP) without the program losetup, ZramError (EIO) when it fails."""
        self.path = path
        others = loops_over(path)
        if others:
            hint = f"what uses it? zramctl, findmnt, losetup say; nothing: losetup --detach {others[0]}"
            raise DeviceBusy(f"{path} is in use by {', '.join(others)}", hint=hint)
        try:
            self.node = _losetup("--find", "--show", "--direct-io=on", path).strip()
        except ZramError:
            self.node = _losetup("--find", "--show", path).strip()

    def let_go(self) -> None:
        """Detach it: at once when nobody has it open, otherwise when the last one closes it."""
        _losetup("--detach", self.node)


def _losetup(*arguments: str) -> str:
    command = ["losetup", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        raise NotSupported("there is no program losetup", hint="Debian has it in the package mount") from None
    except subprocess.TimeoutExpired:
        raise ZramError(f"{' '.join(command)} took over {_SECONDS:g} s", errno=errno.ETIMEDOUT) from None
    if done.returncode:
        raise ZramError(f"{' '.join(command)}: {done.stderr.strip() or f'status {done.returncode}'}", errno=errno.EIO)
    return done.stdout
