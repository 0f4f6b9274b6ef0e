"""Files of sysfs: each read and write is one read(2) and one write(2), as the kernel's shows and stores want them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from .errors import DeviceBusy

_CHUNK = 1 << 20
_PAUSE = 0.05
"""Seconds."""


def read_file(path: Path, *, once: bool = False) -> str:
    """The file's text; `once`: with a single read(2), for hot_add, where reading is the deed."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(number, _CHUNK)]
        while parts[-1] and not once:
            parts.append(os.read(number, _CHUNK))
    finally:
        os.close(number)
    return b"".join(parts).decode("ascii", "replace")


def write_file(path: Path, text: str) -> None:
    """Write `text` with one write(2), never creating a file. O_TRUNC is for plain trees: sysfs does not mind."""
    data = text.encode()
    number = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        written = os.write(number, data)
    finally:
        os.close(number)
    if written != len(data):
        raise OSError(errno.EIO, f"{written} of {len(data)} bytes were taken")


def patiently(act: Callable[[], None], patience: float, sleep: Callable[[float], object]) -> None:
    """Do something again and again as long as the device is busy, for `patience` seconds. Raises DeviceBusy (EBUSY)."""
    waited = 0.0
    while True:
        try:
            return act()
        except DeviceBusy as error:
            if waited >= patience:
                error.hint = error.hint or "swapoff or umount it first"
                raise
        sleep(_PAUSE)
        waited += _PAUSE
