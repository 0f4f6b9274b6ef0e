"""What the tests of simulations share: traces from rows, and comparisons of policies on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from zramcore.interfaces import Catalogue
from zramcore.simulation.compare import Comparison
from zramcore.simulation.device import Setup
from zramcore.simulation.pool import PoolModel
from zramcore.simulation.replay import World
from zramcore.simulation.sizes import PageSizes
from zramcore.simulation.trace import SECOND, Trace

Row = tuple[float, int, int]
"""Seconds, page, kind."""
WORLD = World(ram=1 << 30, others=1 << 29, latency=1e-4)


def make_trace(rows: Sequence[Row], end: float, nr_pages: int = 16) -> Trace:
    """A trace of these accesses, in order."""
    time, page, kind = np.array([(round(at * SECOND), page, kind) for at, page, kind in rows], np.int64).T
    return Trace(time, page, kind.astype(np.uint8), round(end * SECOND), nr_pages, source="a test")


@pytest.fixture(scope="session")
def compare(built_in: Catalogue) -> Callable[..., Comparison]:
    """Makes a comparison on a trace: every page has `size` bytes (and `dense` with a second algorithm), or `sizes`."""

    def make(
        trace: Trace, size: int = 1000, dense: int | None = None, blocks: int | None = None,
        sizes: PageSizes | None = None, per_day: int | None = None,
    ) -> Comparison:  # fmt: skip
        algorithms = (
            ((0, "lz4"),) if dense is None and (sizes is None or len(sizes.sizes) == 1) else ((0, "lz4"), (1, "zstd"))
        )
        if sizes is None:
            sizes = PageSizes(np.array([[each] * trace.nr_pages for each in (size, dense) if each is not None]))
        setup = Setup(
            "zram0", trace.nr_pages, algorithms=algorithms, blocks=trace.nr_pages if blocks is None else blocks,
            backing_dev="file:/nowhere",
        )  # fmt: skip
        return Comparison(
            trace, setup, sizes, lambda: PoolModel(built_in.allocators["zsmalloc"](4096, 1)), WORLD, per_day
        )

    return make
