"""Tiers: pages are stored with the fast primary algorithm, idle ones get a denser one, the rest may be written back.

mmd's recompression (ZRAM.md 3.1): every hour, pages of 2 to 4 hours by free memory, in the order huge_idle, idle, huge,
keeping only what becomes smaller than `threshold`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from zramcore.errors import InvalidValue
from zramcore.interfaces import Option, PolicyTarget, Tick, WritebackPolicy, can

from .adaptive import idle_age
from .ages import Sleep
from .figures import hours, text, why_no_writeback
from .options import MODES, read_count, read_duration, read_interval, read_pages, reader_of_choice

AFTERWARDS = ("nothing", "huge_idle", "incompressible", "idle")


class Recompress(WritebackPolicy):
    """Every `period`, recompress pages that are idle for `min_age` to `max_age`, the less memory is free the younger,
    with each secondary algorithm: priority 1 from that age on, each further one from twice the age of the one before.
    `then` writes back what is older than `then_age`.

    The kernel forgets the access time of a page that became smaller, and counts it as old as the machine (measured). So
    a round begins with what comes last for a page, and no page goes two steps in one round; and ``then = "idle"`` takes
    recompressed pages in the round after, whatever their age. The other kinds are those that stayed large.
    """

    name = "recompress"
    summary = "recompress idle pages, tier after tier, then write back what stays large"
    writes: ClassVar[Sequence[str]] = ("idle", "recompress", "writeback")
    options: ClassVar[Sequence[Option]] = (
        Option("period", read_interval, 3600.0, "time between rounds"),
        Option("backoff", read_duration, 1800.0, "shortest time between rounds, however often it is asked"),
        Option("min_age", read_duration, 2 * 3600.0, "age of pages to recompress when no memory is free"),
        Option("max_age", read_duration, 4 * 3600.0, "age of pages to recompress when all memory is free"),
        Option(
            "threshold",
            read_pages,
            1024,
            "bytes: smaller objects are left, and so are results of the last priority that are not smaller",
        ),
        Option("modes", MODES, "huge_idle,idle,huge", "kinds of pages in order, of huge_idle, idle and huge"),
        Option("max_pages", read_pages, 0, "pages to try in each write at most; 0: no limit"),
        Option("priority", read_count, 3, "the last priority to use, 1 to 3"),
        Option("then", reader_of_choice(AFTERWARDS), "nothing", f"what to write back after: {', '.join(AFTERWARDS)}"),
        Option("then_age", read_interval, 24 * 3600.0, "age of pages to write back after"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        values = self.values
        self._period, self._backoff = float(values["period"]), float(values["backoff"])
        self._min_age, self._max_age = float(values["min_age"]), float(values["max_age"])
        if self._min_age > self._max_age:
            raise InvalidValue("policy recompress: min_age is over max_age")
        self._then, self._then_age = str(values["then"]), float(values["then_age"])
        self._sleep = Sleep()
        self._last_round: float | None = None
        self._marked_at: float | None = None
        if self._then == "nothing":
            self.writes = ("idle", "recompress")  # type: ignore[misc]  # fewer than the class: needs no backing_dev

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        self._sleep.note(self.machine, now, max(self._max_age * 4, self._then_age))
        if not can(target, "recompress"):
            return Tick((), self._period, f"{target.name} has no recompression on this kernel")
        priorities = [one for one in _priorities(target) if one <= int(self.values["priority"])]
        if not priorities:
            return Tick((), self._period, f"{target.name} has no secondary algorithm")
        early = 0.0 if self._last_round is None else self._last_round + self._backoff - now
        if early > 1e-6 * max(1.0, abs(now)):
            return Tick((), early, f"backing off, next round in {hours(early)}")
        if not can(target, "idle_age"):
            return self._by_mark(target, now, priorities)
        self._last_round = now
        age = idle_age(self._min_age, self._max_age, self.machine)
        writes = self._afterwards(target, now)
        for step, priority in reversed(list(enumerate(priorities))):
            writes.append(("idle", str(self._sleep.lengthen(age * 2**step, now))))
            writes += self._passes(priority, last=priority == priorities[-1])
        return Tick(tuple(writes), self._period, f"recompressing with {_named(priorities)} from age {hours(age)}")

    def _by_mark(self, target: PolicyTarget, now: float, priorities: list[int]) -> Tick:
        """Without access times: what was marked `max_age` ago and is still idle."""
        wait = self._max_age or 1.0
        if self._marked_at is None:
            self._marked_at = now
            return Tick((("idle", "all"),), wait, "marking every page idle")
        left = self._marked_at + wait - now
        if left > 1e-6 * max(1.0, abs(now)):
            return Tick((), left, f"pages stay marked for {hours(left)} more")
        self._marked_at = self._last_round = now
        writes = [("writeback", self._then)] if self._writes_back(target) else []
        writes += [
            write
            for priority in reversed(priorities)
            for write in self._passes(priority, last=priority == priorities[-1])
        ]
        words = f"recompressing with {_named(priorities)} what was untouched for {hours(wait)}"
        return Tick((*writes, ("idle", "all")), max(wait, self._backoff), words)

    def _passes(self, priority: int, *, last: bool) -> list[tuple[str, str]]:
        # what misses a threshold is never tried again (measured), so only the last algorithm may have one
        threshold, pages = int(self.values["threshold"]) if last else 0, int(self.values["max_pages"])
        rest = f" priority={priority}" + (f" threshold={threshold}" if threshold else "")
        rest += f" max_pages={pages}" if pages else ""
        return [("recompress", f"type={mode}{rest}") for mode in str(self.values["modes"]).split(",")]

    def _afterwards(self, target: PolicyTarget, now: float) -> list[tuple[str, str]]:
        if not self._writes_back(target):
            return []
        age = self._sleep.lengthen(self._then_age, now)
        return [("idle", str(age)), ("writeback", self._then)]

    def _writes_back(self, target: PolicyTarget) -> bool:
        return self._then != "nothing" and not why_no_writeback(target)


def _priorities(target: PolicyTarget) -> list[int]:
    """The secondary priorities that have an algorithm, by recomp_algorithm's lines: ``#1: lz4 [zstd]``."""
    lines = text(target, "recomp_algorithm") or ""
    return [int(number) for number in re.findall(r"^#([1-3]):.*\[", lines, re.MULTILINE)]


def _named(priorities: Sequence[int]) -> str:
    return "priority " + " and ".join(map(str, priorities))
