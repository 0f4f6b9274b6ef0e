"""Whether compiled code may do the work. Without it the same results come from Python.

Every part that has a compiled form asks here when it is imported, and tells by a fact named `native` what it chose.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .interfaces import Catalogue, CompressorParams

PURE_VARIABLE = "ZRAMCORE_PURE"


def pure() -> bool:
    """Whether the environment variable ZRAMCORE_PURE, set to anything but an empty text, forbids compiled code."""
    return bool(os.environ.get(PURE_VARIABLE))


BATCH_CALLS = 2
"""Version of what `_batch` offers; raised, in _batch.h too, whenever its calls change."""


def load_batch() -> Any:
    """The extension `_batch`; None when it was not built, was built from other sources, or is forbidden."""
    if pure():
        return None
    try:
        batch = import_module("zramcore._batch")
    except ImportError:
        return None
    # An editable install keeps what was compiled for an older checkout until it is repeated.
    return batch if getattr(batch, "CALLS", None) == BATCH_CALLS else None


@dataclass(frozen=True)
class NativeReport:
    """What the compiled data path can be made of: a compressor and an allocator of these names.

    `reason` says why it cannot be at all; it is empty when it can.
    """

    reason: str
    compressors: tuple[str, ...]
    allocators: tuple[str, ...]

    def __str__(self) -> str:
        if self.reason:
            return f"data path: in Python, for {self.reason}"
        if not self.compressors or not self.allocators:
            return "data path: in Python, for no compressor and allocator have what the compiled one needs"
        both = " and ".join(", ".join(names) for names in (self.compressors, self.allocators))
        return f"data path: compiled with {both}, else in Python"


def report(catalogue: Catalogue) -> NativeReport:
    """Which plugins the compiled data path works with, and why there is none if so."""
    reason = ""
    if pure():
        reason = f"{PURE_VARIABLE} is set"
    elif load_batch() is None:
        reason = "the extension is missing or old: install a C compiler and Python's headers, then zramcore again"
    return NativeReport(
        reason,
        tuple(name for name, kind in catalogue.compressors.items() if _has_codec(kind)),
        tuple(name for name, kind in catalogue.allocators.items() if kind.store_packed and kind.replace_one),
    )


def _has_codec(kind: Any) -> bool:
    try:
        return kind(CompressorParams()).native_codec() is not None
    except Exception:  # a plugin that does not work has no codec either
        return False
