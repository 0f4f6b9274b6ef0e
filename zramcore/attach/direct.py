"""A node that is there already, the kernel's zram: a link to it, a file system, a mount, swap, and all of it undone."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass

from ..errors import DeviceBusy, NotPermitted, ZramError
from . import filesystems, swap, tables
from .attachment import make_link
from .programs import require
from .wanted import Use, programs_of_use

log = logging.getLogger(__name__)


@dataclass
class DirectUse:
    """What `use_node` made of a node; None and False are what it did not."""

    node: str
    link: str | None = None
    directory: str | None = None
    made_directory: bool = False
    swap: bool = False

    def line(self) -> str:
        """It in a line, for people."""
        purpose = ", swap" if self.swap else "" if self.directory is None else f" on {self.directory}"
        return f"{self.link or self.node}{purpose}"


def check_use(use: Use) -> None:
    """Raises NotPermitted (EACCES) for anybody but root, MissingProgram (ENOENT); nothing is touched."""
    if os.geteuid() != 0:
        raise NotPermitted("using a block device needs root")
    require(programs_of_use(use))


def use_node(node: str, use: Use) -> DirectUse:
    """Make of a node what is wanted and not there yet: all of it, or nothing is left but a file system.

    Raises DeviceBusy (EBUSY), InvalidValue (EINVAL) for a node that holds something else, ZramError for a step that
    failed.
    """
    used = DirectUse(node)
    try:
        if use.path is not None and use.path != node:
            if not (os.path.islink(use.path) and os.readlink(use.path) == node):
                if os.path.lexists(use.path):
                    raise DeviceBusy(f"{use.path} exists", hint="choose another path")
                make_link(node, use.path)
            used.link = use.path
        if use.mkfs is not None:
            filesystems.make_filesystem(node, use.mkfs)
        if use.mount is not None:
            used.directory = os.path.realpath(use.mount.directory)
            used.made_directory = filesystems.make_directory(used.directory)
            filesystems.mount(node, use.mount)
        if use.swap is not None:
            swap.swap_on(node, use.swap)
            used.swap = True
    except BaseException:
        try:
            leave_node(used)
        except ZramError as error:
            # the error that led here is the one to raise
            log.error("%s: cannot be undone: %s", node, error)
        raise
    return used


def leave_node(used: DirectUse) -> None:
    """Undo what `use_node` made; twice does no harm. Raises DeviceBusy (EBUSY) while it is in use."""
    swap.swap_off(used.node)
    filesystems.unmount(used.node)
    if used.made_directory and used.directory is not None:
        with contextlib.suppress(OSError):  # somebody keeps files in it
            os.rmdir(used.directory)
    if used.link is not None and os.path.islink(used.link) and os.readlink(used.link) == used.node:
        os.unlink(used.link)
    if tables.claimed(used.node):
        raise DeviceBusy(f"{used.node} is in use", hint="a mount in another namespace, or device mapper")
