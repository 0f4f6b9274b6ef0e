"""What was set up of the kernel's zram, by label: such a device outlives the process that made it.

After a crash the next start finds it again, with what is swapped out to it, and does not make a second one over the
same backing file. A lock that ends with its process keeps two processes from one label.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .backing_spec import system_error
from .errors import DeviceBusy

VERSION = 1


@dataclass(frozen=True)
class Found:
    """What an earlier process set up: the device, whether it had to be added, and the writes; `complete`: all of them
    were made."""

    device: str
    added: bool
    writes: tuple[tuple[str, str], ...]
    complete: bool


class KernelRecord:
    """The record of a label, held until `close` or the end of the process."""

    def __init__(self, directory: Path, label: str) -> None:
        """Raises DeviceBusy (EBUSY) while another process holds it, ZramError when it cannot be made."""
        self._file = directory / f"{label}.json"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory / f"{label}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise system_error(
                error, f"{directory}: {error.strerror}", "setting up the kernel's zram needs root"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise DeviceBusy(
                f"another process has a device of the kernel's zram under the label {label}",
                hint="choose another label",
            ) from None

    def load(self) -> Found | None:
        """What an earlier process left; None when it left nothing, or nothing that can be read."""
        try:
            found = json.loads(self._file.read_text())
            writes = tuple((str(attribute), str(value)) for attribute, value in found["writes"])
            if found["version"] == VERSION:
                return Found(str(found["device"]), bool(found["added"]), writes, bool(found["complete"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def save(self, device: str, added: bool, writes: Sequence[tuple[str, str]], complete: bool) -> None:
        """Replace the record. Raises ZramError."""
        found = {"version": VERSION, "device": device, "added": added, "writes": list(writes), "complete": complete}
        new = self._file.with_suffix(".new")
        try:
            new.write_text(json.dumps(found))
            new.replace(self._file)
        except OSError as error:
            raise system_error(error, f"{self._file}: {error.strerror}") from error

    def forget(self) -> None:
        """The device is gone."""
        with suppress(OSError):
            self._file.unlink()

    def close(self) -> None:
        """Let others have the label; twice does no harm. The lock's file stays: to remove it would let two of them lock
        two files."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
