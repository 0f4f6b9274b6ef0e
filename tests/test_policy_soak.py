"""Policies under load for as long as one likes: three threads use a device as fio would while recompress, adaptive and
watermark run on it on an accelerated clock, an hour a second, with less backing store and daily budget than they want.

No byte may be wrong, no budget exceeded, and memory must be back under the mark.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from zramcore.allowance import DailyBudget, pages_written
from zramcore.control import Control, Target
from zramcore.device import Device
from zramcore.interfaces import Catalogue, PolicyTarget, Tick, WritebackPolicy
from zramcore.scheduler import Report, Scheduler
from zramcore.testing.policy import FakeMachine
from zramcore.testing.walk import KINDS, make_page
from zramcore.write_history import DAY
from zramcore_plugins.policies import Adaptive, Recompress, Watermark

PAGE = 4096
HOUR = 3600.0
MIB_PAGES = 256
PAGES = 12288
"""Of the device: 48 MiB. A third each for every thread."""
BLOCKS = 4608
"""Of the backing store: three eighths of the device."""
HIGH = 15 << 20
PER_DAY = 10 * MIB_PAGES
"""What all policies may write in a day; a burst of the load wants more."""
THREADS = 3
HOT = 0.02
"""The part of its pages that a thread uses most of the time."""


class FastClock:
    """Time that passes `speed` times as fast, and then, when the load has ended, only by waiting."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._started = time.monotonic()
        self._virtual: float | None = None

    def now(self) -> float:
        return self._virtual if self._virtual is not None else (time.monotonic() - self._started) * self.speed

    def boot_seconds(self) -> int:
        """The same for the device's access times; it is up for a week already."""
        return int(7 * DAY + self.now())

    def go_virtual(self) -> None:
        self._virtual = self.now()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if self._virtual is None:
            return event.wait(seconds / self.speed)
        self._virtual += seconds
        return event.is_set()


class Breathing(FakeMachine):
    """Free memory goes up and down between a tenth and nine tenths, in twelve hours."""

    def __init__(self, clock: FastClock) -> None:
        super().__init__()
        self._clock = clock

    def read(self, path: str) -> str:
        self.set_free(0.5 + 0.4 * math.sin(self._clock.now() / (12 * HOUR) * 2 * math.pi))
        return super().read(path)


class Load:
    """One thread's part of the device: reads that are compared, writes, discards; a few pages hot, the rest cold."""

    def __init__(self, device: Device, number: int, stop: threading.Event) -> None:
        self.device = device
        self.random = Random(number)
        self.stop = stop
        self.first = number * (PAGES // THREADS)
        self.count = PAGES // THREADS
        self.expected: dict[int, bytes] = {}
        kinds = self.random.choices(KINDS, (1, 1, 5, 5, 4), k=200)
        self.pool = [make_page(kind, number << 20 | n, PAGE) for n, kind in enumerate(kinds)]
        self.version = 0
        self.operations = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Fill, then use it until told to stop."""
        try:
            for index in range(self.first, self.first + self.count, 8):
                self.write(index, 8)
            while not self.stop.wait(0.004):
                for _ in range(4):
                    self.step()
        except BaseException as failure:
            self.failure = failure

    def step(self) -> None:
        self.operations += 1
        hot = self.random.random() < 0.97
        span = int(self.count * HOT) if hot else self.count
        index = self.first + self.random.randrange(span)
        length = min(self.random.choice((1, 1, 1, 4, 16)), self.first + self.count - index)
        what = self.random.random()
        if what < 0.55:
            self.check(index, length)
        elif what < 0.9:
            self.write(index, length)
        elif what < 0.95:
            self.device.discard(index * PAGE, length * PAGE)
            for page in range(index, index + length):
                self.expected.pop(page, None)
        else:
            self.write_part(index)

    def write(self, index: int, length: int) -> None:
        data = [self.page(index + n) for n in range(length)]
        self.device.pwrite(index * PAGE, b"".join(data))
        self.expected.update(zip(range(index, index + length), data, strict=True))

    def write_part(self, index: int) -> None:
        start, data = self.random.randrange(PAGE - 512), self.random.randbytes(512)
        self.device.pwrite(index * PAGE + start, data)
        before = self.expected.get(index, bytes(PAGE))
        self.expected[index] = before[:start] + data + before[start + 512 :]

    def page(self, index: int) -> bytes:
        """No two pages are the same, but those of one word."""
        page = self.random.choice(self.pool)
        self.version += 1
        if page[:8] * 512 == page:
            return page
        return index.to_bytes(8, "little") + self.version.to_bytes(8, "little") + page[16:]

    def check(self, index: int, length: int) -> None:
        data = self.device.pread(index * PAGE, length * PAGE)
        for n in range(length):
            assert data[n * PAGE : (n + 1) * PAGE] == self.expected.get(index + n, bytes(PAGE)), f"page {index + n}"

    def check_all(self) -> None:
        for index in range(self.first, self.first + self.count, 16):
            self.check(index, 16)


class Watched(Adaptive):
    """Notes what each of its rounds was granted, and what was left of the day for it."""

    def __init__(self, options: dict[str, str]) -> None:
        super().__init__(options)
        self.rounds: list[tuple[int, int]] = []

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        tick = super().tick(target, now)
        if tick.budget is not None:
            self.rounds.append((tick.budget, self.history.left(self.per_day, now)))
        return tick


def policies() -> list[WritebackPolicy]:
    recompress = {"period": "30m", "backoff": "0", "min_age": "1h", "max_age": "3h", "threshold": "3000"}
    adaptive = {"first": "0", "period": "1h", "min_age": "2h", "max_age": "6h", "max_round": "3M", "min_round": "64K",
                "per_day": "9M", "backing_size": "18M", "modes": "huge_idle,idle,huge"}  # fmt: skip
    watermark = {"high": "15M", "low": "13M", "period": "5m", "pace": "1m", "backoff": "30m"}
    return [Recompress(recompress), Watched(adaptive), Watermark(watermark)]


@pytest.fixture
def soak(built_in: Catalogue, tmp_path: Path) -> Iterator[Callable[[float], None]]:
    clock = FastClock(HOUR)
    control = Control(built_in, clock=clock.boot_seconds)
    target = control.target(f"zram{control.hot_add()}")
    target.store("comp_algorithm", "lz4")
    target.store("recomp_algorithm", "algo=zstd priority=1")
    target.store("backing_dev", f"file:{tmp_path}/backing,size={BLOCKS * PAGE}")
    target.store("disksize", str(PAGES * PAGE))
    yield lambda seconds: run(target, clock, seconds)
    target.store("reset", "1")


class Sampled(Target):
    """Notes how much was written by when, before and after each pass."""

    def __init__(self, target: Target, clock: FastClock) -> None:
        super().__init__(target.device)
        self.clock = clock
        self.written: list[tuple[float, int]] = [(0.0, 0)]

    def store(self, attribute: str, value: str) -> None:
        if attribute != "writeback":
            return super().store(attribute, value)
        self.sample()
        try:
            super().store(attribute, value)
        finally:
            self.sample()

    def sample(self) -> None:
        self.written.append((self.clock.now(), pages_written(self) or 0))


def run(plain: Target, clock: FastClock, seconds: float) -> None:
    target, reports = Sampled(plain, clock), list[Report]()
    written = target.written
    scheduler = Scheduler(clock=clock, machine=Breathing(clock), on_report=reports.append)
    daily, made = DailyBudget(PER_DAY), policies()
    for policy in made:
        scheduler.add(target, policy, daily)
    stop = threading.Event()
    loads = [Load(target.device, number, stop) for number in range(THREADS)]
    threads = [threading.Thread(target=load.run) for load in loads]
    for thread in threads:
        thread.start()
    try:
        scheduler.run(until=seconds * clock.speed)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    under_load = len(reports)
    assert [load.failure for load in loads] == [None] * THREADS
    # the day's budget comes back, and with it memory under the mark
    clock.go_virtual()
    scheduler.run(until=clock.now() + 2 * DAY)

    used = int(target.show("mm_stat").split()[2])
    assert used <= HIGH, reports[-1].decision()
    for load in loads:
        load.check_all()
    assert [report.decision() for report in reports if report.error] == []
    check_day(written, PER_DAY)
    check_rounds(made[1], [report for report in reports if report.policy == "adaptive"])
    assert (target.show("writeback_limit"), target.show("writeback_limit_enable")) == ("0\n", "0\n")
    said = {name: [r for r in reports[:under_load] if r.policy == name and r.writes] for name in NAMES}
    assert all(said.values()), f"all of them were at work: {said}"
    assert max(total for _, total in written) > PER_DAY / 4
    print(summary(reports, loads, written, used, clock))


NAMES = ("recompress", "adaptive", "watermark")


def check_day(written: list[tuple[float, int]], limit: int) -> None:
    """No 24 hours hold more than the limit. What was written by the first sample in them may have been before them."""
    first = 0
    for at, total in written:
        while written[first][0] <= at - DAY:
            first += 1
        assert total - written[first][1] <= limit, f"at {at / HOUR:.1f} h"


def check_rounds(policy: WritebackPolicy, reports: list[Report]) -> None:
    """No round wrote more than it was granted, and none was granted more than its day had left."""
    assert isinstance(policy, Watched)
    granted = iter(policy.rounds)
    rounds = [report for report in reports if any(write.attribute == "writeback" for write in report.writes)]
    for report, (budget, left) in zip(rounds, granted, strict=True):
        assert (report.written_back or 0) <= budget * PAGE
        assert budget <= left


def summary(
    reports: list[Report], loads: list[Load], written: list[tuple[float, int]], used: int, clock: FastClock
) -> str:
    operations = sum(load.operations for load in loads)
    lines = [f"{clock.now() / HOUR:.0f} h of policies, {operations} operations, {written[-1][1]} pages written back, "
             f"{used} bytes used at the end"]  # fmt: skip
    for name in NAMES:
        own = [report for report in reports if report.policy == name]
        ends = sorted({write.ended for report in own for write in report.writes if write.ended})
        acted = sum(bool(report.writes) for report in own)
        freed = sum(report.freed or 0 for report in own)
        lines.append(f"{name}: {len(own)} decisions, {acted} with writes, freed {freed} bytes, ends {ends}")
    return "\n".join(lines)


def test_a_minute(soak: Callable[[float], None]) -> None:
    soak(60.0)


@pytest.mark.soak
def test_half_an_hour(soak: Callable[[float], None]) -> None:
    soak(float(os.environ.get("ZRAMCORE_SOAK_SECONDS", "1800")))


def test_the_check_of_a_day_finds_a_page_too_many() -> None:
    steps = [(0.0, 0), (1.0, 60), (HOUR, 60), (HOUR + 1, 100), (DAY + 2.0, 100), (DAY + 3.0, 160)]
    check_day(steps, 100)
    with pytest.raises(AssertionError, match=r"at 24\.0 h"):
        check_day([*steps[:-1], (DAY + 3.0, 161)], 100)
