"""The built-in compressors, one algorithm a file; this is the only place that names them all.

The order is the kernel's (zcomp's table); the first is a device's default.
"""

from __future__ import annotations

from collections.abc import Iterable

from zramcore.hookspecs import hookimpl
from zramcore.interfaces import Compressor

from .deflate import Deflate
from .lz4 import Lz4
from .lz4hc import Lz4hc
from .store import Store
from .zstd import Zstd

__all__ = ["Deflate", "Lz4", "Lz4hc", "Store", "Zstd", "zramcore_compressors"]


@hookimpl
def zramcore_compressors() -> Iterable[type[Compressor]]:
    """lz4, lz4hc, zstd, deflate, store."""
    return [Lz4, Lz4hc, Zstd, Deflate, Store]
