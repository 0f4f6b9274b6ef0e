"""The oracle: what it says is right on traces small enough to work out, and nothing that a policy does beats it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zramcore.config import PolicyConfig, Where
from zramcore.interfaces import Catalogue, PolicyTarget, Tick, WritebackPolicy
from zramcore.simulation.compare import Comparison
from zramcore.simulation.oracle import Oracle
from zramcore.simulation.sizes import PageSizes
from zramcore.simulation.trace import FREE, READ, WRITE

from .conftest import make_trace

HERE = Where("a test", "policy")


def test_gaps_that_nobody_reads_after_are_free_and_the_longest_others_cost_a_reread() -> None:
    trace = make_trace(
        [
            (0, 0, WRITE), (10, 0, READ), (40, 0, READ),  # gaps of 10 and 30 s, then 60 s to the end
            (0, 1, WRITE), (50, 1, WRITE), (70, 1, FREE),  # 50 s and 20 s, and nothing after
            (5, 2, WRITE),  # same-filled
        ],
        end=100,
    )  # fmt: skip
    sizes = np.zeros(16, np.int64)
    sizes[:2] = 100, 10
    oracle = Oracle(trace, sizes)
    assert oracle.whole == 100 * 100 + 10 * 70
    free = 100 * 60 + 10 * 70
    assert [oracle.best(rereads) for rereads in range(4)] == [free, free + 3000, free + 4000, free + 4000]


def test_pages_may_be_dense_all_the_time_where_a_policy_recompresses() -> None:
    trace = make_trace([(0, 0, WRITE), (40, 0, READ)], end=100)
    sizes, dense = np.full(16, 100), np.full(16, 30)
    oracle = Oracle(trace, sizes, dense)
    assert oracle.best(0) == 70 * 100 + 30 * 60
    assert oracle.best(1) == 100 * 100


def test_what_was_there_before_counts_from_the_start_and_reads_of_nothing_do_not() -> None:
    trace = make_trace([(-500, 0, WRITE), (10, 1, READ), (20, 0, FREE), (30, 0, READ)], end=100)
    oracle = Oracle(trace, np.full(16, 7))
    assert oracle.whole == oracle.best(0) == 7 * 20


class Scripted(WritebackPolicy):
    """Makes the writes of `script` at their times."""

    name = "scripted"
    writes = ("idle", "writeback", "recompress")
    script: ClassVar[list[tuple[float, tuple[str, str]]]] = []

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        self._left = sorted(self.script, key=lambda row: row[0])[::-1]

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        writes = []
        while self._left and self._left[-1][0] <= now + 1e-6:
            writes.append(self._left.pop()[1])
        return Tick(writes, max(self._left[-1][0] - now, 0.01) if self._left else 1e6)


ROWS = st.lists(
    st.tuples(st.integers(0, 999), st.integers(0, 15), st.sampled_from((READ, READ, READ, WRITE, FREE))), max_size=80
)
WRITES = st.sampled_from(
    (
        ("idle", "all"), ("idle", "50"), ("idle", "3"), ("writeback", "idle"), ("writeback", "huge"),
        ("writeback", "page_indexes=0-15"), ("writeback", "page_indexes=3-7"), ("recompress", "type=idle priority=1"),
    )
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, script=st.lists(st.tuples(st.integers(0, 999), WRITES), max_size=20), data=st.data())
def test_no_schedule_of_writes_beats_the_oracle(
    rows: list[tuple[int, int, int]], script: list[Any], data: st.DataObject, compare: Callable[..., Comparison],
    built_in: Catalogue,
) -> None:  # fmt: skip
    trace = make_trace(sorted([(0, page, WRITE) for page in range(12)] + rows, key=lambda row: row[0]), end=1000)
    drawn = data.draw(st.lists(st.integers(0, 4096), min_size=16, max_size=16))
    sizes = np.array([drawn, [max(1, size // 2) if size else 0 for size in drawn]])
    comparison = compare(trace, sizes=PageSizes(sizes))
    policy = type("Policy", (Scripted,), {"script": script})
    catalogue = replace(built_in, policies={"scripted": policy})
    nothing = comparison.run("nothing", (), catalogue)
    judged = comparison.run("scripted", [PolicyConfig("scripted", {}, HERE)], catalogue)
    assert nothing.saved == 0 or abs(nothing.saved) < 1e-9, "without a policy everything stays in memory"
    assert judged.saved <= judged.best + 1e-9
    assert judged.outcome.activity["scripted"].failures == 0


def test_a_plan_that_can_be_carried_out_reaches_the_bound(
    compare: Callable[..., Comparison], built_in: Catalogue
) -> None:
    """Written pages that are only read at the very end: out at once, each read once, and no more can be had."""
    rows = [(0, page, WRITE) for page in range(16)] + [(999, page, READ) for page in range(16)]
    comparison = compare(make_trace(rows, end=1000))
    policy = type("Policy", (Scripted,), {"script": [(0.02, ("writeback", "page_indexes=0-15"))]})
    catalogue = replace(built_in, policies={"scripted": policy})
    judged = comparison.run("scripted", [PolicyConfig("scripted", {}, HERE)], catalogue)
    assert judged.outcome.rereads == 16
    assert judged.saved > 0.99997
    assert judged.of_best is not None
    assert judged.of_best > 0.99997
