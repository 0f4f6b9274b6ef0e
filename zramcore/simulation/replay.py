"""Replay: a trace through policies, on a virtual clock, with the real scheduler; and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from .. import scheduler as scheduling
from ..allowance import DailyBudget
from ..interfaces import WritebackPolicy
from ..policy_report import Report
from ..scheduler import Scheduler
from .device import SimulatedDevice
from .target import SimulatedTarget
from .trace import SECOND, Array
from .world import SimulatedMachine, SimulationClock

LOOKS = 480
"""How often in a trace the memory is looked at: what the mean and the plot are made of."""
NOTHING, TOGETHER = "no policy", "together"
"""Labels of the outcomes without any policy, and with all of them."""
COLUMNS = ("seconds", "memory", "data", "written", "rereads")


@dataclass(frozen=True)
class World:
    """The machine around the device: bytes of memory, of which others use some, and the seconds that a page from
    the backing device makes a task wait."""

    ram: int
    others: int
    latency: float


@dataclass
class Activity:
    """What one policy did. `stopped` counts writebacks that ended for a used-up budget or a full backing device."""

    ticks: int = 0
    rounds: int = 0
    stopped: int = 0
    failures: int = 0
    first_failure: str = ""
    last_decision: str = ""

    def note(self, report: Report) -> None:
        """Count a report."""
        self.ticks += 1
        self.rounds += bool(report.writes)
        self.stopped += sum(bool(write.ended) for write in report.writes)
        if report.writes:
            self.last_decision = report.decision()
        if report.error:
            self.failures += 1
            self.first_failure = self.first_failure or report.error


@dataclass(frozen=True)
class Outcome:
    """What a replay came to.

    `series` has a row for each look: COLUMNS are seconds since the start, mem_used_total and compr_data_size in bytes,
    blocks written, pages re-read. `data_seconds`: the integral of compr_data_size, exact, in byte seconds. Blocks are
    of the page size; `recompressed` says whether any page was.
    """

    label: str
    series: Array
    data_seconds: float
    page_size: int
    written: int
    rereads: int
    seconds: float
    peak: int
    recompressed: bool
    activity: dict[str, Activity] = field(default_factory=dict)

    @property
    def mean_memory(self) -> float:
        """mem_used_total on average, in bytes."""
        return float(self.series[:, 1].mean())

    @property
    def end_memory(self) -> int:
        """mem_used_total at the end, in bytes."""
        return int(self.series[-1, 1])


def replay(
    label: str,
    device: SimulatedDevice,
    clock: SimulationClock,
    policies: Sequence[WritebackPolicy],
    world: World,
    daily: DailyBudget | None = None,
) -> Outcome:
    """Run `policies` (new ones) on `device` (a new one, which `clock` has not driven yet) from start to end."""
    trace, target = device.trace, SimulatedTarget(device)
    seconds = trace.end / SECOND
    rows: list[tuple[float, ...]] = []

    def look(now: float) -> None:
        written = device.bd_writes // (device.setup.page_size >> 12)
        rows.append((now, device.pool.used, device.compr_data_size, written, device.rereads))

    activity = {policy.name: Activity() for policy in policies}
    machine = SimulatedMachine(clock, device, world.ram, world.others, world.latency)
    scheduler = Scheduler(clock=clock, machine=machine, on_report=lambda report: activity[report.policy].note(report))
    for policy in policies:
        scheduler.add(target, policy, daily)
    clock.drive(device, [seconds * step / LOOKS for step in range(LOOKS + 1)], look)
    with silence():
        scheduler.run(until=seconds)
    return Outcome(
        label, np.array(rows), device.data_seconds, device.setup.page_size, int(rows[-1][3]), device.rereads, seconds,
        device.peak, bool(device.recompressed), activity,
    )  # fmt: skip


@contextmanager
def silence() -> Iterator[None]:
    """Keep the scheduler's log of a simulation out of the real one."""
    before = scheduling.log.disabled
    scheduling.log.disabled = True
    try:
        yield
    finally:
        scheduling.log.disabled = before
