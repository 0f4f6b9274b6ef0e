"""The loop that the patch describes: mark every page idle, wait, write back what nobody touched meanwhile, repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from zramcore.interfaces import Option, PolicyTarget, Tick, WritebackPolicy, can

from .ages import Sleep
from .figures import why_no_writeback
from .options import LIMIT, budget, read_duration, read_interval, reader_of_choice

AGE = Option("age", read_interval, 3 * 3600.0, "how long a page stays untouched before it is written back, e.g. 3h")
PERIOD = Option(
    "period",
    read_duration,
    0.0,
    "how often to look for pages older than age by their access time; 0 marks all pages and waits age",
)


class Idle(WritebackPolicy):
    """Mark, wait `age`, write back, repeat: it needs no access times, so it works on every kernel.

    With `period`, pages are marked by their own access time instead (``idle <seconds>``, which the kernel knows
    with CONFIG_ZRAM_TRACK_ENTRY_ACTIME): each page then waits `age` and not up to twice as long. A target without
    access times gets the loop all the same.
    """

    name = "idle"
    summary = "write back pages that nobody touched for a while"
    writes = ("idle", "writeback", "writeback_limit", "writeback_limit_enable")
    options: ClassVar[Sequence[Option]] = (
        AGE,
        PERIOD,
        Option(
            "mode",
            reader_of_choice(("idle", "huge_idle")),
            "idle",
            "which of them to write back: idle, or huge_idle (idle and incompressible)",
        ),
        LIMIT,
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        self._age = float(self.values["age"])
        self._period = float(self.values["period"])
        self._limit = budget(int(self.values["limit"]))
        self._marked_at: float | None = None
        self._sleep = Sleep()

    def kinds(self, target: PolicyTarget) -> tuple[str, ...]:
        """What to write to `writeback`, one after the other."""
        return (str(self.values["mode"]),)

    @property
    def what(self) -> str:
        """The pages that `kinds` names, in words."""
        return "idle pages" if self.values["mode"] == "idle" else "idle huge pages"

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        why = why_no_writeback(target)
        if why:
            self._marked_at = None
            return Tick((), self._period or self._age, why)
        writeback = (*self._limit, *(("writeback", kind) for kind in self.kinds(target)))
        self._sleep.note(self.machine, now, self._age)
        if self._period and can(target, "idle_age"):
            seconds = self._sleep.lengthen(self._age, now)
            return Tick(
                (("idle", str(seconds)), *writeback),
                self._period,
                f"writing back {self.what} untouched for {seconds} s",
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
            (*writeback, ("idle", "all")),
            self._age,
            f"writing back {self.what} untouched since the last round, then marking every page idle",
        )
