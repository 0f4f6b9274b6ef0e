"""Stats: the counters behind mm_stat, io_stat, bd_stat and stat."""

from __future__ import annotations

import threading

from .slot_table import HUGE, SAME, SIZE_MASK, WB


class Stats:
    """Counters since the last reset of the device. Change them while holding `lock`; reading needs no lock, so a
    stats file never waits for a pass.

    Units: pages for `pages_stored`, `same_pages`, `huge_pages`, `huge_pages_since`, `notify_free`; bytes for
    `compr_data_size`; 4 KiB blocks for `bd_reads` and `bd_writes`; sectors of 512 bytes; requests for the rest. Those
    of exactly one page are counted in `page_reads` and `page_writes`, without the lock: CPython does not switch threads
    within ``x += 1`` on an attribute.
    """

    __slots__ = (
        "bd_reads",
        "bd_writes",
        "compr_data_size",
        "failed_reads",
        "failed_writes",
        "huge_pages",
        "huge_pages_since",
        "lock",
        "notify_free",
        "page_reads",
        "page_writes",
        "pages_stored",
        "read_requests",
        "read_sectors",
        "same_pages",
        "write_requests",
        "write_sectors",
    )

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bd_reads = 0
        self.bd_writes = 0
        self.compr_data_size = 0
        self.failed_reads = 0
        self.failed_writes = 0
        self.huge_pages = 0
        self.huge_pages_since = 0
        self.notify_free = 0
        self.page_reads = 0
        self.page_writes = 0
        self.pages_stored = 0
        self.read_requests = 0
        self.read_sectors = 0
        self.same_pages = 0
        self.write_requests = 0
        self.write_sectors = 0

    def count_page(self, old: int, new: int) -> None:
        """Count one row whose flags change from `old` to `new`, all but its bytes; the caller holds `lock`."""
        if not old & (SIZE_MASK | SAME | WB):
            self.pages_stored += 1
        if old & SAME:
            self.same_pages -= 1
        if new & SAME:
            self.same_pages += 1
        if old & HUGE and not old & WB:
            self.huge_pages -= 1
        if new & HUGE:
            self.huge_pages += 1
            self.huge_pages_since += 1
