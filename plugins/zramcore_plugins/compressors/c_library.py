"""Finding the C library inside a Python package, for compressors that hand their functions over.

PyPI's packages have the library inside an extension, which exports its functions; a distribution's package is linked
with the system's library, where a look-up through the extension finds it too. Only when neither tells is the system's
asked for by name. Whatever is found must have the version of the package's: all paths must give the same bytes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from importlib.util import find_spec


def find_library(
    extension: str, system: str, functions: Sequence[str], has_version: Callable[[ctypes.CDLL], bool]
) -> ctypes.CDLL | None:
    """The library with all `functions`, of the right version, or None: in the file of the module `extension`, or by
    the name that the `system` has it under."""
    try:
        found = find_spec(extension)
    except ModuleNotFoundError:
        found = None
    paths = [found.origin] if found is not None and found.origin else []
    return next(filter(None, (_usable(path, functions, has_version) for path in [*paths, system])), None)


def _usable(path: str, functions: Sequence[str], has_version: Callable[[ctypes.CDLL], bool]) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(path)
        return library if all(hasattr(library, name) for name in functions) and has_version(library) else None
    except OSError:
        return None


def addresses(library: ctypes.CDLL, functions: Sequence[str]) -> dict[str, int]:
    """Where the functions are."""
    return {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in functions}
