"""`bench scan`: walks over the whole slot table: marking pages idle, choosing what to write back.

The pages are few bytes compressed, so that a million of them take seconds and little memory. They lie together at the
start of the device, or in runs of 64 KiB at equal distances, so that no part of the table is empty. The limit is one
numpy pass over every row of a table as large, without locks and without skipping what was never written.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np

from ..control import Control
from ..interfaces import Catalogue
from ..postprocess import MODES, Selection, tokens
from ..slot_table import IDLE, Column, in_memory
from .data import PAGE
from .kernel_zram import KernelZram
from .rounds import Job, Tell, in_one, labelled, take_turns
from .rows import Row, compare

RUN = 16
"""Pages that lie together."""
LAYOUTS = ("dense", "scattered")
AGE = 3600


class ScannedDevice:
    """A zramcore device of `slots` pages."""

    def __init__(self, catalogue: Catalogue, slots: int) -> None:
        control = Control(catalogue)
        self.target = control.target(f"zram{control.hot_add(PAGE)}")
        self.device = self.target.device
        self.target.store("disksize", str(slots * PAGE))

    def idle_all(self) -> None:
        """Mark all pages idle."""
        self.target.store("idle", "all")

    def idle_by_age(self) -> None:
        """Mark pages idle that are an hour old."""
        self.target.store("idle", str(AGE))

    def select(self, mode: str) -> Callable[[], None]:
        """Choose the candidates of a pass, as a writeback of `mode` does, and let them go."""

        def run() -> None:
            path = self.device.path
            if path is not None:
                with tokens(path.table, [Selection(0, self.device.nr_pages, MODES[mode])]):
                    pass

        return run

    def flags(self) -> Column:
        """A copy of the flags of all rows."""
        path = self.device.path
        return np.zeros(0, np.uint32) if path is None else path.table.flags.copy()

    def close(self) -> None:
        """Give everything back."""
        self.device.reset()


def fill(write: Callable[[memoryview, int], object], slots: int, allocated: int, layout: str, tell: Tell) -> None:
    """Write `allocated` pages of a device of `slots`, by `write(data, offset)` from aligned memory."""
    memory = mmap.mmap(-1, RUN * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(b"zramcore" * (RUN * PAGE // 8))
    view = memoryview(memory)
    runs = allocated // RUN
    within = slots // RUN if layout == "scattered" else runs
    for run in range(runs):
        for page in range(RUN):
            view[page * PAGE : page * PAGE + 8] = (run * RUN + page).to_bytes(8, "little")
        write(view, run * within // runs * RUN * PAGE)
        if not run % 4096:
            tell(f"{run * RUN} of {allocated} pages")


def _pass_over(flags: Column) -> Callable[[], None]:
    def run() -> None:
        flags[in_memory(flags)] |= IDLE

    return run


def bench(
    catalogue: Catalogue,
    slots: int,
    allocated: int,
    layout: str,
    kernel: KernelZram | None,
    rounds: int,
    tell: Tell,
) -> Iterator[Row]:
    """The rows for a table of `slots`, `allocated` of them in use (multiples of 16); `kernel` is as large and empty."""
    label = f"{slots} slots {layout}"
    with ExitStack() as stack:
        ours = ScannedDevice(catalogue, slots)
        stack.callback(ours.close)
        told = labelled(tell, f"{label}, filling")
        fill(lambda data, offset: ours.device.pwrite(offset, data), slots, allocated, layout, told)
        if kernel is not None:
            fd = kernel.fd
            fill(
                lambda data, offset: os.pwrite(fd, data, offset),
                slots,
                allocated,
                layout,
                labelled(told, "the kernel's"),
            )
        limit = _pass_over(ours.flags())

        def rows(work: str, job: Job, kernels: str = "") -> Sequence[Row]:
            """Those of a work, which is also the kernel's when it is writing this to its `idle`."""
            contenders = [in_one("zramcore", job), in_one("numpy pass", limit, role="limit")]
            if kernels and kernel is not None:
                store = partial(kernel.device.store, "idle", kernels)
                contenders.append(in_one(f"kernel {kernel.algorithm}", store, role="kernel"))
            name = f"{work}, {label}"
            take_turns(contenders, 1, rounds, labelled(tell, name))
            made = compare(name, 0, contenders, slots)
            for row in made:
                row.figures["ms"] = (row.us_per_page or 0.0) * slots / 1000
            return made

        ages = kernel is not None and "idle_age" in kernel.device.capabilities
        yield from rows("idle all", ours.idle_all, "all")
        yield from rows("select idle", ours.select("idle"))
        yield from rows("select huge", ours.select("huge"))
        yield from rows("idle by age", ours.idle_by_age, str(AGE) if ages else "")
