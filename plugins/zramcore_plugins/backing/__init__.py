"""The built-in backing drivers: file, direct and mmap."""

from __future__ import annotations

from collections.abc import Iterable

from zramcore.hookspecs import hookimpl
from zramcore.interfaces import BackingDriver

from .direct import DirectDriver
from .file import FileDriver
from .mmap import MmapDriver

__all__ = ["DirectDriver", "FileDriver", "MmapDriver", "zramcore_backing_drivers"]


@hookimpl
def zramcore_backing_drivers() -> Iterable[type[BackingDriver]]:
    return [FileDriver, DirectDriver, MmapDriver]
