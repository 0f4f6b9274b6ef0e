"""The policies of one device: made from names and options, run by a scheduler of their own, and what came of them.

A scheduler a device: a slow backing disk holds up its own policies and nobody else's, and policies can be replaced
while others run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..allowance import DailyBudget
from ..config import PolicyConfig
from ..control import Target
from ..errors import InvalidValue, ZramError
from ..interfaces import Catalogue, WritebackPolicy
from ..kernel import KernelDevice
from ..policy_state import StateFile
from ..scheduler import Report, Scheduler
from .logs import event, log


@dataclass
class Record:
    """What the policies of one name did on one device since they were set.

    Bytes for `freed` (net; negative when memory grew) and `written_back`; `last_at` is Unix time of the last decision,
    0 before the first; `last_error` is empty after a tick that went well.
    """

    ticks: int = 0
    failures: int = 0
    writes: int = 0
    ends: int = 0
    freed: int = 0
    written_back: int = 0
    last_at: float = 0.0
    last_reason: str = ""
    last_error: str = ""
    next_in: float = 0.0


class PolicyRunner:
    """Runs policies on a target from `replace` until `stop`. `name` and `label` are what the fleet calls it; `daily`:
    what its policies may write in 24 hours."""

    def __init__(
        self,
        target: Target | KernelDevice,
        catalogue: Catalogue,
        *,
        name: str = "",
        label: str = "",
        state: StateFile | None = None,
        daily: DailyBudget | None = None,
    ) -> None:
        self.target = target
        self.catalogue = catalogue
        self.name = name or target.name
        self.label = label or self.name
        self.daily = daily
        self._state = state
        self.configs: tuple[PolicyConfig, ...] = ()
        self.records: dict[str, Record] = {}
        self._scheduler: Scheduler | None = None
        self._lock = threading.Lock()

    def make(self, configs: Sequence[PolicyConfig]) -> list[WritebackPolicy]:
        """The policy objects. Raises InvalidValue (EINVAL) naming what is wrong."""
        return [make_policy(self.catalogue, self.target, config) for config in configs]

    def share(self, daily: DailyBudget | None) -> None:
        """Have the policies write within this budget from now on."""
        with self._lock:
            if daily is self.daily:
                return
            self.daily = daily
            if self._scheduler is not None:
                policies = self.make(self.configs)
                self._halt()
                self._start(policies)

    def replace(self, configs: Sequence[PolicyConfig]) -> None:
        """Run these policies and no others. Raises InvalidValue, and then those that ran before still do.

        Waits for a tick in progress: two policies never act on the device at once.
        """
        with self._lock:
            policies = self.make(configs)
            self._halt()
            self.configs = tuple(configs)
            self.records = {config.name: Record() for config in configs}
            self._start(policies)

    def budget_left(self) -> int | None:
        """Units of 4 KiB that the policies may still write now, by the day's budget; None without one."""
        return None if self.daily is None else self.daily.left(time.monotonic())

    def resume(self) -> None:
        """Run the policies again after `stop`; one that the device no longer suits is logged."""
        with self._lock:
            if self._scheduler is None:
                try:
                    self._start(self.make(self.configs))
                except ZramError as error:
                    event("policies_stay_off", level=logging.ERROR, device=self.name, error=error)

    def stop(self) -> None:
        """Stop them, after a tick in progress; their records stay."""
        with self._lock:
            self._halt()

    def _start(self, policies: Sequence[WritebackPolicy]) -> None:
        if not policies:
            return
        scheduler = Scheduler(on_report=self._report, state=self._state)
        for policy in policies:
            scheduler.add(self.target, policy, self.daily, self.label)
        self._scheduler = scheduler
        scheduler.start()

    def _halt(self) -> None:
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.stop()

    def _report(self, report: Report) -> None:
        """On the scheduler's thread: count and log, decisions to do nothing for those who want to see everything."""
        record = self.records.get(report.policy)
        if record is not None:
            record.ticks += 1
            record.failures += bool(report.error)
            record.writes += sum(not write.error for write in report.writes)
            record.ends += sum(bool(write.ended) for write in report.writes)
            record.freed += report.freed or 0
            record.written_back += report.written_back or 0
            record.last_at = time.time()
            record.last_reason, record.last_error, record.next_in = report.reason, report.error, report.next_in
        level = logging.WARNING if report.error else logging.INFO if report.writes else logging.DEBUG
        if log.isEnabledFor(level):
            event(
                "policy",
                level=level,
                device=self.name,
                policy=report.policy,
                decision=report.explanation(),
                writes=", ".join(f"{write.attribute}={write.value}" for write in report.writes) or None,
                ended=next((write.ended for write in report.writes if write.ended), None),
                freed=report.freed,
                written_back=report.written_back,
                next_in=f"{report.next_in:g}",
                error=report.error or None,
            )


def make_policy(catalogue: Catalogue, target: Target | KernelDevice, config: PolicyConfig) -> WritebackPolicy:
    """A policy for the target. Raises InvalidValue (EINVAL) for an unknown name, an option it does not take, or one
    that writes pages back where there is no backing device; on the kernel's zram it says that itself."""
    kind = catalogue.policies.get(config.name)
    if kind is None:
        hint = catalogue.hint("policies", config.name)
        raise InvalidValue(f"there is no policy {config.name!r}", attribute="policy", value=config.name, hint=hint)
    policy = kind(config.options)
    if "writeback" in policy.writes and isinstance(target, Target) and target.device.backing is None:
        raise InvalidValue(
            f"policy {config.name} writes pages back, but {target.name} has no backing_dev",
            attribute="policy",
            value=config.name,
            hint="give the device a backing_dev when it is created",
        )
    return policy
