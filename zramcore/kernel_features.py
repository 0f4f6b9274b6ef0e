"""What a kernel's zram offers: one row per feature, each present or absent with the reason, and none of them a crash.

A feature is there when its file is. Two are not files: whether pages have ages (`idle N`), which the running kernel's
configuration or a readable block_state tells, and which a refused `idle N` settles where neither can be read.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Feature:
    """One thing that zram may be able to do here. `needs`: what a kernel must have for it; `note`: how it is known."""

    name: str
    present: bool
    needs: str
    note: str = ""

    def line(self) -> str:
        """It in one line, for people."""
        if self.present:
            return f"{self.name}: yes" + (f" ({self.note})" if self.note else "")
        return f"{self.name}: no, it needs {self.needs}" + (f" ({self.note})" if self.note else "")


FILES = {
    "idle": ("idle", "Linux 5.0"),
    "backing_dev": ("backing_dev", "CONFIG_ZRAM_WRITEBACK"),
    "writeback": ("writeback", "CONFIG_ZRAM_WRITEBACK"),
    "writeback_limit": ("writeback_limit", "CONFIG_ZRAM_WRITEBACK"),
    "writeback_batch_size": ("writeback_batch_size", "CONFIG_ZRAM_WRITEBACK and Linux 6.19"),
    "compressed_writeback": ("compressed_writeback", "CONFIG_ZRAM_WRITEBACK and Linux 7.0"),
    "recompress": ("recompress", "CONFIG_ZRAM_MULTI_COMP"),
    "algorithm_params": ("algorithm_params", "Linux 6.12"),
    "compact": ("compact", "Linux 4.1"),
}
"""Feature -> the file that shows it, and what it needs (ZRAM.md 1.9)."""

ALWAYS = (
    "comp_algorithm",
    "debug_stat",
    "disksize",
    "initstate",
    "io_stat",
    "mem_limit",
    "mem_used_max",
    "mm_stat",
    "reset",
    "stat",
    "bd_stat",
    "recomp_algorithm",
    "writeback_limit_enable",
)
"""Files that are no features: every kernel has them, or they come with one."""

SURVIVORS = {
    "writeback_limit_enable": "0",
    "writeback_limit": "0",
    "writeback_batch_size": "32",
    "compressed_writeback": "0",
}
"""What survives a reset -> what it is on a new device."""

ALGORITHMS = ("lzo-rle", "lzo", "lz4", "lz4hc", "zstd", "deflate", "842")
"""What a kernel may be built with, for when there is no device to ask."""

ALIASES = {"compressed_writeback": "writeback_compressed"}
"""Attribute -> its name in 7.0's release candidates."""

AGES = ("CONFIG_ZRAM_TRACK_ENTRY_ACTIME", "CONFIG_ZRAM_MEMORY_TRACKING")
"""Either of them makes `idle N` work: the first one exists since 6.8, and before that the second did it alone."""


def learn(device: Path, block_state: Path, config: Mapping[str, str] | None) -> dict[str, Feature]:
    """The features of one device, by name. `device`: its directory in sysfs; `block_state`: its file in debugfs;
    `config`: the kernel's configuration, None when it cannot be read."""
    features = {}
    for name, (file, needs) in FILES.items():
        present = (device / file).exists() or (name in ALIASES and (device / ALIASES[name]).exists())
        features[name] = Feature(name, present, needs)
    readable = os.access(block_state, os.R_OK)
    why = (
        "" if readable else "not there" if not _exists(block_state) else "not readable: root can, with debugfs mounted"
    )
    features["block_state"] = Feature("block_state", readable, "CONFIG_ZRAM_MEMORY_TRACKING and debugfs", why)
    features["idle_age"] = _ages(features["idle"].present, readable, config)
    # the kernel has intersections only: a union is two writes
    features["idle_or_huge"] = Feature("idle_or_huge", False, "a zramcore device: here it takes two writes")
    features["idle_histogram"] = Feature("idle_histogram", False, "a zramcore device: here block_state tells the ages")
    return features


def _ages(idle: bool, tracked: bool, config: Mapping[str, str] | None) -> Feature:
    needs = AGES[0]
    if not idle:
        return Feature("idle_age", False, needs, "there is no file idle")
    if tracked:
        return Feature("idle_age", True, needs, "block_state shows them")
    if config is None:
        return Feature("idle_age", True, needs, "taken to be there until the kernel refuses a number")
    return Feature("idle_age", any(config.get(key) == "y" for key in AGES), needs, "by the kernel's configuration")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # debugfs keeps its directories to root
        return False


def kernel_config(proc: Path = Path("/proc"), boot: Path = Path("/boot")) -> dict[str, str] | None:
    """The running kernel's configuration, of /proc/config.gz or /boot/config-RELEASE; None when neither can be read."""
    for path in (proc / "config.gz", boot / f"config-{os.uname().release}"):
        try:
            raw = path.read_bytes()
            text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode(errors="replace")
        except (OSError, EOFError):
            continue
        settings = (line.partition("=") for line in text.splitlines() if line.startswith("CONFIG_"))
        return {key: value for key, _, value in settings}
    return None
