"""adaptive against the constants and formulas that mmd, ChromeOS and Android publish: ZRAM.md 3.1."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import pytest

from zramcore.errors import InvalidValue
from zramcore.interfaces import Tick, WritebackPolicy
from zramcore.scheduler import Scheduler
from zramcore.testing.policy import FakeMachine, FakeTarget, PolicyConformance, VirtualClock, play
from zramcore_plugins.policies import Adaptive
from zramcore_plugins.policies.adaptive import idle_age, round_pages
from zramcore_plugins.policies.presets import PRESETS

HOUR, MIB = 3600.0, 1 << 20
PAGES_OF_MIB = 256
GIB_OF_PAGES = 262144


class TestMmd(PolicyConformance):
    def create(self, options: Mapping[str, str]) -> WritebackPolicy:
        return Adaptive(options)


class TestAndroidClassic(PolicyConformance):
    def create(self, options: Mapping[str, str]) -> WritebackPolicy:
        return Adaptive({"preset": "android-classic", **options})

    def test_options_are_documented(self) -> None:
        assert self.create({}).values["preset"] == "android-classic"


def full_target(original: int = 4 << 30, disksize: int = 4 << 30) -> FakeTarget:
    """A device of 4 GiB, full unless it is said."""
    target = FakeTarget()
    target.values["disksize"] = f"{disksize}\n"
    target.values["mm_stat"] = f"{original} 80530636 83886080 0 92274688 0 0 0 0\n"
    return target


class Spends(FakeTarget):
    """A writeback writes `pages`, or what the budget leaves; each is 4 KiB."""

    def __init__(self, pages: int) -> None:
        super().__init__()
        self.pages = pages
        self.values.update(full_target().values)

    def store(self, attribute: str, value: str) -> None:
        super().store(attribute, value)
        if attribute == "writeback":
            written = self.pages
            if self.values["writeback_limit_enable"].strip() == "1":
                left = int(self.values["writeback_limit"])
                written = min(written, left)
                self.values["writeback_limit"] = f"{left - written}\n"
            total = int(self.values["bd_stat"].split()[2]) + written
            self.values["bd_stat"] = f"{total} 0 {total}\n"


def after_first(policy: Adaptive, target: FakeTarget, clock: VirtualClock) -> Tick:
    """The first round, after the wait for it."""
    play(policy, target, clock, 1)
    return play(policy, target, clock, 1)[0]


# The age: "u = 1 - MemAvailable/MemTotal; age = (max - min) * e^(-5u) + min" ------------------------------------------


@pytest.mark.parametrize(
    ("free", "seconds"),
    [
        (1.0, 90000.0),  # u = 0: max, 25 h
        (0.75, 77157.08632674342),  # u = 0.25: 18000 * e^-1.25 + 72000
        (0.5, 73477.52997723017),  # u = 0.5: 18000 * e^-2.5 + 72000
        (0.25, 72423.31922410215),  # u = 0.75: 18000 * e^-3.75 + 72000
        (0.0, 72121.28304598344),  # u = 1: 18000 * e^-5 + 72000, not quite min
    ],
)
def test_the_age_falls_with_free_memory_as_in_mmd_and_chromeos(free: float, seconds: float) -> None:
    machine = FakeMachine()
    machine.set_free(free)
    assert idle_age(20 * HOUR, 25 * HOUR, machine) == pytest.approx(seconds, rel=1e-6)


def test_the_age_is_the_oldest_where_memory_is_not_known() -> None:
    # "On unreadable meminfo ChromeOS falls back to max, mmd errors."
    assert idle_age(20 * HOUR, 25 * HOUR, FakeMachine()) == 25 * HOUR


def test_the_age_is_written_in_whole_seconds_rounded_up_and_lengthened_by_sleep() -> None:
    # "(+ time suspended within that age)"
    policy, clock = Adaptive({}), VirtualClock()
    policy.machine = machine = FakeMachine()
    machine.set_free(0.5)
    tick = after_first(policy, full_target(), clock)
    assert tick.writes[0] == ("idle", "73478")
    machine.slept = 5000.0
    (tick,) = play(policy, full_target(), clock, 1)
    assert tick.writes[0] == ("idle", "78478")


# The round: "pages = (orig_data_size/4096 * 10000 / disk_pages) * max_pages / 10000" ----------------------------------


@pytest.mark.parametrize(
    ("original", "disksize", "pages"),
    [
        (4 << 30, 4 << 30, 76800),  # full: all of 300 MiB
        (1 << 30, 4 << 30, 19200),  # a quarter: 75 MiB
        (64 << 20, 4 << 30, 1198),  # 16384 * 10000 / 1048576 = 156 (of 156.25); 156 * 76800 / 10000 = 1198 (of 1198.08)
        (0, 4 << 30, 0),
        (4096, 0, 76800),
    ],
)
def test_a_round_is_as_large_as_the_device_is_full_in_fixed_point(original: int, disksize: int, pages: int) -> None:
    assert round_pages(original, disksize, 76800) == pages


@pytest.mark.parametrize(
    ("original", "options", "pages"),
    [
        (4 << 30, {}, 300 * PAGES_OF_MIB),
        (1 << 30, {}, 75 * PAGES_OF_MIB),
        (64 << 20, {}, None),  # 4.7 MiB: "0 if < min" of 5 MiB
        (70 << 20, {}, 1305),  # 5.1 MiB: 170 * 76800 / 10000
        (4 << 30, {"backing_size": "100M"}, 100 * PAGES_OF_MIB),  # "min with free backing blocks"
        (4 << 30, {"backing_size": "4M"}, None),
        (4 << 30, {"max_round": "50M"}, 50 * PAGES_OF_MIB),  # "cap max"
        (4 << 30, {"per_day": "40M"}, 40 * PAGES_OF_MIB),  # "min with what is left of the sliding 24 h budget"
        (4 << 30, {"per_day": "1M"}, PAGES_OF_MIB),  # the minimum is of the round, before the day's rest
        (4 << 30, {"max_round": "0", "min_round": "0", "per_day": "0"}, -1),
    ],
)
def test_round_budgets(original: int, options: dict[str, str], pages: int | None) -> None:
    tick = after_first(Adaptive(options), full_target(original), VirtualClock())
    if pages is None:
        assert list(tick.writes) == []
        assert "less than a round of 5 MiB" in tick.reason
    else:
        assert tick.budget == (None if pages == -1 else pages)


def test_blocks_in_use_are_not_free() -> None:
    target = full_target()
    target.values["bd_stat"] = f"{60 * PAGES_OF_MIB} 0 0\n"
    assert after_first(Adaptive({"backing_size": "100M"}), target, VirtualClock()).budget == 40 * PAGES_OF_MIB


# Presets: the table of 3.1, column by column --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "first", "period", "backoff", "ages", "rounds", "per_day", "modes"),
    [
        ("mmd", 1, 1, 600, (20, 25), (5, 300), 1024, "huge_idle,idle"),
        ("chromeos", 1, 1, 600, (20, 25), (5, 300), 1024, "huge_idle,idle,huge"),
        ("android-classic", 3, 24, 0, (0, 0), (0, 0), 0, "idle"),
    ],
)
def test_a_preset_has_the_figures_of_its_column(
    preset: str,
    first: int,
    period: int,
    backoff: int,
    ages: tuple[int, int],
    rounds: tuple[int, int],
    per_day: int,
    modes: str,
) -> None:
    found = PRESETS[preset]
    assert (found.first, found.period, found.backoff) == (first * HOUR, period * HOUR, backoff)
    assert (found.min_age, found.max_age) == tuple(hours * HOUR for hours in ages)
    assert (found.min_round, found.max_round, found.per_day) == tuple(size * MIB for size in (*rounds, per_day))
    assert found.modes == modes


@pytest.mark.parametrize("preset", ["mmd", "chromeos"])
@pytest.mark.parametrize(("free", "age"), [(1.0, 90000), (0.5, 73478), (0.0, 72122)])
def test_a_round_of_a_preset_marks_by_its_ages_and_is_cut_to_its_budgets(preset: str, free: float, age: int) -> None:
    policy, machine = Adaptive({"preset": preset}), FakeMachine()
    policy.machine = machine
    machine.set_free(free)
    tick = after_first(policy, full_target(), VirtualClock())
    assert tick.writes[0] == ("idle", str(age))
    assert (tick.budget, tick.next_in) == (300 * PAGES_OF_MIB, HOUR)


# Modes, periods, back-off ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "modes"), [("mmd", ["huge_idle", "idle"]), ("chromeos", ["huge_idle", "idle", "huge"])]
)
def test_modes_in_order(preset: str, modes: list[str]) -> None:
    # table of 3.1, row "modes": mmd has huge off
    tick = after_first(Adaptive({"preset": preset}), full_target(), VirtualClock())
    assert list(tick.writes) == [("idle", "90000"), *(("writeback", mode) for mode in modes)]
    assert tick.next_in == HOUR
    assert tick.reason == "age 25.0 h, budget 300 MiB"


def test_the_first_round_is_after_an_hour() -> None:
    # row "period": 1 h first, 1 h then
    (tick,) = play(Adaptive({}), full_target(), VirtualClock(), 1)
    assert (list(tick.writes), tick.next_in, tick.reason) == ([], HOUR, "first round in 60 min")


def test_back_off_is_ten_minutes_however_often_it_is_asked() -> None:
    # row "backoff": 600 s
    policy, target, clock = Adaptive({}), full_target(), VirtualClock()
    after_first(policy, target, clock)
    early = policy.tick(target, HOUR + 200.0)
    assert (list(early.writes), early.next_in) == ([], 400.0)
    assert early.reason == "backing off, next round in 7 min"
    assert list(policy.tick(target, HOUR + 600.0).writes) != []


# The day --------------------------------------------------------------------------------------------------------------


def drive(policy: Adaptive, target: FakeTarget, hours: float) -> Scheduler:
    scheduler = Scheduler(clock=VirtualClock())
    scheduler.add(target, policy)
    scheduler.run(until=hours * HOUR)
    return scheduler


def test_a_day_of_rounds_stops_at_a_gibibyte_and_goes_on_when_the_window_has_slid() -> None:
    # row "per day": 1 GiB; rounds of 300 MiB at 1 h, 2 h, 3 h, the rest of 124 MiB at 4 h, then none before 25 h
    target = Spends(10**6)
    policy = Adaptive({})
    drive(policy, target, 24.9)
    assert int(target.values["bd_stat"].split()[2]) == GIB_OF_PAGES
    target = Spends(10**6)
    drive(Adaptive({}), target, 25.1)
    assert int(target.values["bd_stat"].split()[2]) == GIB_OF_PAGES + 300 * PAGES_OF_MIB


def test_no_window_of_a_day_ever_holds_more_than_the_budget() -> None:
    target = Spends(33 * PAGES_OF_MIB)
    seen: list[tuple[float, int]] = []

    def note(report: object) -> None:
        seen.append((scheduler.clock.now(), int(target.values["bd_stat"].split()[2])))

    scheduler = Scheduler(clock=VirtualClock(), on_report=note)
    scheduler.add(target, Adaptive({"per_day": "500M", "modes": "huge_idle,idle,huge"}))
    scheduler.run(until=24 * 7 * HOUR)
    assert seen[-1][1] > 5 * 500 * PAGES_OF_MIB, "a week of it"
    for at, total in seen:
        before = max((written for when, written in seen if when <= at - 24 * HOUR), default=0)
        assert total - before <= 500 * PAGES_OF_MIB


def test_a_sum_over_the_limit_leaves_nothing_and_does_not_wrap() -> None:
    # "ChromeOS GetWritebackDailyLimit computes max(limit - sum, 0) on unsigned values (wraps if sum > limit)"
    policy, target, clock = Adaptive({}), full_target(), VirtualClock()
    play(policy, target, clock, 1)
    target.values["bd_stat"] = f"0 0 {2 * GIB_OF_PAGES}\n"  # somebody wrote 2 GiB by hand
    (tick,) = play(policy, target, clock, 1)
    assert list(tick.writes) == []
    assert tick.reason == "age 25.0 h, no round: the day's 1 GiB are written, room again in 24.0 h"


def test_each_device_counts_its_own_writes_once() -> None:
    # "mmd records details.written_pages_4k (cumulative over devices) ..., so a second device is over-counted"
    targets = [Spends(100), Spends(50)]
    policies = [Adaptive({"modes": "idle"}), Adaptive({"modes": "idle"})]
    scheduler = Scheduler(clock=VirtualClock())
    for target, policy in zip(targets, policies, strict=True):
        scheduler.add(target, policy)
    scheduler.run(until=3 * HOUR)
    assert [policy.history.total(3 * HOUR) for policy in policies] == [300, 150]


def test_the_day_survives_a_restart() -> None:
    target, policy = Spends(10**6), Adaptive({})
    scheduler = drive(policy, target, 4.0)
    state = json.loads(json.dumps(dict(policy.state(scheduler.clock.now()))))
    again = Adaptive({})
    again.restore(state, 0.0, elapsed=2 * HOUR)
    clock = VirtualClock()
    tick = after_first(again, target, clock)
    assert "no round: the day's" in tick.reason
    assert again.history.total(18.9 * HOUR) == GIB_OF_PAGES
    assert again.history.total(19.1 * HOUR) < GIB_OF_PAGES, "the first round was 5 h before"


# Without access times -------------------------------------------------------------------------------------------------


def test_without_access_times_it_marks_waits_drains_and_marks_again() -> None:
    # "mmd without ACTIME: mark all, wait min idle age, write until drained, mark all again"
    target = Spends(10**6)
    target.capabilities = frozenset({"idle", "writeback"})  # type: ignore[attr-defined]  # as such a kernel's has
    clock = VirtualClock()
    reports = []
    scheduler = Scheduler(clock=clock, on_report=reports.append)
    scheduler.add(target, Adaptive({"per_day": "0", "modes": "idle"}))
    scheduler.run(until=21.9 * HOUR)
    made = [
        (report.at / HOUR, [write.value for write in report.writes if write.attribute in ("idle", "writeback")])
        for report in reports
    ]
    assert made == [(0.0, ["all"]), (20.0, ["idle"]), (21.0, ["idle"])]
    target.pages = 10  # all that is still marked
    reports.clear()
    scheduler.run(until=24.0 * HOUR)
    made = [(report.at / HOUR, [write.value for write in report.writes]) for report in reports]
    assert made == [(22.0, ["idle"]), (23.0, ["all"])]
    assert scheduler.next_due == 43 * HOUR


def test_android_classic_marks_after_20_minutes_and_writes_after_180_and_then_daily() -> None:
    # ZramWriteback.java: 0x14 min, 0xb4 min, 0x18 h; marks all, writes what is still idle next time
    clock, target = VirtualClock(), full_target()
    times = []
    policy = Adaptive({"preset": "android-classic"})
    for _ in range(5):
        at = clock.now()
        (tick,) = play(policy, target, clock, 1)
        times.append((at / 60, list(tick.writes), tick.budget))
    write = [("writeback", "idle"), ("idle", "all")]
    assert times == [
        (0.0, [], None),
        (20.0, [("idle", "all")], None),
        (180.0, write, None),
        (180.0 + 1440, write, None),
        (180.0 + 2880, write, None),
    ]


# Where it cannot ------------------------------------------------------------------------------------------------------


def test_it_says_why_it_does_nothing() -> None:
    target = full_target()
    target.values["backing_dev"] = "none\n"
    tick = Adaptive({}).tick(target, 0.0)
    assert (list(tick.writes), tick.reason) == ([], "zram0 has no backing device")


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "none"},
        {"min_age": "26h"},
        {"min_round": "301M"},
        {"modes": "idle,idle"},
        {"modes": "all"},
        {"per_day": "lots"},
        {"period": "0"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidValue):
        Adaptive(options)


def test_the_log_line_is_the_one_promised() -> None:
    target, reports = Spends(41 * PAGES_OF_MIB), []
    scheduler = Scheduler(clock=VirtualClock(), machine=(machine := FakeMachine()), on_report=reports.append)
    machine.set_free(1 + math.log(1.3 / 5) / 5)  # the age is then 20 + 5 * 1.3 / 5 = 21.3 h
    scheduler.add(target, Adaptive({"modes": "idle"}))
    scheduler.run(until=HOUR)
    assert reports[-1].decision() == (
        "zram0 adaptive: age 21.3 h, budget 300 MiB, wrote 41 MiB, freed 0 B, stopped: nothing left"
    )
