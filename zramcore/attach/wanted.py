"""What a device is to be used for, and which uses exclude each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

FILE_SYSTEMS = ("ext4", "xfs", "btrfs", "ext2")
"""What `mkfs` can make."""
MOUNT_OPTIONS = "discard"
"""Deleted files give their memory back."""
PRIORITIES = range(-1, 32768)
"""Of swapon(8)."""


@dataclass(frozen=True)
class Mount:
    """Where a file system is mounted (an absolute path), and mount(8)'s options."""

    directory: str
    options: str = MOUNT_OPTIONS


@dataclass(frozen=True)
class Swap:
    """Swap of a priority (None: the kernel chooses), which discards what it frees or does not."""

    priority: int | None = None
    discard: bool = True


@dataclass(frozen=True)
class Use:
    """`path`: where the node shall be: /dev/loopN or /dev/nbdN themselves, anything else becomes a symbolic link."""

    path: str | None = None
    mkfs: str | None = None
    mount: Mount | None = None
    swap: Swap | None = None


def programs_of_use(use: Use) -> list[str]:
    """The programs that a use needs of a node, in the order it needs them."""
    programs = []
    if use.mkfs is not None or use.swap is not None:
        programs.append("blkid")
    if use.mkfs is not None:
        programs.append(f"mkfs.{use.mkfs}")
    if use.mount is not None:
        programs += ["mount", "umount"]
    if use.swap is not None:
        programs += ["mkswap", "swapon", "swapoff"]
    return programs


class Conflict(NamedTuple):
    """Which key cannot be, and why."""

    key: str
    reason: str
    hint: str = ""


def conflicts(use: Use, *, has_contents: bool) -> Iterator[Conflict]:
    """What cannot go together; `has_contents`: the device is not new and empty, so there may be a file system."""
    if use.swap is not None:
        for key, other in (("mkfs", use.mkfs), ("mount", use.mount)):
            if other is not None:
                yield Conflict(key, "excludes swap: a device is one of them", "use two devices")
    elif use.mount is not None and use.mkfs is None and not has_contents:
        yield Conflict("mount", "finds no file system on an empty device", 'add mkfs = "ext4"')
