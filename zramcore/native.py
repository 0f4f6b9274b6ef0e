"""Whether compiled code may do the work. Without it the same results come from Python.

Every part that has a compiled form asks here when it is imported, and tells by a fact named `native` what it chose.
"""

from __future__ import annotations

import os

PURE_VARIABLE = "ZRAMCORE_PURE"


def pure() -> bool:
    """Whether the environment variable ZRAMCORE_PURE, set to anything but an empty text, forbids compiled code."""
    return bool(os.environ.get(PURE_VARIABLE))
