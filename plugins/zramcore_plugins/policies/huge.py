"""Write back huge pages: those that do not compress cost a whole page of memory each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from zramcore.interfaces import Option, PolicyTarget, Tick, WritebackPolicy

from .figures import why_no_writeback
from .options import LIMIT, budget, read_interval


class Huge(WritebackPolicy):
    """Every `period`, write back every huge page, idle or not."""

    name = "huge"
    summary = "write back pages that do not compress"
    writes = ("writeback", "writeback_limit", "writeback_limit_enable")
    options: ClassVar[Sequence[Option]] = (
        Option("period", read_interval, 3600.0, "how often to write huge pages back, e.g. 1h"),
        LIMIT,
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        limit = int(self.values["limit"])
        self._tick = Tick(
            (*budget(limit), ("writeback", "huge")), float(self.values["period"]), "writing back huge pages"
        )

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        why = why_no_writeback(target)
        return Tick((), self._tick.next_in, why) if why else self._tick
