"""File systems on a node: what there is, making one, mounting and unmounting it."""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress

from ..backing_spec import system_error
from ..errors import DeviceBusy, InvalidValue
from .programs import ProgramFailed, run
from .tables import Mounted, mounted_at, mounts_of, users
from .wanted import Mount

MKFS_SECONDS = 600.0
UNMOUNT_SECONDS = 300.0
"""Unmounting writes what the page cache still has."""
BUSY_SECONDS = 2.0
"""How long a busy mount is tried again: indexers and the like look into what was just mounted."""
_MKFS = {"ext2": ("-q",), "ext4": ("-q",), "xfs": ("-q",), "btrfs": ("-q",)}


def signature(node: str) -> str:
    """What is on a node: ``ext4``, ``swap``, ``dos`` (a partition table), ...; empty when nothing is recognised."""
    found = run("blkid", "-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "value", node, good=(0, 2))
    return " ".join(found.split())


def make_filesystem(node: str, kind: str) -> bool:
    """Make a file system on an empty node; False when there is one of this kind already, which is kept.

    Raises InvalidValue (EINVAL) when there is anything else, ProgramFailed (EIO).
    """
    there = signature(node)
    if there:
        check_kind(node, there, kind)
        return False
    run(f"mkfs.{kind}", *_MKFS[kind], node, seconds=MKFS_SECONDS)
    return True


def check_kind(node: str, there: str, wanted: str) -> None:
    """Raises InvalidValue (EINVAL) when a node has something else than what is wanted: it is not overwritten."""
    if there != wanted:
        raise InvalidValue(
            f"{node} has {there} on it, not {wanted}", hint=f"clear it if it is not needed: wipefs --all {node}"
        )


def mount(node: str, wanted: Mount) -> None:
    """Mount a node. Raises DeviceBusy (EBUSY) when something is mounted there, ProgramFailed (EIO)."""
    directory = os.path.realpath(wanted.directory)
    there = mounted_at(directory)
    if there is not None and there.source == node:
        return
    if there is not None:
        raise DeviceBusy(f"{there.source} is mounted on {directory}", hint="unmount it, or choose another directory")
    run("mount", *(("-o", wanted.options) if wanted.options else ()), node, directory)


def unmount(node: str) -> list[str]:
    """Unmount a node everywhere in this namespace; the directories. Raises DeviceBusy (EBUSY) while files are open."""
    done = []
    for mounted in mounts_of(node):
        _unmount(mounted)
        done.append(mounted.directory)
    return done


def _unmount(mounted: Mounted) -> None:
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            run("umount", mounted.directory, seconds=UNMOUNT_SECONDS)
            return
        except ProgramFailed as error:
            if "busy" not in error.reason:
                raise
            if time.monotonic() > deadline:
                by = ", ".join(users(mounted.directory)) or "another process"
                raise DeviceBusy(f"{mounted.directory} is in use by {by}", hint="end it, then try again") from error
            time.sleep(0.1)


def unmount_lazily(node: str) -> list[str]:
    """Take the mounts of a node out of sight at once; they end when the last file on them is closed."""
    done = []
    for mounted in mounts_of(node):
        run("umount", "--lazy", mounted.directory)
        done.append(mounted.directory)
    return done


def make_directory(directory: str) -> bool:
    """Make a mount point; whether it had to be made. Raises ZramError."""
    try:
        os.makedirs(directory, exist_ok=False)
    except FileExistsError:
        if os.path.isdir(directory):
            return False
        raise InvalidValue(f"{directory} is not a directory") from None
    except OSError as error:
        raise system_error(error, f"cannot make {directory}: {error.strerror}") from error
    return True


def synchronize(directory: str) -> None:
    """Write out what a mounted file system has in memory (syncfs(2)). Raises ZramError."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise system_error(error, f"cannot open {directory}: {error.strerror}") from error
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(handle) != 0:
            number = ctypes.get_errno()
            raise system_error(OSError(number, os.strerror(number)), f"cannot synchronize {directory}")
    finally:
        with suppress(OSError):
            os.close(handle)
