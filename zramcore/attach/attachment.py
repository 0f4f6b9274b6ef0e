"""Attaching and detaching: the steps in order, each recorded before it is made, undone in reverse.

Undoing asks the kernel what there is and takes the record for what the kernel cannot know (the link, the directory that
was made, the process). So it works after a crash between any two steps, twice, and when somebody undid a part by hand.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeviceBusy, NoBackingDevice, NotPermitted, ZramError, did_you_mean
from . import filesystems, node, protect, swap, tables
from .processes import Process
from .programs import require
from .state import BadRecord, Place, Record, Via, attachments, place_of
from .wanted import Use, programs_of_use

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Export:
    """What to attach: the device's label and kernel's name, its NBD URI, the process that serves it (None: unknown)."""

    name: str
    device: str
    uri: str
    server: Process | None = None


def needed_programs(use: Use, via: Via) -> list[str]:
    """The programs that a use needs, in the order it needs them."""
    return [*node.programs_of(via), *programs_of_use(use)]


def prepare(use: Use, via: Via | None = None) -> Via:
    """How nodes are made here. Raises MissingProgram (ENOENT), or NotPermitted (EACCES) for anybody but root."""
    if os.geteuid() != 0:
        raise NotPermitted("making a block device needs root", hint="nbdcopy, qemu and others use NBD without one")
    chosen = node.choose_via(via)
    require(needed_programs(use, chosen))
    return chosen


def attach(export: Export, use: Use, directory: Path, via: Via | None = None) -> Record:
    """Make a node of an export and use it; all of it, or nothing is left. `directory` keeps the records.

    What an attachment of this name left whose server or nbdfuse has ended is undone first. For swap the server's
    memory is the caller's to lock, before. Raises DeviceBusy (EBUSY) when the name is attached, MissingProgram
    (ENOENT), ZramError for a step that failed.
    """
    place = Place(Path(os.path.realpath(directory)), export.name)
    with place.locked():
        chosen = prepare(use, via)
        _make_way(place)
        node.check_uri(export.uri, chosen)
        record = Record(export.name, export.device, export.uri, export.server, chosen, swap=use.swap is not None)
        try:
            _make(record, use, place)
        except BaseException:
            try:
                _undo(record, place, force=False)
            except ZramError as error:
                # the error that led here is the one to raise; the record says what is left
                log.error("%s: cannot be undone: %s", export.name, error)
            raise
        return record


def detach(name: str, directory: Path, *, force: bool = False) -> list[str]:
    """Undo an attachment, in order; what was undone, a sentence each. Nothing to undo is no error.

    `name`: the label, or the kernel's name of the device. `force`: end nbdfuse first, so that nothing waits for a
    server that does not answer, and unmount lazily; what was not written yet is lost. Raises DeviceBusy (EBUSY) while
    it is in use: what was undone stays undone, and detaching again goes on.
    """
    place = place_of(Path(os.path.realpath(directory)), name)
    with place.locked():
        record = _record(place)
        return [] if record is None else _undo(record, place, force)


def detach_served(server: Process, directory: Path) -> list[str]:
    """Undo every attachment of what this process serves, before it ends; what could not be undone, a sentence each."""
    failures = []
    for record in reversed(attachments(directory)):
        if record.server == server:
            try:
                detach(record.name, directory)
            except ZramError as error:
                failures.append(f"{record.name}: {error}")
    return failures


def find(name: str, directory: Path) -> Record:
    """The record of a name. Raises NoBackingDevice (ENODEV) when it is not attached."""
    record = place_of(directory, name).load()
    if record is None:
        known = [each.name for each in attachments(directory)]
        raise NoBackingDevice(f"{name} is not attached", hint=did_you_mean(name, known) if known else "")
    return record


def _make_way(place: Place) -> None:
    record = _record(place)
    if record is None:
        return
    if record.alive and node.nodes_of(record, place):
        raise DeviceBusy(f"{place.name} is attached as {record.node}", hint=f"zramcore detach {place.name}")
    log.warning("%s: undoing what is left of an attachment whose server has ended", place.name)
    _undo(record, place, force=False)


def _record(place: Place) -> Record | None:
    """The record; one made of what the kernel knows when there are only leftovers, or the record is damaged."""
    try:
        record = place.load()
    except BadRecord as error:
        log.warning("%s", error)
        record = None
    if record is not None or not place.folder.exists():
        return record
    found = Record(place.name, place.name, "", None, "nbdfuse")
    with suppress(OSError, ValueError):
        process = Process.of(int(place.pid_file.read_text()))
        # only if it is that nbdfuse still: a pid may be given again
        if process is not None and str(place.file).encode() in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            found.process = process
    return found


# Making ---------------------------------------------------------------------------------------------------------------


def _make(record: Record, use: Use, place: Place) -> None:
    link = use.path if use.path is not None and not node.is_node_path(use.path) else None
    if link is not None and os.path.lexists(link):
        raise DeviceBusy(f"{link} exists", hint="choose another path")
    place.save(record)
    made = node.make_node(record, place, use.path if link is None else None, place.save)
    if link is not None:
        record.path = link
        place.save(record)
        make_link(made, link)
    if use.mkfs is not None and not filesystems.make_filesystem(made, use.mkfs):
        record.notes.append(f"the {use.mkfs} file system that was there is kept")
    if use.mount is not None:
        record.directory = os.path.realpath(use.mount.directory)
        record.made_directory = not os.path.isdir(record.directory)
        place.save(record)
        filesystems.make_directory(record.directory)
        filesystems.mount(made, use.mount)
    if use.swap is not None:
        for process in (record.process, record.server):
            if process is not None and process != Process.self():
                record.notes += protect.spare(process.pid)
        if record.process is not None:
            record.notes += protect.keep_out_of_swap(record.process.pid)
        swap.swap_on(made, use.swap)
    place.save(record)


def make_link(target: str, link: str) -> None:
    """Make a symbolic link, and its directory. Raises ZramError, EEXIST where something is already."""
    try:
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(target, link)
    except OSError as error:
        raise ZramError(f"cannot make {link}: {error.strerror}", errno=error.errno) from error


# Undoing --------------------------------------------------------------------------------------------------------------


def _undo(record: Record, place: Place, force: bool) -> list[str]:
    done: list[str] = []
    if force and record.process is not None and record.process.alive:
        node.end_nbdfuse(record.process)
        done.append(f"ended nbdfuse (pid {record.process.pid})")
    nodes = node.nodes_of(record, place)
    for each in nodes:
        if swap.swap_off(each):
            done.append(f"stopped swapping to {each}")
    for each in nodes:
        unmounted = filesystems.unmount_lazily(each) if force else filesystems.unmount(each)
        done += [f"unmounted {directory}" for directory in unmounted]
    if record.made_directory and record.directory is not None:
        with suppress(OSError):  # it is gone, or somebody keeps files in it
            os.rmdir(record.directory)
    if record.path is not None and os.path.islink(record.path) and os.readlink(record.path) == record.node:
        os.unlink(record.path)
        done.append(f"removed {record.path}")
    for each in nodes:
        if not force and tables.claimed(each):
            raise DeviceBusy(
                f"{each} is in use", hint="a mount in another namespace (a container, a service), or device mapper"
            )
        try:
            node.remove_node(each)
        except DeviceBusy:
            if not force:
                raise
            done.append(f"{each} goes when it is closed")
        else:
            done.append(f"removed {each}")
    if node.remove_fuse(record, place, lazily=force):
        done.append(f"unmounted {place.mount_point}")
    protect.forget_cgroup()
    place.remove()
    return done
