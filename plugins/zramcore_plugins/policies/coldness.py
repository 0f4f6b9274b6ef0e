"""The far-memory controller: pages are cold above the smallest age whose pages hardly ever come back (ASPLOS 2019).

What came back is counted without looking at a single access: the pages that were older than one edge of the histogram,
and are not older than the next edge when that much time has passed, were touched (or freed) meanwhile. That is exact
for the edges, whatever the ages between them. Constants are those of ZRAM.md 3.1, "Far memory".
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from zramcore.interfaces import Option, PolicyTarget, Tick, WritebackPolicy, can

from .ages import Ages, Sleep, read_ages
from .figures import column, hours, why_no_writeback
from .options import MODES, read_duration, read_fraction, read_interval

MINIMUM_AGE = 120
"""T: no page touched in the last 2 minutes is cold; those are the working set."""
PROMOTION_RATE = 0.002
"""P: of the working set, a minute."""
MINUTE = 60.0


@dataclass(frozen=True)
class _Look:
    """The ages after a tick's writes, and the counters then."""

    at: float
    ages: Ages
    reads: int
    written: int


def came_back(before: Ages, after: Ages, edge: int, following: int, written: int) -> int:
    """Pages older than `edge` before that are not older than `following` after, the time between the edges later.

    `written`: pages written back between, which left without being touched.
    """
    return max(0, before.older(edge) - after.older(following) - written)


class Coldness(WritebackPolicy):
    """Every `period`, write back what is older than the smallest age whose pages came back at most `promotion_rate` of
    the working set a minute, in `percentile` of the looks of the last `window`. Pages read back from the backing device
    came back too. Ages are edges of the histogram; one is known once the time to the next edge has passed."""

    name = "coldness"
    summary = "write back what is older than the youngest age that hardly comes back (far memory)"
    writes = ("idle", "writeback")
    options: ClassVar[Sequence[Option]] = (
        Option("period", read_interval, 60.0, "time between two looks at the ages"),
        Option("promotion_rate", read_fraction, PROMOTION_RATE, "part of the working set that may come back a minute"),
        Option("min_age", read_interval, float(MINIMUM_AGE), "pages touched since are the working set"),
        Option(
            "window",
            read_interval,
            3600.0,
            "how far back looks count; steps between ages longer than this are not watched",
        ),
        Option("percentile", read_fraction, 0.98, "part of the looks that must keep to the rate; 1 is all"),
        Option("warm_up", read_duration, 600.0, "time after the start without any writeback"),
        Option("modes", MODES, "huge_idle,idle", "kinds of pages in order, of huge_idle, idle and huge"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        self._period, self._window = float(self.values["period"]), float(self.values["window"])
        self._min_age, self._warm_up = int(float(self.values["min_age"])), float(self.values["warm_up"])
        self._rate, self._percentile = float(self.values["promotion_rate"]), float(self.values["percentile"])
        self._started: float | None = None
        self._looks: deque[_Look] = deque()
        self._rates: dict[int, deque[tuple[float, float]]] = {}
        self._sleep = Sleep()

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        self._sleep.note(self.machine, now, self._window)
        self._started = now if self._started is None else self._started
        why = why_no_writeback(target)
        if not why and not can(target, "idle_age"):
            why = f"{target.name} has no access times on this kernel, and coldness is made of them"
        ages = None if why else read_ages(target, self.machine)
        if ages is None:
            return Tick((), self._period, why or f"{target.name} shows neither idle_histogram nor block_state")
        working_set = ages.total - ages.older(self._edge_above(ages, self._min_age))
        allowed = self._rate * working_set
        self._note_rates(ages, target, now)
        age = self._chosen(ages, allowed)
        words = f"{allowed:.3g} of {working_set} pages a minute may come back"
        if age is None:
            return Tick((), self._period, f"{words}, at no age known so few do")
        if now - self._started < self._warm_up:
            return Tick((), self._period, f"{words}, older than {hours(age)} do, warming up")
        seconds = self._sleep.lengthen(age, now)
        writebacks = [("writeback", mode) for mode in str(self.values["modes"]).split(",")]
        return Tick((("idle", str(seconds)), *writebacks), self._period, f"{words}, age {hours(age)}")

    def settle(self, target: PolicyTarget, now: float) -> None:
        """Keep the ages as the writes left them, so that what was written does not look as if it had come back."""
        ages = read_ages(target, self.machine)
        if ages is None:
            self._looks.clear()
            return
        reads, written = column(target, "bd_stat", 1) or 0, column(target, "bd_stat", 2) or 0
        self._looks.append(_Look(now, ages, reads, written))
        while len(self._looks) > 2 and self._looks[1].at <= now - self._reach(ages):
            self._looks.popleft()

    def _reach(self, ages: Ages) -> float:
        """The longest step between edges that is looked at, with a period to spare."""
        return min(max(b - a for a, b in zip(ages.starts, ages.starts[1:], strict=False)), self._window) + self._period

    @staticmethod
    def _edge_above(ages: Ages, seconds: int) -> int:
        return next((start for start in ages.starts if start >= seconds), ages.starts[-1])

    def _note_rates(self, ages: Ages, target: PolicyTarget, now: float) -> None:
        """For each edge that has been watched for long enough, what came back a minute while pages grew to the next."""
        reads, written = column(target, "bd_stat", 1) or 0, column(target, "bd_stat", 2) or 0
        for edge, following in zip(ages.starts, ages.starts[1:], strict=False):
            look = self._look_before(now - (following - edge))
            if edge < self._min_age or look is None:
                continue
            back = came_back(look.ages, ages, edge, following, max(0, written - look.written))
            back += max(0, reads - look.reads)
            rates = self._rates.setdefault(edge, deque())
            rates.append((now, back / max((now - look.at) / MINUTE, 1 / MINUTE)))
            while rates[0][0] <= now - self._window:
                rates.popleft()

    def _look_before(self, at: float) -> _Look | None:
        """The last look at `at` or earlier."""
        best = None
        for look in self._looks:
            if look.at > at + 1e-6 * max(1.0, abs(at)):
                break
            best = look
        return best

    def _chosen(self, ages: Ages, allowed: float) -> int | None:
        """The smallest edge above which few enough pages came back in `percentile` of the looks of the window."""
        for edge in ages.starts:
            rates = sorted(rate for _, rate in self._rates.get(edge, ()))
            if rates and rates[max(0, math.ceil(self._percentile * len(rates)) - 1)] <= allowed:
                return edge
        return None
