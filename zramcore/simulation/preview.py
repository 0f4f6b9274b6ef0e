"""Preview: what a policy would do to a running device, on a simulated copy of it; the device itself is only read.

The copy has the device's pages with their ages and flags, exactly; their sizes are estimates, as no attribute shows
them: by the mean of the device's own objects, and where it has idle_histogram, by that of each age.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import NoBackingDevice, NoSuchAttribute, ZramError
from ..insight import AGE_EDGES
from ..interfaces import PolicyTarget, WritebackPolicy, can
from ..kernel_features import FILES
from ..machine import Machine, RunningMachine
from ..policy_report import Report
from ..scheduler import Scheduler, WritableTarget
from ..slot_table import HUGE, IDLE, INCOMPRESSIBLE, PRIORITY_MASK, PRIORITY_SHIFT, SIZE_MASK, WB
from .accesses import Accesses
from .device import Setup, SimulatedDevice
from .pool import PoolModel
from .recorder import boot_time
from .replay import silence
from .sizes import Samples, draw
from .state import mean_size, page_size_of, read_state
from .target import SimulatedTarget
from .trace import SECOND, WRITE, Array, Trace
from .world import SimulationClock

MOST_TICKS = 100_000
"""Ticks of one policy before a preview gives up on it: a week of one that looks every 6 s."""


@dataclass(frozen=True)
class Step:
    """A decision: seconds from now, why, the attribute writes with what ended them (or ""), the bytes it would write
    to the backing device and free in memory (None: unknown), and why it would fail, if it would."""

    after: float
    reason: str
    writes: tuple[tuple[str, str, str], ...]
    written: int | None
    freed: int | None
    error: str = ""


@dataclass(frozen=True)
class Foreseen:
    """What one policy would do: its first decision, and then the first that writes pages back or recompresses them,
    with any marks made on the way. `looks`: how often it would have looked until then."""

    policy: str
    steps: tuple[Step, ...]
    looks: int


class FrozenMachine(Machine):
    """The running machine as it is now: what a file says does not change while a preview looks ahead."""

    def __init__(self, machine: Machine | None = None) -> None:
        self._machine = machine or RunningMachine()
        self._read: dict[str, str | OSError] = {}
        self._slept = self._machine.suspended()

    def read(self, path: str) -> str:
        """What the file said when it was first asked for; raises what reading it raised then."""
        if path not in self._read:
            try:
                self._read[path] = self._machine.read(path)
            except OSError as error:
                self._read[path] = error
        found = self._read[path]
        if isinstance(found, OSError):
            raise found
        return found

    def suspended(self) -> float:
        return self._slept


class Copy:
    """A device as it is now, to make simulated devices of.

    `samples` gives sizes that pages may have with algorithms of these names; `pool` is an empty pool of the device's
    allocator; `blocks`: of its backing device, None when nobody knows: then for every page. Raises what `read_state`
    raises.
    """

    def __init__(
        self, target: PolicyTarget, samples: Callable[[Sequence[str]], Samples], pool: PoolModel, blocks: int | None
    ) -> None:
        self.state = state = read_state(target)
        now = int(boot_time())
        page_size = page_size_of(target)
        nr_pages = int(target.show("disksize")) // page_size
        algorithms = _algorithms(target)
        backing = _text(target, "backing_dev", "none")
        used = _columns(target, "mm_stat")
        self.setup = Setup(
            name=target.name,
            nr_pages=nr_pages,
            page_size=page_size,
            algorithms=algorithms,
            blocks=None if backing == "none" else nr_pages if blocks is None else blocks,
            backing_dev=backing,
            compressed_writeback=_text(target, "compressed_writeback", "0") == "1",
            batch_size=int(_text(target, "writeback_batch_size", "32")),
            mem_limit_pages=used[3] // page_size,
            writeback_limit=int(_text(target, "writeback_limit", "0")),
            writeback_limit_enable=_text(target, "writeback_limit_enable", "0") == "1",
            capabilities=getattr(target, "capabilities", None),
        )
        self.in_memory = int(np.count_nonzero(state.in_memory))
        """Pages in memory that are not same-filled."""
        self.used = used[2]
        """mem_used_total, in bytes."""
        self._counters = _columns(target, "bd_stat") if backing != "none" else [0, 0, 0]
        when = np.minimum(state.accessed - now * SECOND, -1)
        order = np.argsort(when, kind="stable")
        classes = np.zeros(nr_pages, np.uint8)
        classes[state.pages] = state.classes
        self.trace = Trace(
            when[order], state.pages[order], np.full(len(order), WRITE, np.uint8), 0, nr_pages, page_size,
            classes=classes, mean_size=mean_size(target, state),
        )  # fmt: skip
        self.sizes = draw(
            samples([name for _, name in algorithms]), self.trace, nr_pages, 1, page_size, pool.huge_class_size
        )
        self._fit_to_ages(target, now, pool.huge_class_size)

    def _fit_to_ages(self, target: PolicyTarget, now: int, huge: int) -> None:
        """Scale the sizes of the pages of each age so that they add up to what idle_histogram says, if it is there."""
        state = self.state
        try:
            rows = [line.split() for line in target.show("idle_histogram").splitlines()]
        except ZramError:
            return
        told = np.array([int(row[3]) for row in rows], np.float64)
        held = state.in_memory
        pages, dense = state.pages[held], state.has("r")[held]
        ages = now - state.accessed[held] // SECOND
        bucket = np.searchsorted(np.array(AGE_EDGES[1:]), ages, side="left")
        large = state.has("h")[held]
        told -= np.bincount(bucket, large * self.setup.page_size, len(told))
        row = np.where(dense & (len(self.sizes.sizes) > 1), 1, 0)
        drawn = np.bincount(bucket, np.where(large, 0, self.sizes.sizes[row, pages]), len(told))
        factor = np.divide(told, drawn, out=np.ones_like(told), where=(drawn > 0) & (told > 0))
        fitted = np.rint(self.sizes.sizes[:, pages] * factor[bucket]).astype(np.int64)
        self.sizes.sizes[:, pages[~large]] = np.clip(fitted[:, ~large], 1, huge - 1)

    def device(self, pool: PoolModel, clock: SimulationClock) -> SimulatedDevice:
        """A new simulated device in the state of the real one; `pool` is an empty pool."""
        device = SimulatedDevice(self.setup, pool, self.sizes, Accesses(self.trace), clock.boot_seconds)
        clock.drive(device, [], lambda now: None)
        device.assume(self.state.pages, self._flags(device))
        pool.fit(self.used)
        device.bd_count = int(np.count_nonzero(self.state.has("w")))
        device.bd_reads, device.bd_writes = self._counters[1:]
        return device

    def _flags(self, device: SimulatedDevice) -> Array:
        """The flags of the pages, as they are in a slot table."""
        state = self.state
        flags = device.table.flags[state.pages].astype(np.int64)
        recompressed, gone = state.has("r"), state.has("w")
        if len(self.sizes.sizes) > 1:
            dense = self.sizes.sizes[1, state.pages] | (flags & ~(SIZE_MASK | HUGE))
            flags = np.where(recompressed, dense, flags)
        flags |= np.where(recompressed, 1 << PRIORITY_SHIFT, 0) | np.where(state.has("n"), INCOMPRESSIBLE, 0)
        kept = HUGE | INCOMPRESSIBLE | PRIORITY_MASK | (SIZE_MASK if self.setup.compressed_writeback else 0)
        flags = np.where(gone, WB | (flags & kept), flags)
        idle: Array = flags | np.where(state.has("i") & state.in_memory, IDLE, 0)
        return idle.astype(np.uint32)


def foresee(copy: Copy, pool: PoolModel, policy: WritebackPolicy, machine: Machine, horizon: float) -> Foreseen:
    """What a new `policy` would do first, and within `horizon` seconds, if nobody used the device. It runs on the real
    scheduler, on a simulated copy. `pool` is an empty pool."""
    clock = SimulationClock()
    return _foresee(SimulatedTarget(copy.device(pool, clock)), clock, policy, machine, horizon)


def foresee_blind(target: PolicyTarget, policy: WritebackPolicy, machine: Machine, horizon: float) -> Foreseen:
    """The same of a device whose pages cannot be seen: what would be decided, not what would come of it."""
    found = _foresee(_ReadOnly(target), SimulationClock(), policy, machine, horizon)
    return replace(found, steps=tuple(replace(step, written=None, freed=None) for step in found.steps))


def _foresee(
    target: WritableTarget, clock: SimulationClock, policy: WritebackPolicy, machine: Machine, horizon: float
) -> Foreseen:
    reports: list[Report] = []
    scheduler = Scheduler(clock=clock, machine=machine, on_report=reports.append)
    scheduler.add(target, policy)
    steps: list[Step] = []
    looks, never = 0, threading.Event()
    with silence():
        while looks < MOST_TICKS:
            scheduler.run_due()
            looks += 1
            report = reports.pop()
            if looks == 1 or report.writes or report.error:
                steps.append(_step(report))
            acted = any(write.attribute in ("writeback", "recompress") for write in report.writes)
            if acted or report.error or report.at + report.next_in > horizon:
                break
            clock.wait(never, report.next_in)
    return Foreseen(policy.name, tuple(steps), looks)


def _step(report: Report) -> Step:
    writes = tuple((write.attribute, write.value, write.ended) for write in report.writes)
    return Step(report.at, report.reason, writes, report.written_back, report.freed, report.error)


class _ReadOnly:
    """A target that forgets what is written to it."""

    def __init__(self, target: PolicyTarget) -> None:
        self._target = target
        self.capabilities = getattr(target, "capabilities", None)

    @property
    def name(self) -> str:
        return self._target.name

    def show(self, attribute: str) -> str:
        return self._target.show(attribute)

    def store(self, attribute: str, value: str) -> None:
        """Write nothing; refuse what the target would refuse for what it lacks."""
        if attribute in FILES and not can(self._target, attribute):
            raise NoSuchAttribute(f"{self.name} has no {attribute} on this kernel")
        if attribute == "writeback" and _text(self._target, "backing_dev", "none") == "none":
            raise NoBackingDevice(f"{self.name} has no backing device")


def _text(target: PolicyTarget, attribute: str, otherwise: str) -> str:
    """An attribute without its newline; a kernel may not have it."""
    try:
        return target.show(attribute).strip() or otherwise
    except ZramError:
        return otherwise


def _columns(target: PolicyTarget, attribute: str) -> list[int]:
    return [int(word) for word in target.show(attribute).split()]


def _algorithms(target: PolicyTarget) -> tuple[tuple[int, str], ...]:
    """Priorities and names: those in brackets of comp_algorithm and of recomp_algorithm's lines."""
    chosen = [(0, name) for name in re.findall(r"\[([^]]+)\]", _text(target, "comp_algorithm", "[lz4]"))[:1]]
    lines = re.findall(r"^#([1-3]):.*\[([^]]+)\]", _text(target, "recomp_algorithm", ""), re.MULTILINE)
    return (*chosen, *((int(number), name) for number, name in lines))
