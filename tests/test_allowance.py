"""Budgets of writeback on a real device: a round's, a day's, and a limit that was there before."""

from __future__ import annotations

import errno
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from zramcore.allowance import DailyBudget, pages_written, write_back_within
from zramcore.control import Control, Target
from zramcore.errors import BudgetExhausted, InvalidValue
from zramcore.interfaces import Catalogue, Tick, WritebackPolicy
from zramcore.scheduler import Report, Scheduler
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
