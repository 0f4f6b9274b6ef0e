"""zsmalloc: the kernel's allocator for compressed pages, with Linux 7.3.4's page counts after any sequence of calls.

It has two forms that decide alike: compiled (native_pool.py), and Python (pure_pool.py) where the extension was not
built or ZRAMCORE_PURE is set.
"""

from __future__ import annotations

from zramcore.native import pure

from .pool import Pool
from .pure_pool import PurePool


def fastest_pool() -> type[Pool]:
    """The compiled pool where it may be used and can be loaded, else the one in Python."""
    if pure():
        return PurePool
    try:
        from .native_pool import NativePool
    except ImportError:
        return PurePool
    return NativePool


Zsmalloc = fastest_pool()
