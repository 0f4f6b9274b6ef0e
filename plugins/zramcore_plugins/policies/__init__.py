"""The built-in policies: idle, huge and none."""

from __future__ import annotations

from collections.abc import Iterable

from zramcore.hookspecs import hookimpl
from zramcore.interfaces import WritebackPolicy

from .huge import Huge
from .idle import Idle
from .nothing import Nothing

__all__ = ["Huge", "Idle", "Nothing", "zramcore_policies"]


@hookimpl
def zramcore_policies() -> Iterable[type[WritebackPolicy]]:
    return [Idle, Huge, Nothing]
