"""StateFile: what policies and daily budgets keep over a restart, in a small JSON file that is replaced as a whole.

Times in it are ages; each entry says when it was written, by the wall clock, the only one that outlives a boot.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

VERSION = 1
KEPT_SECONDS = 30 * 86400.0
"""How long an entry stays that nobody renews: its device is gone."""
_LARGEST = 16 << 20


class StateFile:
    """The file at `path`, read once. Trouble with it is logged and stops nobody: without it a day begins anew.

    Thread-safe: the schedulers of several devices may share it.
    """

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        self.path = path
        self._wall = wall
        self._failed = False
        self._lock = threading.Lock()
        self._entries = {owner: entry for owner, entry in self._load().items() if wall() - entry[0] < KEPT_SECONDS}

    def kept(self, owner: str) -> tuple[dict[str, Any], float] | None:
        """What `owner` kept last, and how many seconds ago."""
        with self._lock:
            entry = self._entries.get(owner)
            return None if entry is None else (entry[1], self._wall() - entry[0])

    def save(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep these, by owner, beside what others keep. Every reader of the file sees all or nothing, also after a
        crash. Nothing to keep touches no file."""
        if not states:
            return
        with self._lock:
            now = self._wall()
            self._entries.update({owner: (now, dict(state)) for owner, state in states.items()})
            kept = {owner: {"at": at, "state": state} for owner, (at, state) in self._entries.items()}
            try:
                self._replace(json.dumps({"version": VERSION, "kept": kept}))
            except (OSError, TypeError, ValueError) as error:
                if not self._failed:  # once is enough: this is called after every round
                    log.warning("%s cannot be written, a restart would forget the day's writes: %s", self.path, error)
                self._failed = True
            else:
                self._failed = False

    def _load(self) -> dict[str, tuple[float, dict[str, Any]]]:
        try:
            with open(self.path, encoding="utf-8") as file:
                document = json.loads(file.read(_LARGEST))
            if document["version"] != VERSION:
                raise ValueError(f"it is of version {document['version']}")
            return {
                owner: (float(entry["at"]), entry["state"])
                for owner, entry in document["kept"].items()
                if isinstance(entry["state"], dict)
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("%s cannot be used, budgets begin anew: %s", self.path, error)
            return {}

    def _replace(self, text: str) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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


def default_state_file(deployment: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the state of a deployment goes, told from others by its path (of a daemon without one, its socket's)."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", deployment.stem)
    return default_state_directory(environment) / f"{name}-{zlib.crc32(os.fsencode(deployment.resolve())):08x}.json"


def default_state_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where state goes: what systemd says (STATE_DIRECTORY), else XDG_STATE_HOME, else /var/lib or ~/.local/state."""
    if environment.get("STATE_DIRECTORY"):
        return Path(environment["STATE_DIRECTORY"].partition(":")[0])
    if environment.get("XDG_STATE_HOME"):
        return Path(environment["XDG_STATE_HOME"], "zramcore")
    return Path("/var/lib/zramcore") if os.geteuid() == 0 else Path.home() / ".local/state/zramcore"
