"""pressure against the laws and constants of senpai and TMO: ZRAM.md 3.1, "Other cold-memory controllers"."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from zramcore.interfaces import Tick, WritebackPolicy
from zramcore.testing.policy import FakeMachine, FakeTarget, PolicyConformance, VirtualClock, play
from zramcore_plugins.policies import Pressure
from zramcore_plugins.policies.pressure import senpai_backoff, senpai_probe, tmo_part

HISTOGRAM = (0, 60, 120, 600, 3600)
PAGES_HELD = 65536
"""268435456 bytes, as FakeTarget's mm_stat says."""


class TestPressureConformance(PolicyConformance):
    def create(self, options: Mapping[str, str]) -> WritebackPolicy:
        return Pressure(options)


def with_ages(*pages: int) -> FakeTarget:
    target = FakeTarget()
    ends = (*map(str, HISTOGRAM[1:]), "-")
    rows = zip(HISTOGRAM, ends, pages, strict=True)
    target.values["idle_histogram"] = "".join(f"{start} {end} {count} 0 0\n" for start, end, count in rows)
    return target


def watched(options: Mapping[str, str] | None = None) -> tuple[Pressure, FakeMachine, VirtualClock]:
    policy, machine = Pressure(options or {}), FakeMachine()
    policy.machine = machine
    machine.set_stall(0)
    return policy, machine, VirtualClock()


def look(policy: Pressure, machine: FakeMachine, clock: VirtualClock, target: FakeTarget, stalled: int) -> Tick:
    """One tick after an interval in which tasks stalled for that many microseconds."""
    total = int(machine.files["/proc/pressure/memory"].split()[4].partition("=")[2]) + stalled
    machine.set_stall(total)
    (tick,) = play(policy, target, clock, 1)
    return tick


@pytest.mark.parametrize(
    ("stalled", "part"),
    [
        (0, 0.01),  # target / max(integral, 1) / 10 = 1000, squared and capped
        (1000, 0.01),  # (10 / 10)^2 * 0.01
        (2000, 0.0025),  # (5 / 10)^2 * 0.01
        (5000, 0.0004),  # (2 / 10)^2 * 0.01
        (10_000, 0.0001),  # (1 / 10)^2 * 0.01
    ],
)
def test_senpai_probes_the_less_the_nearer_the_target(stalled: int, part: float) -> None:
    assert senpai_probe(stalled, 10_000) == pytest.approx(part)


@pytest.mark.parametrize(
    ("stalled", "part"), [(10_000, 0.0025), (20_000, 0.01), (100_000, 0.25), (200_000, 1.0), (10**9, 1.0)]
)
def test_senpai_backs_off_fully_at_twenty_times_the_target(stalled: int, part: float) -> None:
    assert senpai_backoff(stalled, 10_000) == pytest.approx(part)


@pytest.mark.parametrize(("stalled", "part"), [(0, 0.0005), (5_000, 0.00025), (10_000, 0.0), (20_000, 0.0)])
def test_tmo_takes_in_proportion_to_what_is_left_to_the_target(stalled: int, part: float) -> None:
    assert tmo_part(stalled, 10_000) == pytest.approx(part)


def test_without_stalls_a_hundredth_of_the_coldest_goes_every_six_seconds() -> None:
    policy, machine, clock = watched()
    target = with_ages(1000, 1000, 30000, 500, 700)
    (first,) = play(policy, target, clock, 1)
    assert (list(first.writes), first.next_in) == ([], 6.0)
    tick = look(policy, machine, clock, target, 0)
    assert tick.budget == PAGES_HELD // 100
    assert list(tick.writes) == [("idle", "3600"), ("writeback", "huge_idle"), ("writeback", "idle")]
    assert tick.reason == "stall 0 ms of 10 ms, taking 2.56 MiB older than 60 min"
    tick = look(policy, machine, clock, with_ages(1000, 1000, 30000, 500, 100), 0)
    assert tick.writes[0] == ("idle", "120"), "1 h has too few, 10 min too: the next edge is 2 min"


def test_pages_younger_than_age_are_left_alone() -> None:
    policy, machine, clock = watched({"age": "5m"})
    target = with_ages(30000, 30000, 0, 0, 0)
    play(policy, target, clock, 1)
    assert look(policy, machine, clock, target, 0).writes[0] == ("idle", "300")


def test_over_the_target_it_waits_the_longer_the_worse_it_is() -> None:
    policy, machine, clock = watched()
    target = with_ages(0, 0, 0, 0, 60000)
    play(policy, target, clock, 1)
    waits = [look(policy, machine, clock, target, stalled).next_in for stalled in (20_000, 100_000)]
    assert waits == pytest.approx([6.0, 150.0])
    tick = look(policy, machine, clock, target, 25 * 10**6)  # in 150 s
    assert (list(tick.writes), tick.next_in) == ([], 600.0)
    assert tick.reason == "stall 1e+03 ms of 10 ms, backing off for 10 min"


def test_a_look_that_comes_late_judges_by_the_interval() -> None:
    policy, machine, clock = watched()
    target = with_ages(0, 0, 0, 0, 60000)
    play(policy, target, clock, 1)
    clock.advance(54.0)
    tick = look(policy, machine, clock, target, 50_000)  # in 60 s: 5 ms an interval
    assert tick.reason == "stall 5 ms of 10 ms, 104 KiB saved up"
    assert tick.next_in == 6.0


def test_small_parts_are_saved_up_until_a_round_is_worth_it() -> None:
    policy, machine, clock = watched({"least": "64"})
    target = with_ages(0, 0, 0, 0, 60000)
    play(policy, target, clock, 1)
    budgets = [look(policy, machine, clock, target, 5000).budget for _ in range(6)]  # 26.2 pages each
    assert budgets == [None, None, 78, None, None, 78]


def test_what_is_to_stay_stays() -> None:
    policy, machine, clock = watched({"keep": "100%"})
    target = with_ages(0, 0, 0, 0, PAGES_HELD)
    play(policy, target, clock, 1)
    assert [list(look(policy, machine, clock, target, 0).writes) for _ in range(3)] == [[], [], []]


def test_a_cgroup_and_the_stall_of_all_can_be_the_source() -> None:
    policy, machine, clock = watched({"source": "/sys/fs/cgroup/app/memory.pressure", "kind": "full"})
    target = with_ages(0, 0, 0, 0, 60000)
    assert "no pressure to be read from /sys/fs/cgroup/app" in policy.tick(target, 0.0).reason
    machine.set_stall(0, "/sys/fs/cgroup/app/memory.pressure")
    play(policy, target, clock, 1)
    machine.set_stall(30_000, "/sys/fs/cgroup/app/memory.pressure")  # 15 ms of all
    assert policy.tick(target, 6.0).reason.startswith("stall 15 ms of 10 ms, backing off")


def test_without_access_times_what_stayed_marked_goes() -> None:
    policy, machine, clock = watched()
    target = FakeTarget()
    target.capabilities = frozenset({"idle", "writeback"})  # type: ignore[attr-defined]  # as such a kernel's has
    play(policy, target, clock, 1)
    tick = look(policy, machine, clock, target, 0)
    assert list(tick.writes) == [("writeback", "huge_idle"), ("writeback", "idle"), ("idle", "all")]
    assert tick.budget == PAGES_HELD // 100
