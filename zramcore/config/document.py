"""Document: NAME.toml and its drop-ins (NAME.toml.d/*.toml) as one tree that remembers which file said what."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError

KeyPath = tuple[str, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def dotted(keys: KeyPath) -> str:
    """A key path as TOML writes it: ``device.zram0.disksize``, with quotes where TOML needs them."""
    parts = []
    for key in keys:
        if key.startswith("["):
            parts.append(key)
            continue
        parts.append(("." if parts else "") + (key if _BARE.fullmatch(key) else '"' + key.replace('"', '\\"') + '"'))
    return "".join(parts)


@dataclass
class Document:
    """The merged tree. `files` are those it was read from, in order; `path` is the first."""

    path: Path
    files: tuple[Path, ...]
    tree: dict[str, Any] = field(default_factory=dict)
    _origins: dict[KeyPath, Path] = field(default_factory=dict)

    def origin(self, keys: KeyPath) -> Path:
        """The file that has the last word on this key."""
        while keys:
            if keys in self._origins:
                return self._origins[keys]
            keys = keys[:-1]
        return self.path

    def merge(self, new: Mapping[str, Any], file: Path) -> None:
        """Lay `new` over the tree: tables merge key by key, everything else replaces.

        Raises ConfigError (EINVAL) where one of them has a table and the other has not.
        """
        self._merge(self.tree, new, file, ())

    def _merge(self, into: dict[str, Any], new: Mapping[str, Any], file: Path, prefix: KeyPath) -> None:
        for key, value in new.items():
            keys = (*prefix, key)
            is_table = isinstance(value, dict)
            if key in into and isinstance(into[key], dict) != is_table:
                kinds = ("a table", "a value") if is_table else ("a value", "a table")
                raise ConfigError(
                    f"is {kinds[0]} here and {kinds[1]} in {self.origin(keys)}", file=str(file), key=dotted(keys)
                )
            self._origins[keys] = file
            if is_table:
                self._merge(into.setdefault(key, {}), value, file, keys)
            else:
                into[key] = value


def drop_in_directory(path: Path) -> Path:
    """Where the drop-ins of `path` are: NAME.toml.d beside NAME.toml."""
    return path.with_name(path.name + ".d")


def read_document(path: Path) -> Document:
    """Read a file and its drop-ins, in the order of their names. Raises ConfigError (EINVAL)."""
    directory = drop_in_directory(path)
    try:
        drop_ins = sorted(entry for entry in directory.glob("*.toml") if entry.is_file())
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(directory)) from error
    document = Document(path, (path, *drop_ins))
    for file in document.files:
        document.merge(_read_toml(file), file)
    return document


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(file)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}", file=str(file)
        ) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}", file=str(file)) from error
