"""StateFile: what policies and daily budgets keep over a restart, in a small JSON file that is replaced as a whole.

Times in it are ages; the file says when it was written, by the wall clock, the only one that outlives a boot.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

VERSION = 1
_LARGEST = 16 << 20


class StateFile:
    """The file at `path`. Trouble with it is logged and stops nobody: without it a day begins anew."""

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        self.path = path
        self._wall = wall
        self._failed = False

    def load(self) -> tuple[dict[str, dict[str, Any]], float]:
        """What is kept, by owner, and the seconds since it was written; nothing and 0 when there is no usable file."""
        try:
            with open(self.path, encoding="utf-8") as file:
                document = json.loads(file.read(_LARGEST))
            kept, saved_at = document["kept"], float(document["saved_at"])
            if document["version"] != VERSION or not isinstance(kept, dict):
                raise ValueError(f"it is of version {document['version']}")
        except FileNotFoundError:
            return {}, 0.0
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("%s cannot be used, budgets begin anew: %s", self.path, error)
            return {}, 0.0
        return {key: value for key, value in kept.items() if isinstance(value, dict)}, self._wall() - saved_at

    def save(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the file, unless there is nothing to keep and none is there. Every reader sees all or nothing of it,
        also after a crash."""
        if not kept and not self.path.exists():
            return
        text = json.dumps({"version": VERSION, "saved_at": self._wall(), "kept": kept})
        try:
            self._replace(text)
        except OSError as error:
            if not self._failed:  # once is enough: this is called after every round
                log.warning("%s cannot be written, a restart would forget the day's writes: %s", self.path, error)
            self._failed = True
        else:
            self._failed = False

    def _replace(self, text: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def default_state_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where state goes: what systemd says (STATE_DIRECTORY), else XDG_STATE_HOME, else /var/lib or ~/.local/state."""
    if environment.get("STATE_DIRECTORY"):
        return Path(environment["STATE_DIRECTORY"].partition(":")[0])
    if environment.get("XDG_STATE_HOME"):
        return Path(environment["XDG_STATE_HOME"], "zramcore")
    return Path("/var/lib/zramcore") if os.geteuid() == 0 else Path.home() / ".local/state/zramcore"
