"""Keep the memory of a device between two marks: above the high one, spill down to the low one.

The coldest pages go first, and of those the least compressible first, which free the most memory for a block each.
Where the pool has gaps, it is compacted before anything is written: that wears no flash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from zramcore.errors import InvalidValue
from zramcore.interfaces import Option, PolicyTarget, Tick, WritebackPolicy, can

from .ages import Sleep, read_ages
from .figures import UNIT, Memory, column, hours, memory, pages_written, why_no_writeback
from .options import read_duration, read_fraction, read_interval, read_size

_MIB = 1 << 20
GAPS = 8
"""A pool is compacted when more than one part in this many holds no data: sizes that are rounded up take less."""


def read_mark(text: str) -> str:
    """A size, or percent of mem_limit (of disksize without one), as text: ``400M``, ``80%``. Raises ValueError."""
    if text.strip().endswith("%"):
        read_fraction(text)
    else:
        read_size(text)
    return text.strip()


class Watermark(WritebackPolicy):
    """Every `period`, look at mem_used_total. Above `high`, spill: in each step, `pace` after the last, some of the
    coldest pages, no more than would free the rest of the way to `low`. A step that frees nothing goes on to younger
    pages, down to `age`; when those are gone too it waits for `backoff`, or until users free something. A pool with
    gaps is compacted first, and again before it gives up: what was spilled or recompressed leaves some.

    A zramcore device wakes it as soon as a write goes beyond `high`, and again for the next step while writes go on.

    A target without access times: huge pages go first, then those marked in the step before and still idle.
    """

    name = "watermark"
    summary = "keep memory under a mark by spilling the coldest, least compressible pages"
    writes = ("idle", "writeback", "compact")
    options: ClassVar[Sequence[Option]] = (
        Option("high", read_mark, "80%", "spill above this much memory: a size, or percent of mem_limit (or disksize)"),
        Option("low", read_mark, "70%", "spill down to this"),
        Option("period", read_interval, 10.0, "time between two looks below the mark"),
        Option("pace", read_interval, 1.0, "time between two steps of a spill"),
        Option("age", read_duration, 0.0, "pages touched since stay, even above the mark"),
        Option("backoff", read_interval, 60.0, "wait after a spill that could not get down to low"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        self._high, self._low = str(self.values["high"]), str(self.values["low"])
        both = (self._high, self._low)
        if len({mark.endswith("%") for mark in both}) == 1:
            low, high = (_number(mark) for mark in (self._low, self._high))
            if low > high:
                raise InvalidValue(f"policy watermark: low ({self._low}) is over high ({self._high})")
        self._period, self._pace = float(self.values["period"]), float(self.values["pace"])
        self._age, self._backoff = float(self.values["age"]), float(self.values["backoff"])
        self._spilling = False
        self._stuck = False
        self._marked = False
        self._compacted = False
        self._used: int | None = None
        """Memory before the last step."""
        self._written: int | None = None
        """bd_writes before the last step."""
        self._given_up: tuple[float, int] | None = None
        """Until when there is nothing to spill, and what users had freed by then."""
        self._sleep = Sleep()

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        self._sleep.note(self.machine, now, self._age)
        figures = memory(target)
        why = "" if figures else f"{target.name} shows no mm_stat"
        why = why or why_no_writeback(target)
        if figures is None or why:
            return Tick((), self._period, why)
        high, low = self._marks(target, figures)
        words = f"{_size(figures.used)} used, marks {_size(low)} and {_size(high)}"
        if figures.used <= (low if self._spilling else high):
            done, self._spilling, self._stuck, self._marked = self._spilling, False, False, False
            self._compacted, self._given_up = False, None
            words += f", {'down to the low one' if done else 'under the high one'}"
            return Tick((), self._period, words, wake_above=high)
        wait = self._still_hopeless(target, now)
        if wait:
            return self._hopeless(words, wait)
        written = pages_written(target)
        no_less = self._spilling and self._used is not None and figures.used >= self._used
        fruitless = no_less and written == self._written  # else writes are faster than the spill
        look_for_gaps = not self._spilling or (no_less and (self._stuck or not fruitless))
        if look_for_gaps and self._has_gaps(target, figures):
            self._compacted = True
            gaps = figures.used - figures.compressed
            words += f", compacting a pool with {_size(gaps)} of gaps"
            return Tick((("compact", "1"),), self._pace, words, wake_above=high)
        if fruitless:
            if self._stuck:
                self._spilling, self._stuck, self._marked = False, False, False
                self._given_up = now + self._backoff, _freed(target)
                return self._hopeless(words, self._backoff)
            self._stuck = True
        else:
            self._stuck = False
        self._spilling, self._used, self._written = True, figures.used, written
        self._compacted = False
        return self._step(target, now, figures, low, high, words)

    def _still_hopeless(self, target: PolicyTarget, now: float) -> float:
        """Seconds left of a backoff; 0: it is over, or users have freed something: there may be room again."""
        if self._given_up is None or self._given_up[1] != _freed(target):
            return 0.0
        return max(0.0, self._given_up[0] - now)

    def _hopeless(self, words: str, wait: float) -> Tick:
        return Tick((), min(wait, self._period), f"{words}, nothing more to spill, again in {hours(wait)}")

    def _step(self, target: PolicyTarget, now: float, figures: Memory, low: int, high: int, words: str) -> Tick:
        wanted = self._pages(target, figures, figures.used - low)
        if not can(target, "idle_age"):
            modes = [("writeback", mode) for mode in (("huge", "idle") if self._marked else ("huge",))]
            self._marked = True
            return Tick((*modes, ("idle", "all")), self._pace, f"{words}, spilling without access times", wanted, high)
        least = self._sleep.lengthen(self._age, now)
        ages = read_ages(target, self.machine)
        # not all that is wanted at once: of those, the large would go first and not the cold
        age = least if ages is None or self._stuck else ages.coldest(-(-wanted // 8), least)
        # an age of 0 means those of earlier seconds: when they are gone it is the turn of this one's
        whole = self._stuck and not least
        writes = (("idle", "all" if whole else str(age)), ("writeback", "huge_idle"), ("writeback", "idle"))
        what = "of any age" if whole else f"older than {hours(age)}"
        return Tick(writes, self._pace, f"{words}, spilling {wanted} pages {what}", wanted, high)

    def _has_gaps(self, target: PolicyTarget, figures: Memory) -> bool:
        """Whether compaction may help, and was not what was just done."""
        gaps = figures.used - figures.compressed
        return not self._compacted and gaps * GAPS > figures.used and can(target, "compact")

    @staticmethod
    def _pages(target: PolicyTarget, figures: Memory, size: int) -> int:
        """Pages that take `size` bytes of memory, at what one takes on average, but 1 at least."""
        written_back = (column(target, "bd_stat", 0) or 0) * UNIT
        same = (column(target, "mm_stat", 5) or 0) * UNIT
        in_memory = max(1, (figures.original - written_back - same) // UNIT)
        return max(1, -(-size * in_memory // max(1, figures.used)))

    def _marks(self, target: PolicyTarget, figures: Memory) -> tuple[int, int]:
        whole = figures.limit or column(target, "disksize", 0) or 0
        high, low = (int(_number(m) * whole) if m.endswith("%") else read_size(m) for m in (self._high, self._low))
        return high, min(low, high)


def _freed(target: PolicyTarget) -> int:
    """What users have freed so far: pages discarded, and blocks of the backing device written anew."""
    discarded, written, kept = column(target, "io_stat", 3), pages_written(target), column(target, "bd_stat", 0)
    return (discarded or 0) + (written or 0) - (kept or 0)


def _number(mark: str) -> float:
    return read_fraction(mark) if mark.endswith("%") else float(read_size(mark))


def _size(size: int) -> str:
    return f"{size / _MIB:.3g} MiB" if size >= _MIB else f"{size >> 10} KiB"
