"""The built-in allocators: `zsmalloc`, the kernel's, and `malloc`, the simple yardstick. The first is the default."""

from __future__ import annotations

from zramcore.hookspecs import hookimpl
from zramcore.interfaces import Allocator

from .malloc import Malloc
from .zsmalloc import Zsmalloc

__all__ = ["Malloc", "Zsmalloc", "zramcore_allocators"]


@hookimpl
def zramcore_allocators() -> list[type[Allocator]]:
    return [Zsmalloc, Malloc]
