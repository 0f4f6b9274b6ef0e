"""Pages that are idle or do not compress: the union that the patch of 2018 had as mode 3, and no kernel since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from zramcore.interfaces import Option, PolicyTarget, can

from .idle import AGE, PERIOD, Idle
from .options import LIMIT


class IdleOrHuge(Idle):
    """The idle policy, for idle pages and for huge ones, idle or not; on the kernel's zram it takes two writes."""

    name = "idle_or_huge"
    summary = "write back pages that nobody touched for a while, and all that do not compress"
    options: ClassVar[Sequence[Option]] = (AGE, PERIOD, LIMIT)

    def kinds(self, target: PolicyTarget) -> tuple[str, ...]:
        return ("idle_or_huge",) if can(target, "idle_or_huge") else ("huge", "idle")

    @property
    def what(self) -> str:
        return "huge pages, and pages"
