"""A simulated device and a real one in lockstep: the same accesses and attribute writes, the same attributes after."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import ZramError
from zramcore.interfaces import Catalogue, CompressorParams
from zramcore.samefill import same_word
from zramcore.simulation.accesses import UPTIME, Accesses
from zramcore.simulation.device import Setup, SimulatedDevice
from zramcore.simulation.pool import PoolModel
from zramcore.simulation.sizes import PageSizes
from zramcore.simulation.target import SimulatedTarget
from zramcore.simulation.trace import FREE, READ, SECOND, WRITE, Trace
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import Clock
from zramcore.testing.samples import make_pages

PAGES, PAGE, BLOCKS = 10, 4096, 6
COMPARED = ("block_state", "idle_histogram", "bd_stat", "writeback_limit", "writeback_limit_enable", "disksize")

STORES = (
    ("idle", "all"), ("idle", "all\n"), ("idle", "0"), ("idle", "5"), ("idle", "100"), ("idle", "3600"),
    ("idle", "870000"), ("idle", "4294967295"), ("idle", "bogus"),
    ("writeback", "idle"), ("writeback", "huge"), ("writeback", "huge_idle"), ("writeback", "incompressible"),
    ("writeback", "idle_or_huge"), ("writeback", "type=idle"), ("writeback", "3"), ("writeback", "bogus"),
    ("writeback", "page_indexes=2-8 page_index=3"), ("writeback", "page_indexes=0-9 page_indexes=4-7"),
    ("writeback", "page_index=99"), ("writeback", "page_indexes=0-5 type=idle"),
    ("recompress", "type=idle priority=1"), ("recompress", "type=huge_idle priority=1 threshold=1000"),
    ("recompress", "type=huge priority=1 max_pages=2"), ("recompress", "priority=1 threshold=200"),
    ("recompress", "algo=zstd"), ("recompress", "priority=2"), ("recompress", "threshold=3625"),
    ("recompress", "type=idle priority=2"), ("recompress", "algo=deflate"),
    ("writeback_limit", "0"), ("writeback_limit", "3"), ("writeback_limit", "1000"), ("writeback_limit", "x"),
    ("writeback_limit_enable", "1"), ("writeback_limit_enable", "0"),
    ("writeback_batch_size", "1"), ("writeback_batch_size", "3"), ("writeback_batch_size", "0"),
    ("mem_used_max", "1"), ("no_such_attribute", "1"), ("bd_stat", "1"),
)  # fmt: skip

ACCESS = st.tuples(st.just("access"), st.integers(0, PAGES - 1), st.sampled_from((READ, WRITE, WRITE, FREE)))
SLEEP = st.tuples(st.just("sleep"), st.sampled_from((0, 1, 1, 5, 61, 3600, 90000)))
STORE = st.tuples(st.just("store"), st.sampled_from(STORES))
MARK = st.tuples(st.just("store"), st.sampled_from((("idle", "all"), ("idle", "0"), ("idle", "60"))))
PASS = st.tuples(
    st.just("store"),
    st.sampled_from((("writeback", "idle"), ("writeback", "idle_or_huge"), ("recompress", "type=idle priority=1"))),
)
FILL: list[Any] = [("access", page, WRITE) for page in range(PAGES)]
STEPS = st.lists(st.one_of(ACCESS, ACCESS, ACCESS, SLEEP, MARK, PASS, STORE, STORE), min_size=8, max_size=80)
"""What comes after every page was written once."""


def contents() -> list[bytes]:
    """What each page always holds: same-filled, huge, and everything between."""
    kinds = list(make_pages(PAGE).values())
    return [kinds[page % len(kinds)][page:] + kinds[page % len(kinds)][:page] for page in range(PAGES)]


def sizes_of(catalogue: Catalogue, pages: list[bytes]) -> PageSizes:
    """Their sizes with lz4 and zstd."""
    contexts = [catalogue.compressors[name](CompressorParams()).create_context() for name in ("lz4", "zstd")]
    rows = [
        [0 if same_word(page) is not None else min(PAGE, len(context.compress_page(page))) for page in pages]
        for context in contexts
    ]
    return PageSizes(np.array(rows))


class Lockstep:
    """The two devices. Accesses are given to the simulated one only when somebody looks: many at a time."""

    def __init__(self, catalogue: Catalogue, steps: list[Any], compressed_writeback: bool) -> None:
        self.steps = steps
        self.pages = contents()
        self.clock = Clock(UPTIME)
        self.device = Device(catalogue, "zram0", clock=self.clock)
        for attribute, value in (
            ("comp_algorithm", "lz4"), ("recomp_algorithm", "algo=zstd priority=1"), ("allocator", "zsmalloc"),
            ("backing_dev", f"faulty:simulated,blocks={BLOCKS}"),
            ("compressed_writeback", str(int(compressed_writeback))), ("disksize", str(PAGES * PAGE)),
        ):  # fmt: skip
            attributes.store(self.device, attribute, value)
        setup = Setup(
            "zram0", PAGES, algorithms=((0, "lz4"), (1, "zstd")), blocks=BLOCKS, backing_dev="faulty",
            compressed_writeback=compressed_writeback,
        )  # fmt: skip
        pool = PoolModel(catalogue.allocators["zsmalloc"](PAGE, 1))
        accesses = Accesses(self.trace())
        self.simulated = SimulatedDevice(setup, pool, sizes_of(catalogue, self.pages), accesses, self.clock)
        self.target = SimulatedTarget(self.simulated)

    def trace(self) -> Trace:
        """The accesses of all steps, at the times at which they will come."""
        now, rows = 0, []
        for step in self.steps:
            now += step[1] if step[0] == "sleep" else 0
            if step[0] == "access":
                rows.append((now * SECOND, step[1], step[2]))
        time, page, kind = np.array(rows, np.int64).reshape(-1, 3).T
        return Trace(time, page, kind.astype(np.uint8), (now + 1) * SECOND, PAGES)

    def run(self) -> None:
        """Make all steps."""
        made = 0
        for step in self.steps:
            if step[0] == "sleep":
                self.clock.now += step[1]
            elif step[0] == "access":
                made += 1
                self.access(step[1], step[2])
            else:
                self.simulated.apply(made)
                self.store(*step[1])
                self.compare()
        self.simulated.apply(made)
        self.compare()

    def access(self, page: int, kind: int) -> None:
        """One access of the real device."""
        if kind == READ:
            self.device.pread(page * PAGE, PAGE)
        elif kind == WRITE:
            self.device.pwrite(page * PAGE, self.pages[page])
        else:
            self.device.discard(page * PAGE, PAGE)

    def store(self, attribute: str, value: str) -> None:
        """One attribute write: both succeed, or fail alike."""
        errors = []
        for store in (lambda: attributes.store(self.device, attribute, value),
                      lambda: self.target.store(attribute, value)):  # fmt: skip
            try:
                store()
                errors.append(0)
            except ZramError as error:
                errors.append(error.errno)
        assert errors[0] == errors[1], (attribute, value)

    def compare(self) -> None:
        """Every attribute that both have says the same. The real pool is compacted: the simulated one always is."""
        attributes.store(self.device, "compact", "1")
        for attribute in COMPARED:
            assert self.target.show(attribute) == attributes.show(self.device, attribute), attribute
        real = attributes.show(self.device, "mm_stat").split()
        simulated = self.target.show("mm_stat").split()
        for column, name in enumerate(("orig", "compr", "used", "limit", "max", "same", "compacted", "huge", "since")):
            if name not in ("max", "compacted"):
                assert simulated[column] == real[column], name


def in_step(catalogue: Catalogue, steps: list[Any], compressed: bool) -> None:
    """Run the steps on both."""
    pair = Lockstep(catalogue, FILL + steps, compressed)
    try:
        pair.run()
    finally:
        pair.device.reset()
        FaultyDriver.reset()


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, compressed=st.booleans())
def test_a_simulated_device_is_in_step_with_a_real_one(catalogue: Catalogue, steps: list[Any], compressed: bool):
    in_step(catalogue, steps, compressed)


@pytest.mark.soak
@settings(max_examples=3000, deadline=None)
@given(steps=STEPS, compressed=st.booleans())
def test_it_stays_in_step_for_long(catalogue: Catalogue, steps: list[Any], compressed: bool) -> None:
    in_step(catalogue, steps, compressed)
