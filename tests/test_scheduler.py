"""Scheduler: when policies are ticked, what happens to their writes, failures, and stopping."""

from __future__ import annotations

import errno
import logging
import math
import threading
import time
from collections.abc import Callable

import pytest

from zramcore.errors import BudgetExhausted, DeviceIOError, InvalidValue, NoSpace
from zramcore.interfaces import PolicyTarget, Tick, WritebackPolicy
from zramcore.machine import Machine, RunningMachine
from zramcore.scheduler import MIN_INTERVAL, Report, Scheduler
from zramcore.testing.policy import FakeTarget, VirtualClock


class Scripted(WritebackPolicy):
    """Decides what its function says; remembers when it was asked."""

    name = "scripted"
    writes = ("idle", "writeback", "recompress", "compact")

    def __init__(self, decide: Callable[[float], object]) -> None:
        super().__init__({})
        self.decide = decide
        self.times: list[float] = []

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        self.times.append(now)
        return self.decide(now)  # type: ignore[return-value]  # some tests return what the contract forbids


def every(seconds: float, *writes: tuple[str, str]) -> Scripted:
    return Scripted(lambda now: Tick(writes, seconds, "because"))


def make(clock: VirtualClock | None = None) -> tuple[Scheduler, VirtualClock, list[Report]]:
    clock = clock or VirtualClock()
    reports: list[Report] = []
    return Scheduler(clock=clock, on_report=reports.append, backoff=(10.0, 80.0)), clock, reports


# When ------------------------------------------------------------


def test_each_policy_is_ticked_when_it_asked() -> None:
    scheduler, clock, _ = make(VirtualClock(100.0))
    quick, slow = every(3.0), every(7.0)
    scheduler.add(FakeTarget("zram0"), quick)
    scheduler.add(FakeTarget("zram1"), slow)
    scheduler.run(until=115.0)
    assert quick.times == [100.0, 103.0, 106.0, 109.0, 112.0, 115.0]
    assert slow.times == [100.0, 107.0, 114.0]
    assert clock.now() == 115.0
    assert scheduler.next_due == 118.0


def test_policies_due_together_run_in_the_order_they_were_added() -> None:
    scheduler, _, reports = make()
    target = FakeTarget()
    scheduler.add(target, every(5.0, ("idle", "all")))
    scheduler.add(target, every(5.0, ("writeback", "idle")))
    scheduler.run(until=5.0)
    assert target.written == [("idle", "all"), ("writeback", "idle")] * 2
    assert [report.at for report in reports] == [0.0, 0.0, 5.0, 5.0]


def test_a_machine_that_slept_catches_up_once() -> None:
    scheduler, clock, _ = make()
    policy = every(10.0)
    scheduler.add(FakeTarget(), policy)
    scheduler.run_due()
    clock.advance(1000.0)
    scheduler.run_due()
    scheduler.run_due()
    assert policy.times == [0.0, 1000.0]


def test_a_policy_in_a_hurry_does_not_spin() -> None:
    scheduler, clock, reports = make()
    scheduler.add(FakeTarget(), every(1e-12))
    scheduler.run(until=10 * MIN_INTERVAL)
    assert len(reports) <= 12
    assert min(clock.waits) > 0


def test_without_policies_it_waits_for_the_end() -> None:
    scheduler, clock, reports = make()
    assert scheduler.next_due is None
    scheduler.run(until=60.0)
    assert (clock.now(), reports) == (60.0, [])


# Woken ------------------------------------------------------------


class Watched(FakeTarget):
    """A target that can tell: `grow` says that its pool has so many bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.watches: dict[object, tuple[int, Callable[[], None]]] = {}

    def watch_memory(self, owner: object, size: int | None, tell: Callable[[], None]) -> None:
        self.watches.pop(owner, None)
        if size is not None:
            self.watches[owner] = size, tell

    def grow(self, size: int) -> None:
        for owner, (mark, tell) in list(self.watches.items()):
            if size > mark:
                del self.watches[owner]
                tell()


def waking(seconds: float, above: int | None) -> Scripted:
    return Scripted(lambda now: Tick((), seconds, "because", wake_above=above))


def test_a_policy_is_woken_when_its_target_grows() -> None:
    scheduler, clock, _ = make()
    target, sleeper, low, high = Watched(), waking(100.0, None), waking(100.0, 10), waking(100.0, 20)
    for policy in (sleeper, low, high):
        scheduler.add(target, policy)
    scheduler.run_due()
    clock.advance(5.0)
    target.grow(15)
    scheduler.run_due()
    clock.advance(5.0)
    target.grow(25)
    assert scheduler.next_due is not None
    assert scheduler.next_due <= clock.now()
    scheduler.run_due()
    assert (sleeper.times, low.times, high.times) == ([0.0], [0.0, 5.0, 10.0], [0.0, 10.0])
    scheduler.run(until=100.0)
    assert sleeper.times == [0.0, 100.0]


def test_a_policy_that_is_always_woken_does_not_spin() -> None:
    scheduler, _, reports = make()
    target = Watched()
    policy = Scripted(lambda now: Tick((), 100.0, "because", wake_above=0))
    scheduler.add(target, policy)

    def count_and_grow(report: Report) -> None:
        reports.append(report)
        target.grow(1)

    scheduler._on_report = count_and_grow
    scheduler.run(until=10 * MIN_INTERVAL)
    assert 5 <= len(reports) <= 12


def test_a_failing_policy_is_not_woken() -> None:
    scheduler, _, _ = make()
    target = Watched()
    target.errors["writeback"] = DeviceIOError("broken")
    policy = Scripted(lambda now: Tick((("writeback", "idle"),), 1.0, "because", wake_above=0))
    scheduler.add(target, policy)
    scheduler.run_due()
    target.grow(1)
    scheduler.run(until=9.0)
    assert policy.times == [0.0]


@pytest.mark.parametrize("above", ["1G", 1.5])
def test_wake_above_is_a_number_of_bytes(above: object) -> None:
    scheduler, _, reports = make()
    scheduler.add(Watched(), Scripted(lambda now: Tick((), 1.0, "because", wake_above=above)))  # type: ignore[arg-type]
    scheduler.run_due()
    assert "its wake_above is" in reports[0].error


def test_a_sleeping_thread_is_woken_and_nobody_after_its_end() -> None:
    """By the real clock: the policy has an hour to sleep."""
    scheduler, target, ticked = Scheduler(), Watched(), threading.Semaphore(0)

    def decide(now: float) -> Tick:
        ticked.release()
        return Tick((), 3600.0, "because", wake_above=10)

    scheduler.add(target, Scripted(decide))
    scheduler.start()
    assert ticked.acquire(timeout=10)
    deadline = time.monotonic() + 10
    while not target.watches and time.monotonic() < deadline:
        time.sleep(0.001)
    target.grow(11)
    assert ticked.acquire(timeout=10)
    assert scheduler.stop(timeout=10)
    assert target.watches == {}


# What was done ------------------------------------------------------------


class Shrinking(FakeTarget):
    """A writeback frees 8 pages of memory and writes 5."""

    def store(self, attribute: str, value: str) -> None:
        super().store(attribute, value)
        if attribute == "writeback":
            columns = self.values["mm_stat"].split()
            columns[2] = str(int(columns[2]) - 8 * 4096)
            self.values["mm_stat"] = " ".join(columns)
            self.values["bd_stat"] = "5 0 5\n"


def test_a_report_says_what_was_freed_and_written(caplog: pytest.LogCaptureFixture) -> None:
    scheduler, _, reports = make()
    scheduler.add(Shrinking(), every(60.0, ("writeback", "idle")))
    with caplog.at_level(logging.INFO, "zramcore.scheduler"):
        assert scheduler.run_due() == reports
    (report,) = reports
    assert (report.target, report.policy, report.reason) == ("zram0", "scripted", "because")
    assert (report.freed, report.written_back) == (8 * 4096, 5 * 4096)
    assert caplog.messages == [report.decision()]
    assert report.decision() == "zram0 scripted: because, wrote 20 KiB, freed 32 KiB, stopped: nothing left"


@pytest.mark.parametrize(
    ("error", "words"), [(NoSpace("full"), "the backing device is full"), (BudgetExhausted("spent"), "budget used up")]
)
def test_a_decision_says_what_stopped_it(error: OSError, words: str) -> None:
    scheduler, _, reports = make()
    target = FakeTarget()
    target.errors["writeback"] = error
    scheduler.add(target, every(60.0, ("writeback", "idle")))
    scheduler.run_due()
    assert reports[0].decision() == f"zram0 scripted: because, wrote 0 B, freed 0 B, stopped: {words}"


def test_a_failed_decision_says_why_and_when_it_is_tried_again() -> None:
    scheduler, _, reports = make()
    target = FakeTarget()
    target.errors["writeback"] = InvalidValue("no such thing")
    scheduler.add(target, every(60.0, ("writeback", "idle")))
    scheduler.run_due()
    assert reports[0].decision().endswith("freed 0 B, writeback=idle: no such thing (EINVAL), next try in 10 s")


class LooksBack(Scripted):
    """Notes what the target shows after its writes, or fails to."""

    def settle(self, target: PolicyTarget, now: float) -> None:
        self.seen = target.show("writeback_limit")
        if self.seen == "13\n":
            raise RuntimeError("unlucky")

    writes = ("writeback_limit", "writeback")


def test_a_policy_looks_back_after_its_writes_also_when_one_failed() -> None:
    scheduler, clock, reports = make()
    target = FakeTarget()
    policy = LooksBack(lambda now: Tick((("writeback_limit", "7"), ("writeback", "idle")), 60.0, "because"))
    scheduler.add(target, policy)
    scheduler.run_due()
    assert (policy.seen, reports[-1].error) == ("7\n", "")
    target.errors["writeback"] = InvalidValue("no such thing")
    policy.decide = lambda now: Tick((("writeback_limit", "8"), ("writeback", "idle")), 60.0)
    clock.advance(60.0)
    scheduler.run_due()
    assert policy.seen == "8\n"
    assert "no such thing" in reports[-1].error


def test_a_policy_that_fails_to_look_back_backs_off() -> None:
    scheduler, _, reports = make()
    policy = LooksBack(lambda now: Tick((("writeback_limit", "13"),), 60.0))
    scheduler.add(FakeTarget(), policy)
    scheduler.run_due()
    assert reports[0].error.endswith("raised RuntimeError: unlucky")
    assert reports[0].next_in == 10.0


def test_policies_see_the_machine_of_the_scheduler() -> None:
    policy, machine = every(1.0), Machine()
    Scheduler(machine=machine).add(FakeTarget(), policy)
    assert policy.machine is machine
    Scheduler().add(FakeTarget(), policy)
    assert isinstance(policy.machine, RunningMachine)
    Scheduler(clock=VirtualClock()).add(FakeTarget(), policy)
    assert type(policy.machine) is Machine


def test_a_target_without_statistics_is_served_too() -> None:
    scheduler, _, reports = make()
    target = FakeTarget(values={})
    scheduler.add(target, every(60.0, ("idle", "all")))
    scheduler.run_due()
    assert target.written == [("idle", "all")]
    assert (reports[0].freed, reports[0].written_back, reports[0].error) == (None, None, "")
    assert reports[0].decision() == "zram0 scripted: because"


def test_a_tick_without_writes_is_reported_with_its_reason() -> None:
    scheduler, _, reports = make()
    scheduler.add(FakeTarget(), every(60.0))
    scheduler.run_due()
    assert reports[0].decision() == "zram0 scripted: because"


def test_a_receiver_that_raises_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def receive(report: Report) -> None:
        raise RuntimeError("full")

    scheduler = Scheduler(clock=VirtualClock(), on_report=receive)
    policy = every(1.0)
    scheduler.add(FakeTarget(), policy)
    scheduler.run(until=2.0)
    assert policy.times == [0.0, 1.0, 2.0]
    assert "the receiver of reports failed" in caplog.text


# Normal ends ------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (NoSpace("the backing device is full"), "ENOSPC"),
        (BudgetExhausted("the limit is reached"), "EIO"),
        (OSError(errno.ENOSPC, "No space left on device"), "ENOSPC"),
    ],
)
def test_full_and_out_of_budget_are_normal_ends_of_writeback(error: OSError, name: str) -> None:
    scheduler, _, reports = make()
    target = FakeTarget()
    target.errors["writeback"] = error
    scheduler.add(target, every(60.0, ("writeback", "idle"), ("idle", "all")))
    scheduler.run_due()
    assert target.written == [("idle", "all")]
    assert [write.ended for write in reports[0].writes] == [name, ""]
    assert (reports[0].error, reports[0].next_in) == ("", 60.0)


def test_the_kernels_eio_is_the_budget_when_the_budget_is_empty() -> None:
    scheduler, clock, reports = make()
    target = FakeTarget()
    target.errors["writeback"] = OSError(errno.EIO, "Input/output error")
    target.values["writeback_limit_enable"] = "1\n"
    scheduler.add(target, every(60.0, ("writeback", "idle")))
    scheduler.run_due()
    target.values["writeback_limit"] = "5\n"
    clock.advance(60.0)
    scheduler.run_due()
    assert [bool(report.error) for report in reports] == [False, True]


def test_a_broken_disk_is_no_normal_end_whatever_the_budget() -> None:
    scheduler, _, reports = make()
    target = FakeTarget()
    target.values["writeback_limit_enable"] = "1\n"
    target.errors["writeback"] = DeviceIOError("the backing device failed")
    scheduler.add(target, every(60.0, ("writeback", "idle")))
    scheduler.run_due()
    assert reports[0].error == "writeback=idle: the backing device failed (EIO)"


def test_enospc_of_another_attribute_is_a_failure() -> None:
    scheduler, _, reports = make()
    target = FakeTarget()
    target.errors["compact"] = NoSpace("odd")
    scheduler.add(target, every(60.0, ("compact", "1")))
    scheduler.run_due()
    assert reports[0].error == "compact=1: odd (ENOSPC)"


@pytest.mark.parametrize("attribute", ["writeback", "recompress"])
def test_a_pass_that_was_told_to_stop_ends_the_tick_and_is_no_failure(
    attribute: str, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler, _, reports = make()
    target = FakeTarget()
    target.errors[attribute] = DeviceIOError("the pass was stopped", errno=errno.EINTR)
    scheduler.add(target, every(60.0, (attribute, "type=idle"), ("idle", "all")))
    scheduler.run_due()
    assert target.written == []
    assert (reports[0].writes[-1].ended, reports[0].error, reports[0].next_in) == ("EINTR", "", 60.0)
    assert "WARNING" not in [record.levelname for record in caplog.records]
    assert reports[0].decision().endswith("stopped: told to stop")


# Failures ------------------------------------------------------------


def test_a_failed_write_ends_the_tick_and_backs_off(caplog: pytest.LogCaptureFixture) -> None:
    scheduler, _, reports = make()
    target = FakeTarget()
    target.errors["idle"] = InvalidValue("the device is not initialised")
    scheduler.add(target, every(1.0, ("idle", "all"), ("writeback", "idle")))
    scheduler.run_due()
    assert target.written == []
    assert [write.attribute for write in reports[0].writes] == ["idle"]
    assert reports[0].error == "idle=all: the device is not initialised (EINVAL)"
    assert reports[0].next_in == 10.0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages == [
        "zram0 scripted: because, idle=all: the device is not initialised (EINVAL), next try in 10 s"
    ]


def test_a_policy_that_raises_backs_off_doubling_up_to_the_cap_and_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def explode(now: float) -> Tick:
        raise KeyError("ouch")

    scheduler, _, reports = make()
    broken, healthy = Scripted(explode), every(50.0)
    scheduler.add(FakeTarget("zram0"), broken)
    scheduler.add(FakeTarget("zram0"), healthy)
    scheduler.run(until=310.0)
    assert broken.times == [0.0, 10.0, 30.0, 70.0, 150.0, 230.0, 310.0]
    assert healthy.times == [0.0, 50.0, 100.0, 150.0, 200.0, 250.0, 300.0]
    errors = [report for report in reports if report.error]
    assert len(errors) == 7
    assert f"policy scripted ({__name__}) raised KeyError: 'ouch'" in errors[0].error
    assert errors[0].error in caplog.text


def test_a_success_forgets_the_failures_before_it() -> None:
    def decide(now: float) -> Tick:
        if now in (0.0, 10.0, 31.0):
            raise ValueError("not now")
        return Tick((), 1.0)

    scheduler, _, _ = make()
    policy = Scripted(decide)
    scheduler.add(FakeTarget(), policy)
    scheduler.run(until=41.0)
    assert policy.times == [0.0, 10.0, 30.0, 31.0, 41.0]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (None, "tick returned NoneType, not a Tick"),
        (Tick((), 0.0), "next_in is 0.0"),
        (Tick((), -1.0), "next_in is -1.0"),
        (Tick((), math.nan), "next_in is nan"),
        (Tick((), math.inf), "next_in is inf"),
        (Tick((("idle", 1),), 1.0), "not a pair of texts"),  # type: ignore[arg-type]
        (Tick((("reset", "1"),), 1.0), "it writes 'reset', which its `writes` does not declare"),
    ],
)
def test_a_policy_that_breaks_the_contract_writes_nothing(answer: object, complaint: str) -> None:
    scheduler, _, reports = make()
    target = FakeTarget()
    scheduler.add(target, Scripted(lambda now: answer))
    scheduler.run_due()
    assert target.written == []
    assert "plugin scripted" in reports[0].error
    assert complaint in reports[0].error
    assert reports[0].next_in == 10.0


# Threads and stopping ------------------------------------------------------------


def test_stop_is_prompt_while_it_waits() -> None:
    first = threading.Event()
    scheduler = Scheduler(on_report=lambda report: first.set())
    scheduler.add(FakeTarget(), every(1e6))
    scheduler.start()
    assert first.wait(10)
    assert scheduler.stop(timeout=10)


class Blocking(FakeTarget):
    """A store that does not return before it is let go, and counts how many run at once."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go = threading.Event()
        self.running = 0
        self.most = 0

    def store(self, attribute: str, value: str) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.entered.set()
        assert self.go.wait(10)
        super().store(attribute, value)
        self.running -= 1


def test_stop_finishes_the_write_in_progress_and_makes_no_other() -> None:
    reports: list[Report] = []
    scheduler = Scheduler(on_report=reports.append)
    target = Blocking()
    scheduler.add(target, every(1.0, ("writeback", "idle"), ("idle", "all")))
    scheduler.add(target, every(1.0, ("compact", "1")))
    scheduler.start()
    assert target.entered.wait(10)
    assert not scheduler.stop(timeout=0)
    target.go.set()
    assert scheduler.stop(timeout=10)
    assert target.written == [("writeback", "idle")]
    assert [write.attribute for report in reports for write in report.writes] == ["writeback"]
    assert target.most == 1


def test_reports_call_a_target_by_its_label() -> None:
    scheduler, _, reports = make()
    scheduler.add(FakeTarget(), every(60.0), label="swap")
    scheduler.run_due()
    assert reports[0].decision() == "swap scripted: because"


def test_stop_from_the_receiver_of_reports() -> None:
    ended = threading.Event()

    def receive(report: Report) -> None:
        assert not scheduler.stop()  # its own thread cannot be waited for
        ended.set()

    scheduler = Scheduler(on_report=receive)
    policy = every(0.01)
    scheduler.add(FakeTarget(), policy)
    scheduler.start()
    assert ended.wait(10)
    assert scheduler.stop(timeout=10)
    assert len(policy.times) == 1


def test_policies_are_added_before_the_start() -> None:
    scheduler = Scheduler()
    scheduler.start()
    with pytest.raises(RuntimeError, match="before the scheduler starts"):
        scheduler.add(FakeTarget(), every(1.0))
    with pytest.raises(RuntimeError, match="runs already"):
        scheduler.start()
    assert scheduler.stop(timeout=10)


def test_stop_before_the_start_is_harmless() -> None:
    scheduler, _, reports = make()
    scheduler.add(FakeTarget(), every(1.0))
    assert scheduler.stop()
    scheduler.run(until=5.0)
    assert reports == []
