"""Whether compiled code may do the work. Without it the same results come from Python.

Every part that has a compiled form asks here when it is imported, and tells by a fact named `native` what it chose.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

PURE_VARIABLE = "ZRAMCORE_PURE"


def pure() -> bool:
    """Whether the environment variable ZRAMCORE_PURE, set to anything but an empty text, forbids compiled code."""
    return bool(os.environ.get(PURE_VARIABLE))


def load_batch() -> Any:
    """The extension `_batch`; None when it was not built, or compiled code is forbidden."""
    try:
        return None if pure() else import_module("zramcore._batch")
    except ImportError:
        return None
