"""coldness: the age threshold from histograms, against the far-memory paper's constants (ZRAM.md 3.1)."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from zramcore.control import Control, Target
from zramcore.interfaces import Catalogue, WritebackPolicy
from zramcore.scheduler import Report, Scheduler
from zramcore.testing.inspection import Clock
from zramcore.testing.policy import FakeTarget, PolicyConformance, VirtualClock
from zramcore_plugins.policies import Coldness
from zramcore_plugins.policies.ages import Ages
from zramcore_plugins.policies.coldness import MINIMUM_AGE, PROMOTION_RATE, came_back


class TestColdnessConformance(PolicyConformance):
    def create(self, options: Mapping[str, str]) -> WritebackPolicy:
        return Coldness(options)


def test_the_constants_are_the_papers() -> None:
    # "minimum cold age T = 120 s; SLO = promotion rate <= P = 0.2 %/min of the working set (pages touched within T)"
    assert (MINIMUM_AGE, PROMOTION_RATE) == (120, 0.002)
    assert Coldness({}).values["promotion_rate"] == 0.002
    assert Coldness({}).values["min_age"] == 120.0


def test_what_came_back_is_what_did_not_grow_older() -> None:
    before, after = Ages((0, 120, 300, 600), (50, 40, 30, 20)), Ages((0, 120, 300, 600), (60, 0, 83, 0))
    assert came_back(before, after, 120, 300, written=0) == 7  # 90 were older than 120 s, 83 are older than 300 s
    assert came_back(before, after, 120, 300, written=5) == 2
    assert came_back(before, after, 120, 300, written=50) == 0


class Machine:
    """A real device whose clock is the scheduler's, with accesses between its ticks."""

    def __init__(self, catalogue: Catalogue, folder: Path, pages: int) -> None:
        self.boot, self.time, self.pages = Clock(), VirtualClock(), pages
        control = Control(catalogue, clock=self.boot)
        self.target: Target = control.target(f"zram{control.hot_add()}")
        self.target.store("backing_dev", f"file:{folder}/backing,size=64M")
        self.target.store("disksize", str(pages * 4096))
        self.boot.now = 1000
        self.target.device.pwrite(0, random.Random(1).randbytes(pages * 4096))
        self.reports: list[Report] = []

    def run(self, policy: Coldness, minutes: int, touch: Callable[[int], list[int]]) -> None:
        """Minute after minute: touch pages, then let the policy look."""
        scheduler = Scheduler(clock=self.time, on_report=self.reports.append)
        scheduler.add(self.target, policy)
        for minute in range(minutes):
            for page in touch(minute):
                self.target.device.pread(page * 4096, 4096)
            scheduler.run(until=self.time.now())
            self.time.advance(60.0)
            self.boot.now += 60

    @property
    def written_back(self) -> set[int]:
        return {int(line.split()[0]) for line in self.target.show("block_state").splitlines() if "w" in line.split()[2]}


@pytest.fixture
def machine(built_in: Catalogue, tmp_path: Path) -> Machine:
    return Machine(built_in, tmp_path, 2000)


def test_a_cold_set_goes_and_a_hot_one_stays(machine: Machine) -> None:
    hot = list(range(1000))
    machine.run(Coldness({}), 30, lambda minute: hot)
    assert machine.written_back == set(range(1000, 2000))
    assert "2 of 1000 pages a minute may come back, age 120 s" not in machine.reports[0].reason
    wrote = [report for report in machine.reports if report.written_back]
    assert len(wrote) == 1
    assert wrote[0].reason == "2 of 1000 pages a minute may come back, age 2 min"
    assert wrote[0].at >= 600.0, "it warms up for ten minutes"


def test_pages_that_come_back_every_eight_minutes_are_not_cold_at_two(machine: Machine) -> None:
    """500 pages are touched at once every 8 minutes: they are older than 2 and 5 minutes in between, never than 10."""

    def touch(minute: int) -> list[int]:
        return [*range(1000), *(range(1000, 1500) if minute % 8 == 0 else ())]

    machine.run(Coldness({"warm_up": "40m", "percentile": "1"}), 90, touch)
    assert machine.written_back == set(range(1500, 2000))
    assert any("age 10 min" in report.reason for report in machine.reports)
    assert int(machine.target.show("bd_stat").split()[1]) == 0, "nothing written back was wanted again"


def test_pages_read_back_raise_the_age(machine: Machine) -> None:
    """What was written back and is read again counts as come back: the age found grows, or none is found."""
    machine.run(Coldness({"window": "10m"}), 30, lambda minute: list(range(1000)))
    found = machine.reports[-1].reason
    assert found.endswith("age 2 min")
    machine.run(Coldness({"window": "10m"}), 30, lambda minute: [*range(1000), *range(1000, 1500)])
    assert machine.reports[-1].reason.endswith("at no age known so few do")


def test_it_says_what_it_lacks() -> None:
    policy, target = Coldness({}), FakeTarget()
    assert policy.tick(target, 0.0).reason == "zram0 shows neither idle_histogram nor block_state"
    target.capabilities = frozenset({"idle", "writeback"})  # type: ignore[attr-defined]  # as such a kernel's has
    assert "no access times" in policy.tick(target, 0.0).reason
    target.values["backing_dev"] = "none\n"
    assert policy.tick(target, 0.0).reason == "zram0 has no backing device"
