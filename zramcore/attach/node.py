"""A block node of an NBD export: the kernel's own client where it has one, else nbdfuse and a loop device over it.

The loop device uses direct I/O, so that a page is not cached twice, and sectors of 4096 bytes, so that no request is
smaller than a page of the device.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from ..errors import DeviceBusy, InvalidValue
from . import tables
from .processes import Process
from .programs import MissingProgram, ProgramFailed, find, run
from .protect import io_flusher
from .state import Place, Record, Via

BLOCK = "4096"
START_SECONDS = 30.0
"""Until nbdfuse is ready."""
STOP_SECONDS = 10.0
"""Until a node or nbdfuse is gone once it was told so."""
_MODULE = Path("/sys/module/nbd")
_NODE = re.compile(r"/dev/(loop|nbd)[0-9]+", re.ASCII)

Save = Callable[[Record], None]


def choose_via(wanted: Via | None = None) -> Via:
    """How a node is made here: `nbd-client` where the kernel has nbd, or can load it; else `nbdfuse`.

    Raises MissingProgram (ENOENT), or InvalidValue (EINVAL) when nbd-client is wanted of a kernel without nbd.
    """
    if wanted != "nbdfuse":
        if _kernel_has_nbd():
            if find("nbd-client") is None and (wanted is not None or find("nbdfuse") is None):
                raise MissingProgram("nbd-client")
            if find("nbd-client") is not None:
                return "nbd-client"
        elif wanted == "nbd-client":
            raise InvalidValue("this kernel has no nbd", hint="use nbdfuse, or load the module: modprobe nbd")
    return "nbdfuse"


def programs_of(via: Via) -> tuple[str, ...]:
    """The programs that a way of making nodes needs."""
    return ("nbd-client",) if via == "nbd-client" else ("nbdfuse", "fusermount3", "losetup")


def is_node_path(path: str) -> bool:
    """Whether a wanted path is a node's own, /dev/loopN or /dev/nbdN, and not that of a link to one."""
    return _NODE.fullmatch(path) is not None


def check_uri(uri: str, via: Via) -> None:
    """Raises InvalidValue (EINVAL) for an export that these programs cannot reach."""
    scheme = urlsplit(uri).scheme
    if scheme not in ("nbd", "nbd+unix"):
        raise InvalidValue(f"{uri} cannot be attached with {via}", hint="serve it on a unix socket: unix:PATH")


def make_node(record: Record, place: Place, wanted: str | None, save: Save) -> str:
    """Make the node; `wanted` says which, if not None. `record` is saved before each step. Raises ZramError."""
    if record.via == "nbd-client":
        return _connect(record, wanted, save)
    _start_nbdfuse(record, place, save)
    return _make_loop(record, place, wanted, save)


def nodes_of(record: Record, place: Place) -> list[str]:
    """The nodes that exist for a record, whatever it knows itself."""
    found = tables.loops_of(str(place.file))
    if record.via == "nbd-client" and record.node is not None:
        pid = tables.nbd_process(record.node)
        if pid is not None and record.nbd_pid in (None, pid):
            found.append(record.node)
    return found


def remove_node(node: str) -> None:
    """Remove a node that nobody uses. Raises DeviceBusy (EBUSY) when it stays, ProgramFailed (EIO)."""
    if node.startswith("/dev/nbd"):
        run("nbd-client", "-d", node)
        gone = _wait(lambda: tables.nbd_process(node) is None)
    else:
        # a loop device that is open anywhere goes when it is closed, and the program succeeds at once all the same
        run("losetup", "--detach", node)
        state = tables.SYS_BLOCK / os.path.basename(node) / "loop" / "backing_file"
        gone = _wait(lambda: not state.exists())
    if not gone:
        raise DeviceBusy(f"{node} is still open", hint="end what uses it, then try again")


# nbd-client -----------------------------------------------------------------------------------------------------------


def _kernel_has_nbd() -> bool:
    if not _MODULE.exists() and find("modprobe") is not None:
        with suppress(ProgramFailed):
            run("modprobe", "nbd")
    return _MODULE.exists()


def _connect(record: Record, wanted: str | None, save: Save) -> str:
    node = wanted if wanted is not None else _free_nbd()
    if tables.nbd_process(node) is not None:
        raise DeviceBusy(f"{node} is in use", hint="choose another, or none")
    record.node = node
    save(record)
    parts = urlsplit(record.uri)
    if parts.scheme == "nbd+unix":
        server = ["-unix", parse_qs(parts.query)["socket"][0]]
    else:
        server = [parts.hostname or "", str(parts.port or 10809)]
    lock = ["-swap"] if record.swap else []
    with io_flusher():
        run("nbd-client", *server, node, "-name", unquote(parts.path.removeprefix("/")), "-block-size", BLOCK, *lock)
    if not _wait(lambda: tables.nbd_process(node) is not None):
        raise ProgramFailed(f"nbd-client did not connect {node}")
    record.nbd_pid = tables.nbd_process(node)
    save(record)
    return node


def _free_nbd() -> str:
    entries = sorted(tables.SYS_BLOCK.glob("nbd[0-9]*"), key=lambda entry: int(entry.name.removeprefix("nbd")))
    for entry in entries:
        if not (entry / "pid").exists():
            return f"/dev/{entry.name}"
    raise DeviceBusy(f"all {len(entries)} nbd devices are in use", hint="modprobe nbd nbds_max=64, or use nbdfuse")


# nbdfuse and a loop device --------------------------------------------------------------------------------------------


def _start_nbdfuse(record: Record, place: Place, save: Save) -> None:
    path = find("nbdfuse")
    if path is None:
        raise MissingProgram("nbdfuse")
    place.mount_point.mkdir(mode=0o700, exist_ok=True)
    place.pid_file.unlink(missing_ok=True)
    words = ["nbdfuse", "-P", str(place.pid_file), str(place.file), record.uri]
    output = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(place.log), output, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    with io_flusher():
        pid = os.posix_spawn(path, words, os.environ, file_actions=actions, setsid=True)
    record.process = Process.of(pid)
    save(record)
    process = record.process
    if process is None or not _wait(lambda: place.pid_file.exists() or not process.alive, START_SECONDS):
        raise ProgramFailed(f"nbdfuse is not ready after {START_SECONDS:g} s", hint="does its server answer?")
    if not place.pid_file.exists():
        said = " ".join(place.log.read_text(errors="replace").split())
        raise ProgramFailed(f"nbdfuse ended: {said or 'without a word'}")


def _make_loop(record: Record, place: Place, wanted: str | None, save: Save) -> str:
    choice = ["--find", "--show"] if wanted is None else []
    last = [str(place.file)] if wanted is None else [wanted, str(place.file)]
    record.node = wanted
    save(record)
    try:
        shown = run("losetup", *choice, "--direct-io=on", "--sector-size", BLOCK, *last).strip()
    except ProgramFailed as error:
        if wanted is not None and "busy" in error.reason:
            raise DeviceBusy(f"{wanted} is in use", hint="choose another, or none") from error
        error.hint = error.hint or "are all loop devices in use? losetup --list says"
        raise
    record.node = wanted or shown
    save(record)
    return record.node


def end_nbdfuse(process: Process | None) -> None:
    """End nbdfuse at once: requests that it has not answered fail, and so does what waits for them."""
    if process is not None:
        process.end(signal.SIGKILL)
        process.wait(STOP_SECONDS)


def remove_fuse(record: Record, place: Place, *, lazily: bool) -> bool:
    """Unmount nbdfuse and see it end; whether there was anything. Raises DeviceBusy (EBUSY), ProgramFailed (EIO)."""
    process = record.process
    running = process is not None and process.alive
    if tables.mounted_at(str(place.mount_point)) is None and process is not None:
        # it has not mounted yet, or no longer: it must not do so behind our back
        process.end(signal.SIGTERM)
        process.wait(STOP_SECONDS)
    mounted = tables.mounted_at(str(place.mount_point)) is not None
    if mounted:
        _unmount_fuse(place, lazily)
    if process is not None and not process.wait(STOP_SECONDS):
        end_nbdfuse(process)
    return mounted or running


def _unmount_fuse(place: Place, lazily: bool) -> None:
    words = ["fusermount3", "-u", *(["-z"] if lazily else []), str(place.mount_point)]
    failures: list[ProgramFailed] = []

    def unmounted() -> bool:
        try:
            run(*words)
        except ProgramFailed as error:
            failures.append(error)
            return False
        return True

    if not _wait(unmounted, pause=0.1):
        raise DeviceBusy(f"{place.mount_point} is in use: {failures[-1].reason}", hint="detach with --force")


def _wait(done: Callable[[], bool], seconds: float = STOP_SECONDS, pause: float = 0.01) -> bool:
    """Look again and again until something is done or `seconds` are over; whether it is."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
