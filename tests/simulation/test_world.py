"""The world around a simulated device: time passes only by waiting, and what the machine's files say follows it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from zramcore.interfaces import Catalogue
from zramcore.simulation.accesses import UPTIME, Accesses
from zramcore.simulation.compare import Comparison
from zramcore.simulation.device import SimulatedDevice
from zramcore.simulation.pool import PoolModel
from zramcore.simulation.target import SimulatedTarget
from zramcore.simulation.trace import READ, WRITE
from zramcore.simulation.world import SimulatedMachine, SimulationClock

from .conftest import make_trace

TRACE = make_trace([(-1, 0, WRITE), (0, 1, WRITE), (5, 2, WRITE), (7, 0, READ), (9, 1, READ)], end=10)


@pytest.fixture
def clock() -> SimulationClock:
    return SimulationClock()


@pytest.fixture
def device(compare: Callable[..., Comparison], built_in: Catalogue, clock: SimulationClock) -> SimulatedDevice:
    comparison = compare(TRACE)
    pool = PoolModel(built_in.allocators["zsmalloc"](4096, 1))
    return SimulatedDevice(comparison.setup, pool, comparison.sizes, Accesses(TRACE), clock.boot_seconds)


def test_accesses_happen_as_time_passes_and_looks_are_taken_on_the_way(
    device: SimulatedDevice, clock: SimulationClock
) -> None:
    looks: list[tuple[float, int]] = []
    clock.drive(device, [0.0, 5.0, 8.0], lambda now: looks.append((now, device.done)))
    assert looks == [(0.0, 2)]
    never = threading.Event()
    assert not clock.wait(never, 6.0)
    assert (clock.now(), device.done) == (6.0, 3)
    clock.wait(never, 3.5)
    assert looks[1:] == [(5.0, 3), (8.0, 4)]
    assert clock.boot_seconds() == UPTIME + 9
    never.set()
    assert clock.wait(never, 100.0)
    assert clock.now() == 9.5


def test_a_page_that_is_read_again_makes_tasks_wait(device: SimulatedDevice, clock: SimulationClock) -> None:
    machine = SimulatedMachine(clock, device, 1 << 30, 1 << 29, 250e-6)
    clock.drive(device, [], lambda now: None)
    clock.wait(threading.Event(), 6)
    SimulatedTarget(device).store("writeback", "page_indexes=0-1")
    assert "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n" in machine.read("/proc/pressure/memory")
    clock.wait(threading.Event(), 4)
    assert device.rereads == 2
    assert "total=500\n" in machine.read("/sys/fs/cgroup/x/memory.pressure")


def test_the_machine_has_the_memory_that_is_left(device: SimulatedDevice, clock: SimulationClock) -> None:
    machine = SimulatedMachine(clock, device, 1 << 30, 1 << 29, 1e-4)
    clock.drive(device, [], lambda now: None)
    available = ((1 << 29) - device.pool.used) >> 10
    assert device.pool.used > 0
    assert f"MemAvailable: {available} kB\n" in machine.read("/proc/meminfo")
    assert machine.read("/proc/uptime") == f"{UPTIME}.00 0.00\n"
    assert machine.suspended() == 0
    with pytest.raises(FileNotFoundError):
        machine.read("/proc/loadavg")


def test_an_allocator_without_classes_takes_the_bytes_of_its_objects(built_in: Catalogue) -> None:
    pool = PoolModel(built_in.allocators["malloc"](4096, 1))
    pool.move(np.zeros(0, np.int64), np.array([4000, 3000, 5]))
    assert pool.used == 8192
    pool.move(np.array([4000]), np.zeros(0, np.int64))
    assert pool.used == 4096
