"""The C functions of the lz4 package's own library, as addresses: for the compiled batch path."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import lz4

from zramcore.interfaces import NativeCodec

from . import c_library

FUNCTIONS = (
    "LZ4_versionString",
    "LZ4_compress_fast_extState",
    "LZ4_sizeofState",
    "LZ4_compress_HC_extStateHC",
    "LZ4_sizeofStateHC",
    "LZ4_decompress_safe",
)


def _has_version(library: ctypes.CDLL) -> bool:
    tell = library.LZ4_versionString
    tell.restype = ctypes.c_char_p
    return bool(tell().decode() == lz4.library_version_string())


@cache
def find_library() -> ctypes.CDLL | None:
    """Where the functions are; None when they are not to be had."""
    return c_library.find_library("lz4.block._block", "liblz4.so.1", FUNCTIONS, _has_version)


def compress_function(codec: NativeCodec) -> Callable[..., int]:
    """`codec.compress` to be called from Python, `state` and `out` as addresses; it gives up the GIL."""
    prototype = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int
    )
    return prototype(codec.compress)


def most_bytes(page_size: int) -> int:
    """LZ4_COMPRESSBOUND: the longest that a block of `page_size` bytes can become."""
    return page_size + page_size // 255 + 16


def block_codec(compress: str, state_size: str, level: int, page_size: int, *, quick: bool) -> NativeCodec | None:
    """A codec of the named functions; None when the library is not to be had."""
    library = find_library()
    if library is None:
        return None
    address = c_library.addresses(library, FUNCTIONS)
    return NativeCodec(
        compress=address[compress],
        decompress=address["LZ4_decompress_safe"],
        most_bytes=most_bytes(page_size),
        state_size=int(getattr(library, state_size)()),
        level=level,
        quick=quick,
        library=library,
    )
