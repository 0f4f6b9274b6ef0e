"""The C functions of the lz4 package's own library, as addresses: for the compiled batch path.

PyPI's package has the library inside its extension, which exports its functions; a distribution's package is linked
with the system's liblz4.so.1, where a look-up through the extension finds it too. Only when neither tells is the
system's asked for by name, and taken when it has the version of the package's: all paths must give the same bytes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import lz4

from zramcore.interfaces import NativeCodec

SYSTEM_LIBRARY = "liblz4.so.1"
FUNCTIONS = (
    "LZ4_compress_fast_extState",
    "LZ4_sizeofState",
    "LZ4_compress_HC_extStateHC",
    "LZ4_sizeofStateHC",
    "LZ4_decompress_safe",
)


def usable(path: str) -> ctypes.CDLL | None:
    """The library at `path` when it has the functions, in the lz4 package's version; else None."""
    try:
        library = ctypes.CDLL(path)
        version = library.LZ4_versionString
        version.restype = ctypes.c_char_p
        same = version().decode() == lz4.library_version_string()
        return library if same and all(hasattr(library, name) for name in FUNCTIONS) else None
    except (OSError, AttributeError):
        return None


@cache
def find_library() -> ctypes.CDLL | None:
    """Where the functions are; None when they are not to be had."""
    extension = find_spec("lz4.block._block")
    paths = [extension.origin] if extension is not None and extension.origin else []
    return next(filter(None, map(usable, [*paths, SYSTEM_LIBRARY])), None)


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
    address = {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in FUNCTIONS}
    return NativeCodec(
        compress=address[compress],
        decompress=address["LZ4_decompress_safe"],
        most_bytes=most_bytes(page_size),
        state_size=int(getattr(library, state_size)()),
        level=level,
        quick=quick,
        library=library,
    )
