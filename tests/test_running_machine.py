"""The running machine as policies see it, and the one that knows nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from zramcore.interfaces import can
from zramcore.machine import Machine, RunningMachine
from zramcore.testing.policy import FakeTarget


def test_the_running_machine_reads_files_and_knows_how_long_it_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "MemAvailable:" in RunningMachine().read("/proc/meminfo")
    clocks = {time.CLOCK_BOOTTIME: 5000.0, time.CLOCK_MONOTONIC: 1400.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    assert RunningMachine().suspended() == 3600.0
    clocks[time.CLOCK_BOOTTIME] = 1399.9
    assert RunningMachine().suspended() == 0.0


def test_the_machine_that_knows_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing is known"):
        Machine().read("/proc/meminfo")
    assert Machine().suspended() == 0.0


def test_a_target_without_capabilities_has_all() -> None:
    target = FakeTarget()
    assert can(target, "idle_age")
    target.capabilities = frozenset({"idle"})  # type: ignore[attr-defined]  # as the kernel's has
    assert can(target, "idle")
    assert not can(target, "idle_age")
