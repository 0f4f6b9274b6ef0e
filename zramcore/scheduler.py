"""Scheduler: one thread that ticks policies when they ask for it and makes the attribute writes they decide on.

One thread is the whole locking story: two passes never run at once, and what a policy sees is what its own writes
left. A policy that raises, breaks its contract or whose write fails is logged with its name and waits longer each
time; the others go on. A full backing device (ENOSPC), a used-up budget (EIO) and a pass that was told to stop (EINTR)
are normal ends of a writeback.
"""

from __future__ import annotations

import errno
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from .allowance import DailyBudget, pages_written, write_back_within
from .allowance import Writable as WritableTarget
from .errors import BudgetExhausted, DeviceIOError, PluginFault, ZramError, errno_name
from .interfaces import PolicyTarget, Tick, WritebackPolicy
from .machine import Machine, RunningMachine
from .policy_report import Report, WriteResult
from .policy_state import StateFile

__all__ = ["Clock", "MonotonicClock", "Report", "Scheduler", "WritableTarget", "WriteResult"]

log = logging.getLogger(__name__)

MIN_INTERVAL = 0.01
"""Seconds between two ticks of a policy at least: one that asks for 1e-9 must not spin."""

BACKOFF_FIRST = 10.0
BACKOFF_CAP = 3600.0
"""Seconds to wait after a first failure, doubled with each further one, and the longest wait."""


class Clock(Protocol):
    """Where time comes from: the machine's monotonic clock, or a virtual one."""

    def now(self) -> float:
        """Seconds, monotonic, from any origin."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` have passed; whether it is set."""
        ...


class MonotonicClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(min(seconds, threading.TIMEOUT_MAX))


class _Job:
    """A policy on a target, what people call that, and when it is due."""

    def __init__(
        self, target: WritableTarget, policy: WritebackPolicy, due: float, daily: DailyBudget | None, label: str
    ) -> None:
        self.target = target
        self.policy = policy
        self.due = due
        self.soonest = due
        """No tick before this, woken or not."""
        self.daily = daily
        self.label = label
        self.woken = False
        """Whether the target has grown beyond what the policy asked to be woken for."""
        self.key = f"{label} {policy.name}"
        self.failures = 0

    @property
    def wanted(self) -> float:
        """When the next tick is to be: earlier than it was asked for when the policy is woken."""
        return min(self.soonest, self.due) if self.woken else self.due


class Scheduler:
    """Runs policies. `on_report` is called with each Report on the scheduler's thread; what it raises is logged.

    `machine` is what policies see of it: the running one, or beside a `clock` of one's own, one that knows nothing.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        machine: Machine | None = None,
        on_report: Callable[[Report], None] | None = None,
        state: StateFile | None = None,
        backoff: tuple[float, float] = (BACKOFF_FIRST, BACKOFF_CAP),
    ) -> None:
        self.clock: Clock = clock if clock is not None else MonotonicClock()
        # beside a virtual clock the running machine would be out of place
        self.machine = machine or (RunningMachine() if clock is None else Machine())
        self._on_report = on_report
        self._backoff_first, self._backoff_cap = backoff
        self._jobs: list[_Job] = []
        self._state = state
        self._stop = threading.Event()
        self._alarm = threading.Event()
        """Set when the thread should look: a policy was woken, or it is to stop."""
        self._thread: threading.Thread | None = None

    def add(
        self, target: WritableTarget, policy: WritebackPolicy, daily: DailyBudget | None = None, label: str = ""
    ) -> None:
        """Have `policy` ticked on `target`, first at once. Only before `start`: RuntimeError after it.

        `daily`: what its writebacks may write in 24 hours, shared with every policy it is given to as well. `label`:
        what reports call the target, and under which its state is kept; default: its name.
        """
        if self._thread is not None:
            raise RuntimeError("add the policies before the scheduler starts")
        policy.machine = self.machine
        job = _Job(target, policy, self.clock.now(), daily, label or target.name)
        alike = sum(other.label == job.label and other.policy.name == policy.name for other in self._jobs)
        job.key += f" {alike + 1}" if alike else ""
        self._restore(job.key, policy.restore)
        if daily is not None and not daily.restored:
            daily.restored = True
            self._restore(daily.name, daily.restore)
        if daily is not None:  # before anybody writes: a device that is new counts from 0
            daily.look(target, self.clock.now(), job.label)
        self._jobs.append(job)

    def _restore(self, owner: str, restore: Callable[[dict[str, Any], float, float], None]) -> None:
        """Give back what an owner kept, if anything."""
        kept = None if self._state is None else self._state.kept(owner)
        if kept is None:
            return
        try:
            restore(kept[0], self.clock.now(), kept[1])
        except Exception as failure:
            log.warning("%s begins anew: it raised %s: %s", owner, type(failure).__name__, failure)

    @property
    def next_due(self) -> float | None:
        """When the next tick is due, by the clock; None without policies."""
        return min((job.wanted for job in self._jobs), default=None)

    def run_due(self) -> list[Report]:
        """One round: tick every policy that is due now once, earliest first, in the order of `add` at the same time."""
        now = self.clock.now()
        due = sorted((job for job in self._jobs if job.wanted <= now), key=lambda job: job.wanted)
        reports = []
        for job in due:
            if self._stop.is_set():
                break
            reports.append(self._run(job))
        if any(report.writes for report in reports):
            self._keep()
        return reports

    def run(self, until: float | None = None) -> None:
        """Tick policies as they fall due until `stop`, or until the clock reads `until`."""
        while not self._stop.is_set():
            self._alarm.clear()
            self.run_due()
            due, now = self.next_due, self.clock.now()
            wake = min((at for at in (due, until) if at is not None), default=math.inf)
            if until is not None and now >= until:
                break
            if wake > now and not self._stop.is_set():
                self.clock.wait(self._alarm, wake - now)
        for job in self._jobs:
            self._watch(job, None)
        self._look_a_last_time()

    def start(self) -> None:
        """Run on a thread of its own until `stop`."""
        if self._thread is not None:
            raise RuntimeError("the scheduler runs already")
        self._thread = threading.Thread(target=self.run, name="zramcore-scheduler", daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Stop: no write starts after this, the one in progress is finished first. Whether the thread has ended.

        Waits `timeout` seconds for it at most (None: as long as it takes). Harmless when nothing runs.
        """
        self._stop.set()
        self._alarm.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return thread is None
        thread.join(timeout)
        return not thread.is_alive()

    def _look_a_last_time(self) -> None:
        """Account for what others wrote since the last round: once the devices are gone, nobody can."""
        for job in self._jobs:
            if job.daily is not None:
                job.daily.look(job.target, self.clock.now(), job.label)
        if any(job.daily is not None for job in self._jobs):
            self._keep()

    def _keep(self) -> None:
        """Write down what survives a restart."""
        if self._state is None:
            return
        now, kept = self.clock.now(), dict[str, Mapping[str, Any]]()
        for job in self._jobs:
            try:
                state = job.policy.state(now)
            except Exception as failure:
                log.warning("%s", _describe(job.policy, failure))
                continue
            if state:
                kept[job.key] = state
            if job.daily is not None:
                kept[job.daily.name] = job.daily.state(now)
        self._state.save(kept)

    # One tick ---------------------------------------------------------------------------------------------------

    def _run(self, job: _Job) -> Report:
        now = self.clock.now()
        job.woken = False
        wake_above: int | None = None
        results: list[WriteResult] = []
        reason, error, next_in = "", "", 0.0
        memory, device = _figures(job.target)
        try:
            tick = _checked(job.policy, job.policy.tick(job.target, now))
            reason, next_in = tick.reason, max(tick.next_in, MIN_INTERVAL)
            budget, wake_above = tick.budget, tick.wake_above
            for attribute, value in tick.writes:
                if self._stop.is_set():
                    break
                before = pages_written(job.target) if attribute == "writeback" else None
                result = self._write(job, attribute, value, budget)
                if budget is not None and before is not None:
                    budget -= (pages_written(job.target) or before) - before
                results.append(result)
                if result.error:
                    raise _WriteFailed(f"{attribute}={value}: {result.error}")
                if result.ended == "EINTR":
                    break
        except Exception as failure:
            error = _describe(job.policy, failure)
        try:
            job.policy.settle(job.target, self.clock.now())
        except Exception as failure:
            error = error or _describe(job.policy, failure)
        if error:
            job.failures += 1
            # the exponent is capped too: 2.0 ** 1024 overflows
            next_in = min(self._backoff_first * 2.0 ** min(job.failures - 1, 64), self._backoff_cap)
            now = self.clock.now()  # a failing pass may have taken long: the wait starts when it ended
        else:
            job.failures = 0
        job.due, job.soonest = now + next_in, self.clock.now() + MIN_INTERVAL
        self._watch(job, None if error else wake_above)
        freed, written_back = _difference(job.target, memory, device)
        report = Report(job.label, job.policy.name, now, reason, tuple(results), freed, written_back, next_in, error)
        self._publish(report)
        return report

    def _watch(self, job: _Job, size: int | None) -> None:
        """Have the job woken when its target's pool is larger than `size` bytes, where the target can tell."""
        watch = getattr(job.target, "watch_memory", None)
        if watch is not None:
            watch(job, size, lambda: self._wake(job))

    def _wake(self, job: _Job) -> None:
        """Called on any thread."""
        job.woken = True
        self._alarm.set()

    def _write(self, job: _Job, attribute: str, value: str, budget: int | None) -> WriteResult:
        target = job.target
        try:
            if attribute == "writeback":
                self._write_back(job, value, budget)
            else:
                target.store(attribute, value)
        except OSError as error:
            if attribute in _PASSES and _is_normal_end(target, error, attribute):
                return WriteResult(attribute, value, ended=errno_name(error.errno or 0))
            return WriteResult(attribute, value, error=_sentence(error))
        return WriteResult(attribute, value)

    def _write_back(self, job: _Job, value: str, budget: int | None) -> None:
        daily, stopped = job.daily, self._stop.is_set
        if daily is None:
            return write_back_within(job.target, value, budget, stopped)
        granted = daily.reserve(job.target, self.clock.now(), budget, job.label)
        try:
            write_back_within(job.target, value, granted, stopped)
        finally:
            daily.settle(job.target, self.clock.now(), granted, job.label)

    def _publish(self, report: Report) -> None:
        log.log(logging.WARNING if report.error else logging.INFO, "%s", report.decision())
        if self._on_report is None:
            return
        try:
            self._on_report(report)
        except Exception:
            log.exception("the receiver of reports failed on: %s", report.decision())


_PASSES = ("writeback", "recompress")
"""Attributes whose write takes as long as a pass does."""


class _WriteFailed(Exception):
    """A write of a tick failed in a way that is not a normal end."""


def _checked(policy: WritebackPolicy, tick: object) -> Tick:
    """The tick, if it keeps the contract. Raises PluginFault."""
    if not isinstance(tick, Tick):
        raise PluginFault(policy.name, f"tick returned {type(tick).__name__}, not a Tick")
    if not math.isfinite(tick.next_in) or tick.next_in <= 0:
        raise PluginFault(policy.name, f"next_in is {tick.next_in!r}, not a positive number of seconds")
    if tick.wake_above is not None and not isinstance(tick.wake_above, int):
        raise PluginFault(policy.name, f"its wake_above is {tick.wake_above!r}, not a number of bytes")
    if tick.budget is not None and not isinstance(tick.budget, int):
        raise PluginFault(policy.name, f"its budget is {tick.budget!r}, not a number of pages")
    for attribute, value in tick.writes:
        if not isinstance(attribute, str) or not isinstance(value, str):
            raise PluginFault(policy.name, f"a write is {(attribute, value)!r}, not a pair of texts")
        if attribute not in policy.writes:
            raise PluginFault(policy.name, f"it writes {attribute!r}, which its `writes` does not declare")
    return tick


def _describe(policy: WritebackPolicy, failure: Exception) -> str:
    if isinstance(failure, _WriteFailed):
        return str(failure)
    if isinstance(failure, ZramError):
        return _sentence(failure)
    log.debug("policy %s raised", policy.name, exc_info=failure)
    return f"policy {policy.name} ({type(policy).__module__}) raised {type(failure).__name__}: {failure}"


def _sentence(error: OSError) -> str:
    if isinstance(error, ZramError):
        return f"{error.reason} ({error.errno_name})"
    return f"{error.strerror or error} ({errno_name(error.errno or 0)})"


def _is_normal_end(target: PolicyTarget, error: OSError, attribute: str) -> bool:
    """A pass that was told to stop, a full backing device, or a used-up budget: the kernel says EIO for it, as for a
    broken disk."""
    if error.errno == errno.EINTR:
        return True
    if attribute != "writeback":
        return False
    if isinstance(error, BudgetExhausted) or error.errno == errno.ENOSPC:
        return True
    if error.errno != errno.EIO or isinstance(error, DeviceIOError):
        return False
    try:
        return int(target.show("writeback_limit_enable")) == 1 and int(target.show("writeback_limit")) == 0
    except (OSError, ValueError):
        return False


# Figures --------------------------------------------------------------------------------------------------------


def _figures(target: PolicyTarget) -> tuple[int | None, int | None]:
    """mem_used_total in bytes (mm_stat, column 3) and bd_writes in bytes (bd_stat, column 3, in 4 KiB units)."""
    memory, device = _column(target, "mm_stat", 2), _column(target, "bd_stat", 2)
    return memory, None if device is None else device * 4096


def _column(target: PolicyTarget, attribute: str, index: int) -> int | None:
    try:
        columns: Sequence[str] = target.show(attribute).split()
        return int(columns[index])
    except (OSError, ValueError, IndexError):
        return None


def _difference(target: PolicyTarget, memory: int | None, device: int | None) -> tuple[int | None, int | None]:
    memory_after, device_after = _figures(target)
    freed = None if memory is None or memory_after is None else memory - memory_after
    written = None if device is None or device_after is None else device_after - device
    return freed, written
