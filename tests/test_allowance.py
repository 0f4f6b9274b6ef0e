"""Budgets of writeback on a real device: a round's, a day's, and a limit that was there before."""

from __future__ import annotations

import errno
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from zramcore.allowance import DailyBudget, pages_written, write_back_within
from zramcore.control import Control, Target
from zramcore.device import Device
from zramcore.errors import BudgetExhausted, InvalidValue, ZramError
from zramcore.interfaces import Catalogue, Tick, WritebackPolicy
from zramcore.scheduler import Report, Scheduler
from zramcore.testing.faults import FaultyDriver, Gate
from zramcore.testing.policy import FakeTarget, VirtualClock
from zramcore.write_history import DAY

MakeTarget = Callable[[], Target]
PAGES = 64


@pytest.fixture
def filled(built_in: Catalogue, tmp_path: Path) -> Target:
    """A device of 64 incompressible pages, all idle, with room for all of them on its backing file."""
    control = Control(built_in)
    target = control.target(f"zram{control.hot_add()}")
    target.store("backing_dev", f"file:{tmp_path}/backing,size=1M")
    target.store("disksize", str(PAGES * 4096))
    target.device.pwrite(0, random.Random(1).randbytes(PAGES * 4096))
    target.store("idle", "all")
    return target


class Writes(WritebackPolicy):
    """Writes idle pages back in two writes with one budget."""

    name = "writes"
    writes = ("writeback", "writeback_limit", "writeback_limit_enable")

    def __init__(self, budget: int | None, *before: tuple[str, str]) -> None:
        super().__init__({})
        self.tick_of = Tick((*before, ("writeback", "huge_idle"), ("writeback", "idle")), 3600.0, "", budget)

    def tick(self, target: object, now: float) -> Tick:
        return self.tick_of


def run(target: Target, *policies: WritebackPolicy, daily: DailyBudget | None = None) -> list[Report]:
    scheduler = Scheduler(clock=VirtualClock())
    for policy in policies:
        scheduler.add(target, policy, daily)
    return scheduler.run_due()


def test_a_budget_holds_and_leaves_no_limit_behind(filled: Target) -> None:
    with pytest.raises(BudgetExhausted) as caught:
        write_back_within(filled, "idle", 10)
    assert caught.value.errno == errno.EIO
    assert pages_written(filled) == 10
    assert filled.show("writeback_limit_enable") == "0\n"
    assert filled.show("writeback_limit") == "0\n"
    write_back_within(filled, "idle", PAGES)
    assert pages_written(filled) == PAGES


def test_a_limit_that_was_there_is_kept_and_charged(filled: Target) -> None:
    filled.store("writeback_limit", "30")
    filled.store("writeback_limit_enable", "1")
    with pytest.raises(BudgetExhausted):
        write_back_within(filled, "idle", 10)
    assert (filled.show("writeback_limit"), filled.show("writeback_limit_enable")) == ("20\n", "1\n")
    with pytest.raises(BudgetExhausted):
        write_back_within(filled, "idle", 50)
    assert pages_written(filled) == 30
    assert filled.show("writeback_limit") == "0\n"


def test_nothing_is_written_without_a_budget_or_a_limit_to_keep_it(filled: Target) -> None:
    with pytest.raises(BudgetExhausted):
        write_back_within(filled, "idle", 0)
    assert pages_written(filled) == 0
    bare = FakeTarget(values={})
    with pytest.raises(InvalidValue, match="no writeback_limit"):
        write_back_within(bare, "idle", 10)
    assert bare.written == []


def test_a_failed_writeback_puts_the_limit_back() -> None:
    target = FakeTarget()
    target.errors["writeback"] = InvalidValue("no such thing")
    with pytest.raises(InvalidValue):
        write_back_within(target, "nonsense", 10)
    assert (target.values["writeback_limit"], target.values["writeback_limit_enable"]) == ("0\n", "0\n")


def test_the_writebacks_of_a_tick_share_its_budget(filled: Target) -> None:
    (report,) = run(filled, Writes(25))
    assert pages_written(filled) == 25
    assert [write.ended for write in report.writes] == ["EIO", "EIO"]
    assert report.error == ""


def test_policies_share_a_day(filled: Target) -> None:
    daily = DailyBudget(40)
    reports = run(filled, Writes(25), Writes(None), Writes(None), daily=daily)
    assert pages_written(filled) == 40
    assert [report.written_back for report in reports] == [25 * 4096, 15 * 4096, 0]
    assert daily.left(0.0) == 0
    assert daily.room_in(0.0) == DAY


def test_a_policy_with_a_limit_of_its_own_does_not_get_around_the_day(filled: Target) -> None:
    own = [("writeback_limit", "1000"), ("writeback_limit_enable", "1")]
    run(filled, Writes(None, *own), daily=DailyBudget(40))
    assert pages_written(filled) == 40


def test_what_others_wrote_counts_and_a_reset_does_not_confuse_it() -> None:
    target, daily = FakeTarget(), DailyBudget(100)
    target.values["bd_stat"] = "0 0 500\n"
    daily.look(target, 0.0)
    assert daily.left(0.0) == 100, "what was written before it was there"
    target.values["bd_stat"] = "0 0 530\n"
    daily.look(target, 10.0)
    assert daily.left(10.0) == 70
    target.values["bd_stat"] = "0 0 20\n"
    daily.look(target, 20.0)
    assert daily.left(20.0) == 50


def test_a_day_survives_a_restart() -> None:
    target, daily = FakeTarget(), DailyBudget(100)
    daily.look(target, 1000.0)
    target.values["bd_stat"] = "0 0 60\n"
    daily.look(target, 1000.0)
    state = json.loads(json.dumps(daily.state(1600.0)))
    target.values["bd_stat"] = "0 0 75\n"  # somebody wrote while nobody looked
    again = DailyBudget(100)
    again.restore(state, 5.0, elapsed=400.0)
    again.look(target, 5.0)
    assert again.left(5.0) == 25
    assert again.left(5.0 + DAY - 1000.0) == 85
    odd = DailyBudget(100)
    odd.restore({"written": "x", "seen": {"zram0": "y"}}, 0.0, 0.0)
    odd.look(target, 0.0)
    assert odd.left(0.0) == 100


# Several at once ------------------------------------------------------------------------------------------------------


def test_what_one_writeback_may_write_nobody_else_gets_meanwhile() -> None:
    one, other, daily = FakeTarget("zram0"), FakeTarget("zram1"), DailyBudget(100)
    assert daily.reserve(one, 0.0, 70) == 70
    assert daily.reserve(other, 0.0, None) == 30
    assert daily.reserve(other, 0.0, 5) == 0
    one.values["bd_stat"] = "0 0 20\n"
    daily.settle(one, 1.0, 70)
    assert daily.left(1.0) == 50, "20 are written, 30 still reserved"
    daily.settle(other, 1.0, 30)
    daily.settle(other, 1.0, 0)
    assert daily.left(1.0) == 80


def test_devices_of_one_name_are_told_apart_by_their_labels() -> None:
    ours, kernels, daily = FakeTarget("zram0"), FakeTarget("zram0"), DailyBudget(100)
    for label, target in (("fast", ours), ("swap", kernels)):
        daily.look(target, 0.0, label)
    ours.values["bd_stat"] = "0 0 40\n"
    daily.look(ours, 1.0, "fast")
    daily.look(kernels, 1.0, "swap")
    assert daily.left(1.0) == 60


def test_threads_that_share_a_day_never_write_more(built_in: Catalogue, tmp_path: Path) -> None:
    control, daily = Control(built_in), DailyBudget(50)
    targets = []
    for number in range(3):
        target = control.target(f"zram{control.hot_add()}")
        target.store("backing_dev", f"file:{tmp_path}/b{number},size=1M")
        target.store("disksize", str(PAGES * 4096))
        target.device.pwrite(0, random.Random(number).randbytes(PAGES * 4096))
        target.store("idle", "all")
        targets.append(target)
    start = threading.Barrier(len(targets))

    def write_back(target: Target) -> None:
        scheduler = Scheduler(clock=VirtualClock())
        for budget in (7, 11, None):
            scheduler.add(target, Writes(budget), daily)
        start.wait(10)
        scheduler.run_due()

    threads = [threading.Thread(target=write_back, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(pages_written(target) or 0 for target in targets) == 50
    assert daily.left(0.0) == 0


# Turns ----------------------------------------------------------------------------------------------------------------


def test_a_pass_by_hand_and_a_round_take_turns_and_neither_meets_the_others_limit(
    catalogue: Catalogue, device: Callable[..., Device], disk: Callable[[], FaultyDriver]
) -> None:
    new = device(PAGES, blocks=PAGES)
    new.pwrite(0, random.Random(1).randbytes(PAGES * 4096))
    target = Target(new)
    target.store("idle", "all")
    with Gate() as gate:
        disk().on_write = gate
        by_hand = threading.Thread(target=target.store, args=("writeback", "huge"))
        by_hand.start()
        gate.wait()
        round_ = threading.Thread(target=run, args=(target, Writes(5)))
        round_.start()
        limit = threading.Thread(target=target.store, args=("writeback_limit", "77"))
        limit.start()
        assert target.show("writeback_limit_enable") == "0\n", "the round waits with its limit too"
        gate.open()
        for thread in (by_hand, round_, limit):
            thread.join(30)
    assert pages_written(target) == PAGES, "the pass by hand was not cut short"
    assert (target.show("writeback_limit"), target.show("writeback_limit_enable")) == ("77\n", "0\n")


# Slices ---------------------------------------------------------------------------------------------------------------


class Sliced(Target):
    """A target whose passes cannot be interrupted, like the kernel's."""

    slice_units = 10

    def store(self, attribute: str, value: str) -> None:
        if attribute == "writeback_limit":
            self.limits = [*getattr(self, "limits", []), int(value)]
        super().store(attribute, value)


@pytest.mark.parametrize(
    ("allowance", "enabled", "limits", "written", "after"),
    [
        (None, None, [10] * 7 + [0], PAGES, ("0\n", "0\n")),
        (25, None, [10, 10, 5, 0], 25, ("0\n", "0\n")),
        (None, 33, [10, 10, 10, 3, 0], 33, ("0\n", "1\n")),
        (15, 33, [10, 5, 18], 15, ("18\n", "1\n")),
    ],
)
def test_a_pass_that_cannot_be_interrupted_is_made_in_slices(
    filled: Target,
    allowance: int | None,
    enabled: int | None,
    limits: list[int],
    written: int,
    after: tuple[str, str],
) -> None:
    if enabled is not None:
        filled.store("writeback_limit", str(enabled))
        filled.store("writeback_limit_enable", "1")
    target = Sliced(filled.device)
    if written < PAGES:
        with pytest.raises(BudgetExhausted):
            write_back_within(target, "idle", allowance)
    else:
        write_back_within(target, "idle", allowance)
    assert target.limits == limits
    assert pages_written(target) == written
    assert (target.show("writeback_limit"), target.show("writeback_limit_enable")) == after


def test_it_stops_between_two_slices(filled: Target) -> None:
    target = Sliced(filled.device)
    answers = iter([False, False, True])
    with pytest.raises(ZramError) as caught:
        write_back_within(target, "idle", None, lambda: next(answers))
    assert caught.value.errno == errno.EINTR
    assert pages_written(target) == 30
    assert target.show("writeback_limit_enable") == "0\n"
