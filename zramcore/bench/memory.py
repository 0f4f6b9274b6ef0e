"""`bench memory`: what the data take on each side: mem_used_total, and how much the process grows by."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

from .block import BlockSide, KernelSide, OurSide, Request
from .data import MIB, Data
from .rounds import Tell
from .rows import Row


def resident_bytes(pid: int | str = "self") -> int:
    """Anonymous memory of a process: what files it maps does not count. Raises OSError."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def bench(sides: Sequence[BlockSide], data: Data, tell: Tell) -> Iterator[Row]:
    """A row for each device among the sides, which are empty. A ratio is of memory: below 1 is less than the kernel's.

    `resident/expected` is what the process grew by, against mem_used_total and the rows of the slot table in use.
    """
    requests = [Request(start, MIB, start, True) for start in range(0, data.size, MIB)]
    used: dict[str, int] = {}
    rows = []
    for side in sides:
        if not isinstance(side, (OurSide, KernelSide)):
            continue
        tell(f"filling {side.side}")
        side.job(0, 0, requests[:1])()
        side.discard(0, MIB)
        gc.collect()
        before = resident_bytes()
        for request in requests:
            side.job(0, 0, [request])()
        used[side.role] = total = side.mem_used_total()
        row = Row("memory", MIB, 1, side.side, figures={"data/used": data.size / total, "used_bytes": total})
        if isinstance(side, OurSide):
            grown = resident_bytes() - before
            row.figures["resident_bytes"] = grown
            row.figures["resident/expected"] = grown / (total + side.table_bytes())
        rows.append(row)
    for row in rows:
        if "kernel" in used:
            row.ratio_to_kernel = row.figures["used_bytes"] / used["kernel"]
    yield from rows
