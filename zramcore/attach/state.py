"""Records of what was attached, one directory a name, so that it can be undone after any crash.

`DIRECTORY/NAME/state.json` is written before each step, so it never knows less than there is; the rest of that
directory is the mount point of nbdfuse and what it printed. `DIRECTORY/NAME.lock` keeps two commands apart.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..backing_spec import system_error
from ..errors import InvalidValue, ZramError
from .processes import Process

VARIABLE = "ZRAMCORE_ATTACH_DIR"
"""Environment variable: where the records are."""
DIRECTORY = Path("/run/zramcore-attach")
VERSION = 1

Via = Literal["nbd-client", "nbdfuse"]

_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]+", re.ASCII)


class BadRecord(ZramError):
    """EBADMSG: a record that cannot be read."""

    code = errno.EBADMSG


@dataclass
class Record:
    """An attachment. `name` is the device's label, `device` the kernel's name; None is what was not made.

    `server` is the process that serves the export, `process` nbdfuse. `path` is the symbolic link to `node`,
    `directory` the mount point, and `made_directory` whether it was made for the mount. `nbd_pid`: the owner of a
    /dev/nbdN. `notes`: what could not be done and does not matter to everybody, a sentence each.
    """

    name: str
    device: str
    uri: str
    server: Process | None
    via: Via
    process: Process | None = None
    node: str | None = None
    path: str | None = None
    directory: str | None = None
    made_directory: bool = False
    swap: bool = False
    nbd_pid: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether the processes behind it still run."""
        behind = (self.server, self.process)
        return self.node is not None and all(process is None or process.alive for process in behind)


def default_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the records are: ZRAMCORE_ATTACH_DIR, or /run/zramcore-attach."""
    return Path(environment.get(VARIABLE) or DIRECTORY).absolute()


@dataclass(frozen=True)
class Place:
    """Where the attachment of a name keeps its things."""

    directory: Path
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > 200:
            raise InvalidValue(f"{self.name!r} is not the name of a device")

    @property
    def folder(self) -> Path:
        """Everything but the lock."""
        return self.directory / self.name

    @property
    def state(self) -> Path:
        """The record."""
        return self.folder / "state.json"

    @property
    def mount_point(self) -> Path:
        """Where nbdfuse is mounted."""
        return self.folder / "disk"

    @property
    def file(self) -> Path:
        """The device as nbdfuse's file: loop devices are recognised by this path."""
        return self.mount_point / self.name

    @property
    def log(self) -> Path:
        """What nbdfuse printed."""
        return self.folder / "nbdfuse.log"

    @property
    def pid_file(self) -> Path:
        """Written by nbdfuse when it is ready."""
        return self.folder / "nbdfuse.pid"

    def make(self) -> None:
        """Make the directories, for root's eyes only. Raises ZramError."""
        make_private(self.directory)
        make_private(self.folder)

    def save(self, record: Record) -> None:
        """Replace the record, on stable storage before this returns."""
        self.make()
        new = self.state.with_suffix(".new")
        try:
            with new.open("w") as file:
                json.dump({"version": VERSION, **asdict(record)}, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.state)
        except OSError as error:
            raise _explain(error, self.state) from error

    def load(self) -> Record | None:
        """The record; None without one. Raises BadRecord (EBADMSG)."""
        try:
            found = json.loads(self.state.read_text())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _explain(error, self.state) from error
        except ValueError as error:
            raise BadRecord(f"{self.state} is not JSON: {error}", hint=_REMOVE) from error
        try:
            if found.pop("version") != VERSION:
                raise BadRecord(f"{self.state} was written by another version of zramcore", hint=_REMOVE)
            return Record(**{key: _typed(key, value) for key, value in found.items()})
        except (AttributeError, KeyError, TypeError) as error:
            raise BadRecord(f"{self.state} is no record: {error}", hint=_REMOVE) from error

    def remove(self) -> None:
        """Forget it: the record last, the mount point must be empty. Raises ZramError."""
        try:
            for file in (self.pid_file, self.log, self.state.with_suffix(".new")):
                file.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self.mount_point.rmdir()
            self.state.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self.folder.rmdir()
        except OSError as error:
            raise _explain(error, self.folder) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others away from this name. The lock's file stays: removing it would let two of them lock two files."""
        make_private(self.directory)
        handle = os.open(f"{self.folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def make_private(directory: Path) -> None:
    """Make a directory that only its owner may look into, if it is missing. Raises ZramError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _explain(error, directory) from error


_REMOVE = "`zramcore detach` finds what there is without it: remove the file"


def attachments(directory: Path) -> list[Record]:
    """All records that can be read, by name."""
    found = []
    for file in sorted(directory.glob("*/state.json")):
        with contextlib.suppress(ZramError):
            record = Place(directory, file.parent.name).load()
            if record is not None:
                found.append(record)
    return found


def place_of(directory: Path, name: str) -> Place:
    """The place of a name: a label, or the kernel's name of a device where just one record has that."""
    place = Place(directory, name)
    if not place.folder.exists():
        others = [record.name for record in attachments(directory) if record.device == name]
        if len(others) == 1:
            return Place(directory, others[0])
    return place


def _typed(key: str, value: Any) -> Any:
    return Process(*value) if key in ("server", "process") and value is not None else value


def _explain(error: OSError, path: Path) -> ZramError:
    hint = f"attaching needs root, or a place of your own in {VARIABLE}" if error.errno == errno.EACCES else ""
    return system_error(error, f"{path}: {error.strerror}", hint)
