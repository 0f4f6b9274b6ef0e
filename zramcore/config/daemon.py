"""The `[daemon]` table: what `zramcore daemon` offers besides the devices. Other commands pass over it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import did_you_mean
from .paths import absolute_path

DAEMON_KEYS = ("nbd", "certificate", "key", "client_ca")


@dataclass(frozen=True)
class DaemonConfig:
    """Where NBD is served (``unix:PATH`` or ``tcp:HOST:PORT``, absolute paths), and the PEM files of its TLS."""

    nbd: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None


class Problem(NamedTuple):
    """What is wrong with a key of the table (with the table itself: None)."""

    key: str | None
    reason: str
    hint: str = ""


def read_daemon(table: object, base: Mapping[str, Path]) -> tuple[DaemonConfig, list[Problem]]:
    """The table in types, and what is wrong with it; `base`: the directory that each key's paths are relative to."""
    if not isinstance(table, dict):
        return DaemonConfig(), [Problem(None, "is not a table", "write [daemon]")]
    problems = list(_problems(table))
    if problems:
        return DaemonConfig(), problems
    specs = table.get("nbd", [])
    specs = specs if isinstance(specs, list) else [specs]
    files = {key: Path(absolute_path(table[key], base[key])) for key in DAEMON_KEYS[1:] if key in table}
    return DaemonConfig(tuple(absolute_listener(spec, base["nbd"]) for spec in specs), **files), []


def absolute_listener(spec: str, base: Path) -> str:
    """``unix:PATH`` with an absolute path; anything else as it is."""
    kind, colon, path = spec.partition(":")
    return f"unix:{absolute_path(path, base)}" if kind == "unix" and colon and path else spec


def _problems(table: Mapping[str, object]) -> Iterator[Problem]:
    for key, value in table.items():
        if key not in DAEMON_KEYS:
            yield Problem(key, "is not a key of the daemon", did_you_mean(key, DAEMON_KEYS))
            continue
        values = value if key == "nbd" and isinstance(value, list) else [value]
        if not all(isinstance(each, str) and each and "\0" not in each for each in values):
            yield Problem(key, "is not text", "write it in quotes")
        elif key == "nbd" and not all(str(each).startswith(("unix:", "tcp:")) for each in values):
            yield Problem(key, "is not where a server can listen", "unix:PATH or tcp:HOST:PORT")
    if "certificate" not in table:
        for key in ("key", "client_ca"):
            if key in table:
                yield Problem(key, "means nothing without certificate", "add the server's certificate, in PEM")
