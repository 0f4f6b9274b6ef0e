"""The machine a script sees: devices by their /dev names, attributes by their sysfs paths, a clock, and files.

The paths are those of Linux, so that a script written for a kernel's zram runs here: /sys/block/zram0/..., the class
files in /sys/class/zram-control, and block_state in debugfs. Any other path is a text file of the script's own, kept
in memory, or a file of the host where a command asks for one.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..control import Control
from ..errors import DeviceBusy, InvalidValue, NoSpace, NotSupported, ZramError
from .block import DISK, QUEUE, BlockFront

_BLOCK_PATH = re.compile(r"/sys/block/([^/]+)/(.+)")
_CLASS_PATH = re.compile(r"/sys/class/zram-control/(.+)")
_DEBUG_PATHS = {
    "block_state": re.compile(r"/sys/kernel/debug/zram/([^/]+)/block_state"),
    "zsmalloc_classes": re.compile(r"/sys/kernel/debug/zsmalloc/([^/]+)/classes"),
}
_SECTOR = 512


# Time -------------------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """Boot time in seconds, and how to let it pass."""

    def now(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class BootClock:
    """The machine's own time since boot."""

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class VirtualClock:
    """Time that passes only in `sleep`, and at once."""

    def __init__(self, start: float = 100.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


# Nodes ------------------------------------------------------------------------------------------------------------


class Node(Protocol):
    """A block device node; see BlockFront for what each method does."""

    @property
    def size(self) -> int: ...
    def read(self, offset: int, length: int, *, buffered: bool = False) -> bytes: ...
    def write(self, offset: int, data: bytes, *, buffered: bool = False) -> int: ...
    def discard(self, offset: int, length: int) -> None: ...
    def zeroout(self, offset: int, length: int) -> None: ...
    def secure_discard(self, offset: int, length: int) -> None: ...
    def fallocate(self, mode: int, offset: int, length: int) -> None: ...


class FileNode:
    """A host file under the name of a disk: enough to look at what writeback left on a backing device."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size(self) -> int:
        return self.path.stat().st_size // _SECTOR * _SECTOR

    def read(self, offset: int, length: int, *, buffered: bool = False) -> bytes:
        length = min(length, max(self.size - offset, 0))
        self._check(offset, length, buffered)
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(self, offset: int, data: bytes, *, buffered: bool = False) -> int:
        if data and offset >= self.size:
            raise NoSpace("the write starts past the end of the device")
        data = data[: self.size - offset]
        self._check(offset, len(data), buffered)
        with self.path.open("r+b") as file:
            file.seek(offset)
            return file.write(data)

    def discard(self, offset: int, length: int) -> None:
        self.zeroout(offset, length)

    def zeroout(self, offset: int, length: int) -> None:
        if length <= 0 or offset + length > self.size:
            raise InvalidValue(f"{length} bytes at {offset} are not within the device")
        self.write(offset, bytes(length))

    def secure_discard(self, offset: int, length: int) -> None:
        raise NotSupported(f"secure discard of {length} bytes at {offset}: a file has none")

    def fallocate(self, mode: int, offset: int, length: int) -> None:
        self.zeroout(offset, length)

    @staticmethod
    def _check(offset: int, length: int, buffered: bool) -> None:
        if not buffered and (offset % _SECTOR or length % _SECTOR):
            raise InvalidValue(f"direct I/O of {length} bytes at {offset} is not in whole sectors")


@dataclass(frozen=True)
class Entry:
    """A file of sysfs or debugfs; `show` or `store` is None where the mode forbids it."""

    show: Callable[[], str] | None
    store: Callable[[str], None] | None


@dataclass
class _Hold:
    number: int
    name: str
    exclusive: bool
    until: float
    close: Callable[[], None]


def missing(path: str) -> FileNotFoundError:
    """ENOENT for a path."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


class Machine:
    """Devices, files and time of one script. Close it to give back the files that `make_file` created.

    `names` says which host file stands for a path such as /dev/vda; `control` is made with `clock`'s time.
    """

    def __init__(self, make_control: Callable[[Callable[[], int]], Control], clock: Clock) -> None:
        self.clock = clock
        self.control = make_control(lambda: int(clock.now()))
        self.names: dict[str, Path] = {}
        self.texts: dict[str, str] = {}
        self._holds: list[_Hold] = []
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0
        self._opened = 0

    def close(self) -> None:
        """End all holds, reset every device and delete the files made."""
        self.release()
        for device in self.control.devices.values():
            device.reset()
        if self._directory is not None:
            self._directory.cleanup()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    # Files

    def resolve(self, path: str) -> Path:
        """The host's file for a path of the script."""
        return self.names.get(path, Path(path))

    def make_file(self, name: str, size: int) -> Path:
        """A new sparse host file of `size` bytes, known to the script as `name`."""
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="zramcore-exec-")
        self._files += 1
        path = Path(self._directory.name) / f"{self._files}-{name.rpartition('/')[2]}"
        with path.open("wb") as file:
            file.truncate(size)
        self.names[name] = path
        return path

    # Devices

    def node(self, name: str) -> Node:
        """The block device of a /dev name. Raises FileNotFoundError."""
        self._expire()
        for device in self.control.devices.values():
            if name == f"/dev/{device.name}":
                return BlockFront(device)
        if name in self.names and self.names[name].exists():
            return FileNode(self.names[name])
        raise missing(name)

    def hold(self, name: str, mode: str, seconds: float = math.inf) -> int:
        """Open a device and keep it open: `mode` starts with w (writable), e (read-only, exclusive) or r.

        Returns the number of the hold, for `end_hold`.

        Raises FileNotFoundError, DeviceBusy (EBUSY) when it is held exclusively or used as a backing device.
        """
        node = self.node(name)
        exclusive = mode[:1] == "e"
        if exclusive and any(hold.exclusive and hold.name == name for hold in self._holds):
            raise DeviceBusy(f"{name} is held exclusively")
        if isinstance(node, BlockFront):
            device = next(one for one in self.control.devices.values() if name == f"/dev/{one.name}")
            close = device.open(writable=mode[:1] == "w").close
        else:
            close = _open_file(self.names[name], exclusive)
        self._opened += 1
        self._holds.append(_Hold(self._opened, name, exclusive, self.clock.now() + seconds, close))
        return self._opened

    def end_hold(self, number: int) -> bool:
        """End one hold; False when it is over already."""
        ended = [hold for hold in self._holds if hold.number == number]
        for hold in ended:
            self._holds.remove(hold)
            hold.close()
        return bool(ended)

    def release(self, name: str | None = None) -> None:
        """End the holds of a device, or all of them."""
        ended = [hold for hold in self._holds if name in (None, hold.name)]
        self._holds = [hold for hold in self._holds if hold not in ended]
        for hold in ended:
            hold.close()

    def wait(self) -> None:
        """Let time pass until the last hold with an end is over."""
        last = max((hold.until for hold in self._holds if hold.until < math.inf), default=0.0)
        self.clock.sleep(max(last - self.clock.now(), 0.0))
        self._expire()

    def _expire(self) -> None:
        now = self.clock.now()
        for hold in [hold for hold in self._holds if hold.until <= now]:
            self._holds.remove(hold)
            hold.close()

    # Attributes

    def entry(self, path: str) -> Entry | None:
        """The attribute at a path of sysfs or debugfs; None when there is none."""
        self._expire()
        if match := _BLOCK_PATH.fullmatch(path):
            return self._block_entry(match.group(1), match.group(2))
        for name, pattern in _DEBUG_PATHS.items():
            if match := pattern.fullmatch(path):
                return self._device_entry(match.group(1), name)
        match = _CLASS_PATH.fullmatch(path)
        if match and match.group(1) == "hot_add":
            return Entry(lambda: self.control.show("hot_add"), None)
        if match and match.group(1) == "hot_remove":
            return Entry(None, lambda text: self.control.store("hot_remove", text))
        return None

    def _block_entry(self, disk: str, name: str) -> Entry | None:
        entry = self._device_entry(disk, name)
        if entry is not None:
            return entry
        try:
            node = self.node(f"/dev/{disk}")
        except OSError:
            return None
        if name == "size":
            return Entry(lambda: f"{node.size // _SECTOR}\n", None)
        text = QUEUE.get(name.removeprefix("queue/")) if name.startswith("queue/") else DISK.get(name)
        return None if text is None else Entry(lambda: f"{text}\n", None)

    def _device_entry(self, disk: str, name: str) -> Entry | None:
        attribute = self.control.attributes.get(name)
        if attribute is None or all(device.name != disk for device in self.control.devices.values()):
            return None
        target = self.control.target(disk)
        if name == "backing_dev":
            return Entry(
                lambda: self._to_names(target.show(name)), lambda text: target.store(name, self._to_host(text))
            )
        return Entry(
            (lambda: target.show(name)) if attribute.show else None,
            (lambda text: target.store(name, text)) if attribute.store else None,
        )

    def _to_host(self, text: str) -> str:
        path = text.removesuffix("\n")
        return str(self.names[path]) if path in self.names else text

    def _to_names(self, text: str) -> str:
        shown = text.removesuffix("\n")
        for name, path in reversed(self.names.items()):
            if shown in (str(path), os.path.realpath(path)):
                return name + "\n"
        return text

    # Texts, as redirections see them

    def read_text(self, path: str) -> str:
        """The text of an attribute or of a file that the script wrote. Raises OSError."""
        entry = self.entry(path)
        if entry is not None:
            if entry.show is None:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return entry.show()
        if path in self.texts:
            return self.texts[path]
        raise missing(path)

    def write_text(self, path: str, text: str, append: bool) -> None:
        """Write to an attribute, or to a text of the script's own. Raises OSError."""
        entry = self.entry(path)
        if entry is None:
            if path.startswith("/sys/"):
                raise missing(path)
            self.texts[path] = self.texts.get(path, "") * append + text
        elif entry.store is None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        elif text:
            entry.store(text)

    def exists(self, path: str) -> bool:
        """Whether the script sees something at this path."""
        if self.entry(path) is not None or path in self.texts or self.resolve(path).exists():
            return True
        return any(path == f"/dev/{device.name}" for device in self.control.devices.values())


def _open_file(path: Path, exclusive: bool) -> Callable[[], None]:
    """Open a host file, locked as a backing device locks it when `exclusive`; returns how to close it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if exclusive:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise DeviceBusy(f"{path} is in use") from None
    except OSError as error:
        os.close(fd)
        raise ZramError(f"cannot lock {path}", errno=error.errno) from error
    return lambda: os.close(fd)
