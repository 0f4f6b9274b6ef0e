"""mmd's and ChromeOS's controller: the less memory is free, the younger the pages that go; in rounds, under budgets.

The formulas are those of ZRAM.md 3.1. Two things are done otherwise, because they are bugs there: what is left of a day
cannot fall below zero and wrap around (ChromeOS), and each device's own writes count, not a sum over devices that is
counted again for each (mmd).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from zramcore.errors import InvalidValue
from zramcore.interfaces import Option, PolicyTarget, Tick, WritebackPolicy, can
from zramcore.machine import Machine
from zramcore.write_history import WriteHistory

from .ages import MAX_AGE, Sleep
from .figures import UNIT, column, free_memory, hours, mebibytes, pages_written, why_no_writeback
from .options import MODES, read_duration, read_interval, read_size, reader_of_choice
from .presets import PRESETS

_AS_PRESET = "; without it the preset's"
_FACTOR = 10000
"""The formula's fixed point, kept so that rounds are the peers' to the page."""


def idle_age(min_age: float, max_age: float, machine: Machine) -> float:
    """(max - min) * e^(-5u) + min seconds, where u = 1 - MemAvailable / MemTotal: the age above which a page is idle.

    The oldest age where memory is not known, as in ChromeOS (mmd gives up there).
    """
    free = free_memory(machine)
    if free is None:
        return max_age
    return (max_age - min_age) * math.exp(-5.0 * (1.0 - free)) + min_age


def round_pages(original: int, disksize: int, max_pages: int) -> int:
    """The part of `max_pages` that is as large as the part of the device that is in use (bytes of each)."""
    disk_pages = disksize // UNIT
    if not disk_pages:
        return max_pages
    return (original // UNIT * _FACTOR // disk_pages) * max_pages // _FACTOR


class Adaptive(WritebackPolicy):
    """Every `period` a round: mark pages older than an age between `min_age` and `max_age`, by how much memory is free,
    and write them back, in the order of `modes`, within a budget.

    A target without access times gets mmd's way around: mark all, wait `min_age`, write back until nothing marked is
    left, mark all again. `android-classic` always works so.
    """

    name = "adaptive"
    summary = "write back by age, the younger the less memory is free, within budgets (mmd, ChromeOS)"
    writes = ("idle", "writeback")
    options: ClassVar[Sequence[Option]] = (
        Option("preset", reader_of_choice(tuple(PRESETS)), "mmd", f"whose figures to use: {', '.join(PRESETS)}"),
        Option("first", read_duration, "", "wait before the first round" + _AS_PRESET),
        Option("period", read_interval, "", "time between rounds" + _AS_PRESET),
        Option("backoff", read_duration, "", "shortest time between rounds, however often it is asked" + _AS_PRESET),
        Option("min_age", read_duration, "", "age of pages to write back when no memory is free" + _AS_PRESET),
        Option("max_age", read_duration, "", "age of pages to write back when all memory is free" + _AS_PRESET),
        Option("min_round", read_size, "", "a round that may write less than this is left out" + _AS_PRESET),
        Option("max_round", read_size, "", "a round writes this at most, 0: no limit" + _AS_PRESET),
        Option("per_day", read_size, "", "all of 24 hours write this at most, 0: no limit" + _AS_PRESET),
        Option("modes", MODES, "", "kinds of pages in order, of huge_idle, idle and huge" + _AS_PRESET),
        Option("backing_size", read_size, 0, "size of the backing device, to plan with its free blocks; 0: not known"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        preset = PRESETS[str(self.values["preset"])]

        def of(name: str) -> Any:
            return getattr(preset, name) if self.values[name] == "" else self.values[name]

        self._first, self._period, self._backoff = float(of("first")), float(of("period")), float(of("backoff"))
        self.min_age, self.max_age = float(of("min_age")), float(of("max_age"))
        if self.min_age > self.max_age:
            raise InvalidValue(
                f"policy adaptive: min_age ({hours(self.min_age)}) is over max_age ({hours(self.max_age)})"
            )
        self._min_round, self._max_round = (int(of(name)) // UNIT for name in ("min_round", "max_round"))
        if self._max_round and self._min_round > self._max_round:
            raise InvalidValue("policy adaptive: min_round is over max_round: no round would be large enough")
        self.per_day = int(of("per_day")) // UNIT
        self._modes = [mode for mode in str(of("modes")).split(",") if mode]
        self._mark_delay = preset.mark_delay
        self._blocks = int(self.values["backing_size"]) // UNIT
        self.history = WriteHistory()
        self._sleep = Sleep()
        self._started: float | None = None
        self._last_round: float | None = None
        self._seen: int | None = None
        self._granted: int | None = None
        self._drained = True
        self._marked = False
        self._mark_due = 0.0

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        self._granted = None
        self._account(target, now)
        self._sleep.note(self.machine, now, self.max_age)
        if self._started is None:
            self._started = now
            self._mark_due = now + (self._mark_delay or 0.0)
        why = why_no_writeback(target)
        if why:
            return Tick((), self._period, why)
        if self._mark_delay is not None or not can(target, "idle_age"):
            return self._by_mark(target, now)
        for at, words in self._waits():
            if _later(at, now):
                return Tick((), at - now, f"{words} in {hours(at - now)}")
        age = idle_age(self.min_age, self.max_age, self.machine)
        seconds = self._sleep.lengthen(age, now)
        return self._round(target, now, (("idle", str(seconds)),), f"age {hours(age)}")

    def settle(self, target: PolicyTarget, now: float) -> None:
        if self._granted is None:
            return
        written = self._account(target, now)
        self._drained = written < self._granted

    def state(self, now: float) -> Mapping[str, Any]:
        return {"written": self.history.rows(now), "seen": self._seen}

    def restore(self, state: Mapping[str, Any], now: float, elapsed: float) -> None:
        self.history.take(state.get("written"), now, elapsed)
        seen = state.get("seen")
        self._seen = seen if isinstance(seen, int) and seen >= 0 else None

    # Rounds -----------------------------------------------------------------------------------------------------------

    def _waits(self) -> list[tuple[float, str]]:
        waits = [((self._started or 0.0) + self._first, "first round")]
        if self._last_round is not None:
            waits.append((self._last_round + self._backoff, "backing off, next round"))
        return waits

    def _round(
        self, target: PolicyTarget, now: float, marks: tuple[tuple[str, str], ...], words: str, *after: tuple[str, str]
    ) -> Tick:
        pages, why = self._budget(target, now)
        if why:
            return Tick((), self._period, f"{words}, no round: {why}")
        self._last_round = now
        self._granted = MAX_AGE if pages is None else pages
        limit = "no budget" if pages is None else f"budget {mebibytes(pages)}"
        writebacks = [("writeback", mode) for mode in self._modes]
        return Tick((*marks, *writebacks, *after), self._period, f"{words}, {limit}", pages)

    def _budget(self, target: PolicyTarget, now: float) -> tuple[int | None, str]:
        """Pages that the round may write (None: any number), or why there is no round."""
        pages: int | None = None
        if self._max_round:
            pages = self._max_round
            original, disksize = column(target, "mm_stat", 0), column(target, "disksize", 0)
            if original is not None and disksize:
                pages = round_pages(original, disksize, self._max_round)
            free = self._free_blocks(target)
            if free is not None:
                pages = min(pages, free)
            if pages < self._min_round or not pages:
                return 0, f"{mebibytes(pages)} is less than a round of {mebibytes(self._min_round)}"
            pages = min(pages, self._max_round)
        if self.per_day:
            left = self.history.left(self.per_day, now)
            if not left:
                wait = hours(self.history.room_in(self.per_day, 1, now))
                return 0, f"the day's {mebibytes(self.per_day)} are written, room again in {wait}"
            pages = left if pages is None else min(pages, left)
        return pages, ""

    def _free_blocks(self, target: PolicyTarget) -> int | None:
        used = column(target, "bd_stat", 0)
        return None if not self._blocks or used is None else max(0, self._blocks - used)

    def _account(self, target: PolicyTarget, now: float) -> int:
        """Pages written to this target's backing device since the last look, whoever wrote them: they wear it all."""
        total = pages_written(target)
        if total is None:
            return 0
        before, self._seen = self._seen, total
        if before is None:
            return 0
        written = total - before if total >= before else total  # less than before: it was reset
        self.history.record(written, now)
        return written

    # Without access times ---------------------------------------------------------------------------------------------

    def _by_mark(self, target: PolicyTarget, now: float) -> Tick:
        """Mark all, wait, write back what is still idle until none is left, mark all again."""
        if not self._marked:
            if _later(self._mark_due, now):
                wait = self._mark_due - now
                return Tick((), wait, f"marking every page idle in {hours(wait)}")
            self._marked = True
            self._mark_due = self._first_wait(now)
            wait = self._mark_due - now
            return Tick((("idle", "all"),), wait, f"marking every page idle, next round in {hours(wait)}")
        if _later(self._mark_due, now):
            return Tick((), self._mark_due - now, f"pages stay marked for {hours(self._mark_due - now)} more")
        if self._mark_delay is not None:  # it has no budget, so what is marked is written in one round
            self._mark_due = now + self._period
            return self._round(target, now, (), f"untouched for {hours(self._period)}", ("idle", "all"))
        if self._last_round is not None and self._drained:
            self._last_round = None
            self._mark_due = now + self._between
            return Tick((("idle", "all"),), self._between, "nothing marked is left, marking every page idle")
        return self._round(target, now, (), f"untouched for {hours(self.min_age)}, without access times")

    def _first_wait(self, now: float) -> float:
        if self._mark_delay is None:
            return now + self._between
        return max(now + 1.0, (self._started or 0.0) + self._first)

    @property
    def _between(self) -> float:
        return max(self.min_age, 1.0)


def _later(at: float, now: float) -> bool:
    """Whether `at` is still to come: a scheduler's sums of seconds may fall short of it by rounding."""
    return at - now > 1e-6 * max(1.0, abs(now))
