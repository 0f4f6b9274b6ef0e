"""What the kernel says there is: mounts, swaps, loop devices. The truth that a record is compared with."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SYS_BLOCK = Path("/sys/block")


class Mounted(NamedTuple):
    """A line of mountinfo: `device` is MAJOR:MINOR (anonymous for btrfs), `source` what was mounted."""

    device: str
    directory: str
    kind: str
    source: str


def mounts() -> list[Mounted]:
    """The mounts of this mount namespace, in order (proc_pid_mountinfo(5)); nothing is looked at but the table."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            fields, rest = before.split(), after.split()
            found.append(Mounted(fields[2], _unescape(fields[4]), rest[0], _unescape(rest[1])))
    return found


def mounts_of(node: str) -> list[Mounted]:
    """The mounts of a block node, the last one first."""
    number = _number(node)
    return [each for each in reversed(mounts()) if each.source == node or (number and each.device == number)]


def mounted_at(directory: str) -> Mounted | None:
    """What is mounted on a directory, or None; the directory itself is not touched."""
    return next((each for each in reversed(mounts()) if each.directory == directory), None)


def is_swap(node: str) -> bool:
    """Whether a node is in use as swap."""
    with open("/proc/swaps", encoding="utf-8", errors="surrogateescape") as file:
        return any(_unescape(line.split()[0]) == node for line in file.readlines()[1:])


def loops_of(file: str) -> list[str]:
    """The loop nodes over a file, by the path it was given as."""
    found = []
    for entry in sorted(SYS_BLOCK.glob("loop*")):
        with suppress(OSError):
            backing = (entry / "loop" / "backing_file").read_text().removesuffix("\n")
            if _unescape(backing).removesuffix(" (deleted)") == file:
                found.append(f"/dev/{entry.name}")
    return found


def nbd_process(node: str) -> int | None:
    """The pid that the kernel has for a /dev/nbdN in use; None for one that is free."""
    try:
        return int((SYS_BLOCK / os.path.basename(node) / "pid").read_text())
    except (OSError, ValueError):
        return None


def claimed(node: str) -> bool:
    """Whether something holds the node for itself: a mount (in any namespace), swap, dm, md."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def users(directory: str) -> list[str]:
    """The processes that have something below a directory open: ``bash (pid 123)``. Only links are read, no file."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(_below(target, directory) for target in _targets(process)):
                name = (process / "comm").read_text().strip()
                found.append(f"{name} (pid {process.name})")
    return found


def _targets(process: Path) -> Iterator[str]:
    for link in ("cwd", "root", "exe"):
        with suppress(OSError):
            yield os.readlink(process / link)
    with os.scandir(process / "fd") as handles:
        for handle in handles:
            with suppress(OSError):
                yield os.readlink(handle.path)


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _number(node: str) -> str:
    with suppress(OSError):
        status = os.stat(node)
        return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return ""


def _unescape(text: str) -> str:
    """The kernel writes blanks, newlines and backslashes as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
