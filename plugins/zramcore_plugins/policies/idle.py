"""The loop that the patch describes: mark every page idle, wait, write back what nobody touched meanwhile, repeat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from zramcore.interfaces import Option, PolicyTarget, Tick, WritebackPolicy

from .options import LIMIT, budget, read_duration, read_interval

MODES = ("idle", "huge_idle")


def _mode(text: str) -> str:
    if text not in MODES:
        raise ValueError(f"not one of {', '.join(MODES)}")
    return text


class Idle(WritebackPolicy):
    """Mark, wait `age`, write back, repeat: it needs no access times, so it works on every kernel.

    With `period`, pages are marked by their own access time instead (``idle <seconds>``, which the kernel knows
    with CONFIG_ZRAM_TRACK_ENTRY_ACTIME): each page then waits `age` and not up to twice as long.
    """

    name = "idle"
    summary = "write back pages that nobody touched for a while"
    writes = ("idle", "writeback", "writeback_limit", "writeback_limit_enable")
    options: ClassVar[Sequence[Option]] = (
        Option("age", read_interval, 3 * 3600.0, "how long a page stays untouched before it is written back, e.g. 3h"),
        Option(
            "period",
            read_duration,
            0.0,
            "how often to look for pages older than age by their access time; 0 marks all pages and waits age",
        ),
        Option("mode", _mode, "idle", "which of them to write back: idle, or huge_idle (idle and incompressible)"),
        LIMIT,
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        self._age = float(self.values["age"])
        self._period = float(self.values["period"])
        mode, limit = str(self.values["mode"]), int(self.values["limit"])
        self._writeback = (*budget(limit), ("writeback", mode))
        self._what = "idle pages" if mode == "idle" else "idle huge pages"
        self._marked_at: float | None = None

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        if self._period:
            # ceil: a page must not go earlier than asked
            seconds = math.ceil(self._age)
            return Tick(
                (("idle", str(seconds)), *self._writeback),
                self._period,
                f"writing back {self._what} untouched for {seconds} s",
            )
        if self._marked_at is None:
            self._marked_at = now
            return Tick((("idle", "all"),), self._age, "marking every page idle")
        left = self._marked_at + self._age - now
        # the scheduler's sums of seconds may fall short of age by rounding
        if left > 1e-6 * max(1.0, abs(now)):
            return Tick((), left, "waiting for pages to stay idle")
        self._marked_at = now
        return Tick(
            (*self._writeback, ("idle", "all")),
            self._age,
            f"writing back {self._what} untouched since the last round, then marking every page idle",
        )
