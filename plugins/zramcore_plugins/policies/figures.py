"""What policies read: a target's counters, the machine's memory and pressure. None means that nobody says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zramcore.errors import ZramError
from zramcore.interfaces import PolicyTarget, can
from zramcore.machine import Machine

UNIT = 4096
"""Bytes of the units that bd_stat, writeback_limit and budgets count in."""


def text(target: PolicyTarget, attribute: str) -> str | None:
    """An attribute without its newline."""
    try:
        return target.show(attribute).strip()
    except ZramError:
        return None


def column(target: PolicyTarget, attribute: str, index: int) -> int | None:
    """One number of an attribute that shows several."""
    try:
        return int(target.show(attribute).split()[index])
    except (ZramError, ValueError, IndexError):
        return None


@dataclass(frozen=True)
class Memory:
    """mm_stat as far as policies use it, in bytes."""

    original: int
    compressed: int
    used: int
    limit: int


def memory(target: PolicyTarget) -> Memory | None:
    """The figures of mm_stat."""
    try:
        columns = [int(word) for word in target.show("mm_stat").split()[:4]]
        return Memory(*columns)
    except (ZramError, ValueError, TypeError):
        return None


def pages_written(target: PolicyTarget) -> int | None:
    """bd_writes, in units of 4 KiB."""
    return column(target, "bd_stat", 2)


def why_no_writeback(target: PolicyTarget) -> str:
    """Why pages cannot be written back, or nothing."""
    if not can(target, "writeback"):
        return f"{target.name} has no writeback on this kernel"
    if text(target, "backing_dev") == "none":
        return f"{target.name} has no backing device"
    return ""


def free_memory(machine: Machine) -> float | None:
    """MemAvailable / MemTotal, 0 to 1."""
    try:
        lines = machine.read("/proc/meminfo")
    except OSError:
        return None
    found = {
        key: int(value) for key, value in re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", lines, re.MULTILINE)
    }
    total, available = found.get("MemTotal"), found.get("MemAvailable")
    if not total or available is None:
        return None
    return min(1.0, available / total)


def stall(machine: Machine, path: str, kind: str) -> int | None:
    """Microseconds of stall since start, from the line `kind` (some or full) of a PSI file."""
    try:
        lines = machine.read(path)
    except OSError:
        return None
    match = re.search(rf"^{kind} .*\btotal=(\d+)\s*$", lines, re.MULTILINE)
    return int(match[1]) if match else None


def hours(seconds: float) -> str:
    """A duration as people read it: ``21.3 h``, ``40 min``, ``12 s``."""
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def mebibytes(pages: int) -> str:
    """Units of 4 KiB as people read them: ``300 MiB``."""
    size = pages * UNIT
    if size >= 1 << 30:
        return f"{size / (1 << 30):.3g} GiB"
    return f"{size / (1 << 20):.3g} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
