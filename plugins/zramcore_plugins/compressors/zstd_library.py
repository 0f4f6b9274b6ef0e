"""The C functions of the zstandard package's own library, for the compiled batch path.

The package's C backend keeps its functions to itself; its CFFI backend, in the same wheel, exports those of the same
library. They have another form than the batch path's, so a small extension stands between the two (_zstd_codec.c).
"""

from __future__ import annotations

import ctypes
from functools import cache

import zstandard

from zramcore.interfaces import NativeCodec
from zramcore.native import pure

from . import c_library

FUNCTIONS = (
    "ZSTD_createCCtx",
    "ZSTD_freeCCtx",
    "ZSTD_createDCtx",
    "ZSTD_freeDCtx",
    "ZSTD_compressCCtx",
    "ZSTD_decompressDCtx",
    "ZSTD_getFrameContentSize",
    "ZSTD_findFrameCompressedSize",
)
"""In the order that `bind` takes them."""


def _has_version(library: ctypes.CDLL) -> bool:
    major, minor, patch = zstandard.ZSTD_VERSION
    return bool(library.ZSTD_versionNumber() == major * 10000 + minor * 100 + patch)


@cache
def find_functions() -> tuple[int, int, ctypes.CDLL] | None:
    """Addresses of compress and decompress, and the library behind them; None when they are not to be had."""
    try:
        from . import _zstd_codec
    except ImportError:  # it was not built
        return None
    library = c_library.find_library(
        "zstandard._cffi", "libzstd.so.1", [*FUNCTIONS, "ZSTD_versionNumber"], _has_version
    )
    if library is None:
        return None
    return *_zstd_codec.bind(*c_library.addresses(library, FUNCTIONS).values()), library


def most_bytes(page_size: int) -> int:
    """ZSTD_COMPRESSBOUND: the longest that a frame of `page_size` bytes can become."""
    return page_size + (page_size >> 8) + (((128 << 10) - page_size) >> 11 if page_size < 128 << 10 else 0)


def codec(level: int, page_size: int) -> NativeCodec | None:
    """The codec at a level, without a dictionary; None when there are no functions."""
    found = None if pure() else find_functions()
    if found is None:
        return None
    compress, decompress, library = found
    return NativeCodec(compress, decompress, most_bytes(page_size), level=level, library=library)
