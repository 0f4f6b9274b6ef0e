"""Probe until it hurts, then back off: pages go a little at a time while stalls stay under a target (senpai, TMO).

The stall is what the kernel measures as pressure (PSI): the time tasks waited for memory, and so for pages that were
written back too early. Law and constants are those of ZRAM.md 3.1, "Other cold-memory controllers".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from zramcore.interfaces import Option, PolicyTarget, Tick, WritebackPolicy, can

from .ages import Sleep, read_ages
from .figures import UNIT, hours, mebibytes, memory, stall, why_no_writeback
from .options import MODES, read_count, read_duration, read_fraction, read_interval, reader_of_choice

# senpai.py: 10,000 us of stall in an interval of 6 s; probe at most 1 %, back off at most fully; divisors 10 and 20
PROBE_DIVISOR, PROBE_MOST = 10.0, 0.01
BACKOFF_DIVISOR, BACKOFF_MOST = 20.0, 1.0
# TMO: reclaim = current * 0.0005 * max(0, 1 - PSI / PSI_threshold)
TMO_RATIO = 0.0005


def senpai_probe(stall_us: float, target_us: float) -> float:
    """The part of memory to take while under the target: min((target / max(stall, 1) / 10)^2 * 0.01, 0.01)."""
    return min((target_us / max(stall_us, 1.0) / PROBE_DIVISOR) ** 2 * PROBE_MOST, PROBE_MOST)


def senpai_backoff(stall_us: float, target_us: float) -> float:
    """How much to back off over the target, 0 to 1: min((stall / target / 20)^2, 1)."""
    return min((stall_us / target_us / BACKOFF_DIVISOR) ** 2 * BACKOFF_MOST, BACKOFF_MOST)


def tmo_part(stall_us: float, target_us: float) -> float:
    """The part of memory to take in an interval: 0.0005 * max(0, 1 - stall / target)."""
    return TMO_RATIO * max(0.0, 1.0 - stall_us / target_us)


class Pressure(WritebackPolicy):
    """Every `interval`, read the stall since the last look. Under `stall`: write back the coldest part of what is in
    memory that the law gives. Over it: stop, and wait the longer the further over, up to `longest_pause`."""

    name = "pressure"
    summary = "write back a little at a time, and stop while tasks stall for memory (senpai, TMO)"
    writes = ("idle", "writeback")
    options: ClassVar[Sequence[Option]] = (
        Option("law", reader_of_choice(("senpai", "tmo")), "senpai", "how much to take: senpai or tmo"),
        Option("interval", read_interval, 6.0, "time between two looks at the pressure"),
        Option("stall", read_interval, 0.01, "stall to stay under in an interval, e.g. 10ms"),
        Option("source", str, "/proc/pressure/memory", "PSI file: the machine's, or memory.pressure of a cgroup"),
        Option(
            "kind", reader_of_choice(("some", "full")), "some", "whose stall: that of some tasks, or of all at once"
        ),
        Option("age", read_duration, 120.0, "pages touched since are left alone, whatever the pressure"),
        Option("least", read_count, 64, "4 KiB pages to save up before a round is worth its scan"),
        Option("longest_pause", read_interval, 600.0, "the wait after a stall 20 times over the target, or worse"),
        Option("keep", read_fraction, 0.1, "part of what the device holds that stays in memory, e.g. 10%"),
        Option("modes", MODES, "huge_idle,idle", "kinds of pages in order, of huge_idle, idle and huge"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        values = self.values
        self._interval, self._target_us = float(values["interval"]), float(values["stall"]) * 1e6
        self._age, self._pause = float(values["age"]), float(values["longest_pause"])
        self._least, self._keep = int(values["least"]), float(values["keep"])
        self._part = senpai_probe if values["law"] == "senpai" else tmo_part
        self._seen: int | None = None
        self._looked_at = 0.0
        self._saved_up = 0.0
        self._sleep = Sleep()

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        self._sleep.note(self.machine, now, self._age)
        why = why_no_writeback(target)
        if why:
            return Tick((), self._pause, why)
        source = str(self.values["source"])
        total = stall(self.machine, source, str(self.values["kind"]))
        if total is None:
            return Tick((), self._pause, f"no pressure to be read from {source}")
        before, since = self._seen, now - self._looked_at
        self._seen, self._looked_at = total, now
        if before is None or total < before or since <= 0:
            return Tick((), self._interval, "first look at the pressure")
        # looks may come late: the target is for one interval
        stalled = (total - before) * self._interval / max(since, self._interval)
        words = f"stall {stalled / 1000:.3g} ms of {self._target_us / 1000:.3g} ms"
        if stalled > self._target_us:
            self._saved_up = 0.0
            wait = max(self._interval, self._pause * senpai_backoff(stalled, self._target_us))
            return Tick((), wait, f"{words}, backing off for {hours(wait)}")
        return self._probe(target, now, stalled, words)

    def _probe(self, target: PolicyTarget, now: float, stalled: float, words: str) -> Tick:
        figures = memory(target)
        if figures is None:
            return Tick((), self._interval, f"{words}, {target.name} shows no mm_stat")
        pages = figures.original // UNIT
        ages = read_ages(target, self.machine)
        spare = pages if ages is None else ages.total
        spare -= int(self._keep * pages)
        part = self._part(stalled, self._target_us)
        self._saved_up = min(self._saved_up + part * pages, max(0.0, spare))
        if self._saved_up < self._least:
            return Tick((), self._interval, f"{words}, {mebibytes(int(self._saved_up))} saved up")
        wanted, self._saved_up = int(self._saved_up), 0.0
        modes = [("writeback", mode) for mode in str(self.values["modes"]).split(",")]
        if not can(target, "idle_age"):
            # what was marked in the last round and not touched since goes, then all is marked again
            return Tick((*modes, ("idle", "all")), self._interval, f"{words}, taking {mebibytes(wanted)}", wanted)
        least = self._sleep.lengthen(self._age, now)
        age = least if ages is None else ages.coldest(wanted, least)
        words = f"{words}, taking {mebibytes(wanted)} older than {hours(age)}"
        return Tick((("idle", str(age)), *modes), self._interval, words, wanted)
