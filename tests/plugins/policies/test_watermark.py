"""watermark: above the high mark down to the low one, the coldest and least compressible first; on real devices."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from zramcore.control import Control, Target
from zramcore.errors import InvalidValue
from zramcore.interfaces import Catalogue, WritebackPolicy
from zramcore.scheduler import Report, Scheduler
from zramcore.testing.inspection import Clock
from zramcore.testing.policy import FakeTarget, PolicyConformance, VirtualClock
from zramcore_plugins.policies import Watermark

PAGES = 1024


class TestWatermarkConformance(PolicyConformance):
    def create(self, options: Mapping[str, str]) -> WritebackPolicy:
        return Watermark({"high": "1K", "low": "1K", **options})

    def test_options_are_documented(self) -> None:
        assert self.create({}).values["high"] == "1K"


class Without:
    """A target without access times: a kernel without CONFIG_ZRAM_TRACK_ENTRY_ACTIME."""

    capabilities = frozenset({"idle", "writeback"})

    def __init__(self, target: Target) -> None:
        self.target, self.name = target, target.name

    def show(self, attribute: str) -> str:
        return self.target.show(attribute)

    def store(self, attribute: str, value: str) -> None:
        assert attribute != "idle" or value == "all"
        self.target.store(attribute, value)


@pytest.fixture
def boot() -> Clock:
    clock = Clock()
    clock.now = 1000
    return clock


@pytest.fixture
def target(built_in: Catalogue, tmp_path: Path, boot: Clock) -> Target:
    """4 MiB: pages 0 to 511 compress to a half and are old, 512 to 767 do not compress and are old, the rest is new."""
    control = Control(built_in, clock=boot)
    made = control.target(f"zram{control.hot_add()}")
    made.store("comp_algorithm", "zstd")
    made.store("backing_dev", f"file:{tmp_path}/backing,size=8M")
    made.store("disksize", str(PAGES * 4096))
    random_bytes = random.Random(1).randbytes
    for page in range(PAGES):
        boot.now = 1000 if page < 768 else 5000
        made.device.pwrite(page * 4096, random_bytes(2048) + bytes(2048) if page < 512 else random_bytes(4096))
    boot.now = 5010
    return made


def used(target: Target) -> int:
    return int(target.show("mm_stat").split()[2])


def spill(target: object, options: Mapping[str, str], seconds: float) -> list[Report]:
    scheduler = Scheduler(clock=VirtualClock())
    reports: list[Report] = []
    scheduler._on_report = reports.append
    scheduler.add(target, Watermark(options))  # type: ignore[arg-type]  # Without is a target too
    scheduler.run(until=seconds)
    return reports


def gone(target: Target) -> set[int]:
    return {int(line.split()[0]) for line in target.show("block_state").splitlines() if "w" in line.split()[2]}


def test_below_the_mark_nothing_is_touched(target: Target) -> None:
    (report,) = spill(target, {"high": "4M", "low": "1M"}, 5.0)
    assert report.writes == ()
    assert report.reason == "3.09 MiB used, marks 1 MiB and 4 MiB, under the high one"


def test_it_spills_down_to_the_low_mark_and_not_further(target: Target) -> None:
    reports = spill(target, {"high": "3M", "low": "2M"}, 30.0)
    assert used(target) <= 2 << 20
    assert used(target) > (2 << 20) - 200 * 4096
    assert not [report for report in reports if report.error]
    assert [report for report in reports if report.reason.endswith("down to the low one")]


def test_the_coldest_and_least_compressible_go_first(target: Target) -> None:
    spill(target, {"high": "3M", "low": "2500K"}, 30.0)
    assert gone(target)
    assert gone(target) <= set(range(512, 768)), "old pages that do not compress"


def test_new_pages_go_when_the_old_ones_were_not_enough(target: Target) -> None:
    spill(target, {"high": "3M", "low": "200K"}, 30.0)
    assert used(target) <= 200 << 10
    assert set(range(768)) <= gone(target)
    assert gone(target) & set(range(768, 1024))


def test_pages_younger_than_age_stay_and_it_gives_up_for_a_while(target: Target) -> None:
    reports = spill(target, {"high": "900K", "low": "800K", "age": "1m"}, 30.0)
    assert gone(target) == set(range(768))
    hopeless = [report for report in reports if "nothing more to spill" in report.reason]
    assert reports[-len(hopeless) :] == hopeless
    assert [report.reason.rpartition(", ")[2] for report in hopeless] == [
        "again in 60 s",
        "again in 50 s",
        "again in 40 s",
    ]
    assert not any(report.writes for report in hopeless)


def test_a_pool_with_gaps_is_compacted_before_anything_is_written(target: Target) -> None:
    for page in range(0, 512, 2):
        target.device.discard(page * 4096, 4096)  # two of these share a page of the pool
    before = used(target)
    (report, *_) = spill(target, {"high": "2600K", "low": "2600K"}, 0.0)
    assert [(write.attribute, write.value) for write in report.writes] == [("compact", "1")]
    assert "compacting a pool with" in report.reason
    assert used(target) < before
    assert gone(target) == set()


def test_the_gaps_that_spilling_leaves_are_compacted_before_it_gives_up() -> None:
    target = FakeTarget()
    target.values["mm_stat"] = "268435456 80000000 81000000 0 0 0 0 0 0\n"
    scheduler, reports = Scheduler(clock=VirtualClock()), list[Report]()
    scheduler._on_report = reports.append
    scheduler.add(target, Watermark({"high": "50M", "low": "40M"}))
    scheduler.run(until=0.0)
    target.values["mm_stat"] = "268435456 60000000 81000000 0 0 0 0 0 0\n"  # written back, and no page of the pool free
    scheduler.run(until=4.0)
    done = [[write.attribute for write in report.writes] for report in reports]
    assert done == [["idle", "writeback", "writeback"], ["idle", "writeback", "writeback"], ["compact"], []]
    assert reports[-1].reason.endswith("nothing more to spill, again in 60 s")


def test_percent_is_of_mem_limit_or_else_of_disksize(target: Target) -> None:
    assert "marks 1 MiB and 2 MiB" in spill(target, {"high": "50%", "low": "25%"}, 0.0)[0].reason
    target.store("mem_limit", "8M")
    assert "marks 4 MiB and 6 MiB" in spill(target, {"high": "75%", "low": "50%"}, 0.0)[0].reason


def test_without_access_times_huge_pages_go_first_and_then_what_stayed_idle(target: Target) -> None:
    without = Without(target)
    spill(without, {"high": "3M", "low": "2M"}, 0.0)
    assert gone(target) <= set(range(512, 1024)), "huge pages"
    reports = spill(without, {"high": "1M", "low": "300K"}, 30.0)
    assert used(target) <= 300 << 10
    assert "without access times" in reports[0].reason


@pytest.mark.parametrize(
    "options", [{"high": "1M", "low": "2M"}, {"high": "50%", "low": "60%"}, {"high": "lots"}, {"low": "110%"}]
)
def test_marks_that_make_no_sense_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidValue):
        Watermark(options)


def test_it_says_why_it_does_nothing() -> None:
    target = FakeTarget()
    target.values["backing_dev"] = "none\n"
    assert Watermark({}).tick(target, 0.0).reason == "zram0 has no backing device"
    assert Watermark({}).tick(FakeTarget(values={}), 0.0).reason == "zram0 shows no mm_stat"


# As fast as writes come -----------------------------------------------------------------------------------------------


def test_it_asks_to_be_woken_at_the_high_mark_unless_it_has_given_up(target: Target) -> None:
    policy = Watermark({"high": "4M", "low": "1M", "age": "1h"})
    assert policy.tick(target, 0.0).wake_above == 4 << 20
    policy = Watermark({"high": "3M", "low": "1M", "age": "2h"})
    ticks = [policy.tick(target, float(now)) for now in range(3)]
    assert [tick.wake_above for tick in ticks] == [3 << 20, 3 << 20, None]
    assert "nothing more to spill" in ticks[-1].reason


def test_pages_of_this_second_go_when_there_are_no_others(target: Target) -> None:
    """An age of 0 s is not enough: what was touched in this second is not older than that."""
    for page in range(PAGES):
        target.device.pread(page * 4096, 4096)
    reports = spill(target, {"high": "3M", "low": "1M"}, 30.0)
    assert used(target) <= 1 << 20
    assert any("pages of any age" in report.reason for report in reports)


def test_an_age_protects_pages_of_this_second(target: Target) -> None:
    for page in range(PAGES):
        target.device.pread(page * 4096, 4096)
    reports = spill(target, {"high": "3M", "low": "1M", "age": "1"}, 30.0)
    assert gone(target) == set()
    assert "nothing more to spill" in reports[-1].reason


def test_it_does_not_give_up_because_writes_are_faster() -> None:
    """It frees less than comes in: that is no sign that nothing is left to spill."""
    target = FakeTarget()
    scheduler, reports = Scheduler(clock=VirtualClock()), list[Report]()
    scheduler._on_report = reports.append
    scheduler.add(target, Watermark({"high": "50M", "low": "40M"}))
    for turn in range(8):
        target.values["mm_stat"] = f"268435456 {90 + turn}000000 {91 + turn}000000 0 0 0 0 0 0\n"
        target.values["bd_stat"] = f"{100 * turn} 0 {100 * turn}\n"
        scheduler.run(until=float(turn))
    assert len(reports) == 8
    assert all("spilling" in report.reason for report in reports)


@pytest.mark.parametrize("attribute", ["io_stat", "bd_stat"])
def test_it_does_not_give_up_for_long_when_something_is_freed(attribute: str) -> None:
    """Pages that are discarded or written anew leave room in the backing device, and soon is too late at mem_limit."""
    target = FakeTarget()
    target.values["mm_stat"] = "268435456 80000000 81000000 0 0 0 0 0 0\n"
    target.values |= {"bd_stat": "100 0 100\n", "io_stat": "0 0 0 0\n"}
    scheduler, reports = Scheduler(clock=VirtualClock()), list[Report]()
    scheduler._on_report = reports.append
    scheduler.add(target, Watermark({"high": "50M", "low": "40M"}))
    scheduler.run(until=30.0)
    assert "nothing more to spill" in reports[-1].reason
    assert not reports[-1].writes
    target.values[attribute] = {"bd_stat": "60 0 100\n", "io_stat": "0 0 0 7\n"}[attribute]
    scheduler.run(until=45.0)
    assert any("spilling" in report.reason for report in reports if report.at > 30)


@pytest.mark.parametrize("chunk", [4096, 1 << 18])
def test_memory_stays_under_the_limit_however_fast_writes_come(built_in: Catalogue, tmp_path: Path, chunk: int) -> None:
    """A device of 32 MiB in 2 MiB of memory: no write fails, and nothing is lost."""
    control = Control(built_in)
    target = control.target(f"zram{control.hot_add()}")
    for attribute, value in (
        ("comp_algorithm", "lz4"),
        ("backing_dev", f"file:{tmp_path}/backing,size=32M"),
        ("disksize", "32M"),
        ("mem_limit", "2M"),
        ("mem_limit_wait", "10000"),
    ):
        target.store(attribute, value)
    scheduler = Scheduler()
    scheduler.add(target, Watermark({}))
    scheduler.start()
    content = random.Random(4).randbytes(32 << 20)
    try:
        for turn in range(2):
            for start in range(0, len(content), chunk):
                assert target.device.pwrite(start, content[start : start + chunk]) == chunk
                assert used(target) <= 2 << 20
            assert turn == 1 or target.device.pread(0, 1 << 20) == content[: 1 << 20]
    finally:
        scheduler.stop()
    assert target.device.pread(0, len(content)) == content
    assert target.device.stats.failed_writes == 0
