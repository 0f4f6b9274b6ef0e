"""The built-in policies: idle, huge, idle_or_huge, adaptive, pressure, coldness, watermark, recompress and none."""

from __future__ import annotations

from collections.abc import Iterable

from zramcore.hookspecs import hookimpl
from zramcore.interfaces import WritebackPolicy

from .adaptive import Adaptive
from .coldness import Coldness
from .huge import Huge
from .idle import Idle
from .idle_or_huge import IdleOrHuge
from .nothing import Nothing
from .pressure import Pressure
from .recompress import Recompress
from .watermark import Watermark

__all__ = [
    "Adaptive",
    "Coldness",
    "Huge",
    "Idle",
    "IdleOrHuge",
    "Nothing",
    "Pressure",
    "Recompress",
    "Watermark",
    "zramcore_policies",
]


@hookimpl
def zramcore_policies() -> Iterable[type[WritebackPolicy]]:
    return [Idle, Huge, IdleOrHuge, Adaptive, Pressure, Coldness, Watermark, Recompress, Nothing]
