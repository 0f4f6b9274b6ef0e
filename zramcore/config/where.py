"""Where: the place in a deployment that said something."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True)
class Where:
    """The file and the dotted key path that said something."""

    file: str
    key: str

    def error(self, reason: str, *, hint: str = "", index: int | None = None) -> ConfigError:
        """A ConfigError about it (about one element of its list, with `index`)."""
        key = self.key if index is None else f"{self.key}[{index}]"
        return ConfigError(reason, file=self.file, key=key, hint=hint)

    def child(self, key: str) -> Where:
        """The same for a key below it."""
        return Where(self.file, f"{self.key}.{key}")
