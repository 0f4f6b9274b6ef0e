"""What mmd, ChromeOS and Android's older service are set to. Every figure is from ZRAM.md 3.1, with its sources
[MMD], [CROS] and the constants of ZramWriteback.java."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE, HOUR = 60.0, 3600.0
MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Preset:
    """Durations in seconds, sizes in bytes. A round or a day of 0 bytes at most has no limit.

    `mark_delay`: when to mark all pages the first time, in a preset that does not go by age; None: by age.
    """

    first: float
    period: float
    backoff: float
    min_age: float
    max_age: float
    min_round: int
    max_round: int
    per_day: int
    modes: str
    mark_delay: float | None = None


PRESETS = {
    # README diff and Params::default of mmd: 1 h, backoff 600 s, 20..25 h, 5/300 MiB, 1 GiB a day, huge off
    "mmd": Preset(HOUR, HOUR, 600.0, 20 * HOUR, 25 * HOUR, 5 * MIB, 300 * MIB, GIB, "huge_idle,idle"),
    # zram_writeback.h of today: 1 h, 10 min, 20..25 h, 5/300 MiB, 1 GiB a day, huge_idle then idle then huge
    "chromeos": Preset(HOUR, HOUR, 600.0, 20 * HOUR, 25 * HOUR, 5 * MIB, 300 * MIB, GIB, "huge_idle,idle,huge"),
    # ZramWriteback.java: marks all after 0x14 min, first writeback after 0xb4 min, then every 0x18 h, without budgets
    "android-classic": Preset(180 * MINUTE, 24 * HOUR, 0.0, 0.0, 0.0, 0, 0, 0, "idle", 20 * MINUTE),
}
