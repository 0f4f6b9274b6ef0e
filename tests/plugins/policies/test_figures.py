"""What policies read: memory, pressure, counters, and the words for amounts."""

from __future__ import annotations

import pytest

from zramcore.testing.policy import FakeMachine, FakeTarget
from zramcore_plugins.policies.figures import (
    Memory,
    column,
    free_memory,
    hours,
    mebibytes,
    memory,
    pages_written,
    stall,
    text,
    why_no_writeback,
)


def test_counters_of_a_target() -> None:
    target = FakeTarget()
    assert memory(target) == Memory(268435456, 80530636, 83886080, 0)
    target.values["bd_stat"] = "       7        8        9\n"
    assert pages_written(target) == 9
    assert text(target, "backing_dev") == "/dev/sdb1"


@pytest.mark.parametrize("odd", ["", "1 2", "a b c d\n"])
def test_what_is_not_shown_is_none(odd: str) -> None:
    target = FakeTarget(values={"mm_stat": odd, "bd_stat": odd})
    assert memory(target) is None
    assert pages_written(target) is None
    assert column(target, "disksize", 0) is None
    assert text(target, "disksize") is None


def test_memory_that_is_free() -> None:
    machine = FakeMachine()
    assert free_memory(machine) is None
    machine.set_free(0.25)
    assert free_memory(machine) == 0.25
    machine.files["/proc/meminfo"] = "MemTotal: 0 kB\nMemAvailable: 5 kB\n"
    assert free_memory(machine) is None
    machine.files["/proc/meminfo"] = "MemTotal: 100 kB\n"
    assert free_memory(machine) is None


def test_stall_of_some_and_of_all() -> None:
    machine = FakeMachine()
    assert stall(machine, "/proc/pressure/memory", "some") is None
    machine.set_stall(123456)
    assert stall(machine, "/proc/pressure/memory", "some") == 123456
    assert stall(machine, "/proc/pressure/memory", "full") == 61728
    machine.files["/x"] = "nothing here\n"
    assert stall(machine, "/x", "some") is None


def test_why_nothing_can_be_written_back() -> None:
    target = FakeTarget()
    assert why_no_writeback(target) == ""
    target.values["backing_dev"] = "none\n"
    assert why_no_writeback(target) == "zram0 has no backing device"
    target.capabilities = frozenset({"idle"})  # type: ignore[attr-defined]  # as the kernel's has
    assert why_no_writeback(target) == "zram0 has no writeback on this kernel"


def test_amounts_as_people_read_them() -> None:
    assert [hours(s) for s in (12.0, 600.0, 7199.0, 76680.0)] == ["12 s", "10 min", "120 min", "21.3 h"]
    assert [mebibytes(pages) for pages in (0, 3, 256, 76800, 393216)] == [
        "0 KiB",
        "12 KiB",
        "1 MiB",
        "300 MiB",
        "1.5 GiB",
    ]
