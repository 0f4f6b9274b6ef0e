"""Oracle: what a policy that knows the future could save at most, for a number of re-reads.

Between two accesses of a page lies a gap. On the backing device for all of a gap, a page saves its bytes for that long;
if the gap ends with a read, the page has to be waited for once, if with a write, a free or the end of the trace, never.
So the best is every gap of the second kind, and of the first kind those that save most, as many as re-reads are
allowed. That is a bound, not a plan: it takes pages back into memory for nothing, and needs no write budget.
"""

from __future__ import annotations

import numpy as np

from .trace import READ, SECOND, WRITE, Array, Trace


class Oracle:
    """The bound for pages of `sizes` bytes (one for each page, 0: same-filled). `dense`: what the pages would take at
    best while in memory, where a policy recompresses; it may then have them so at any time."""

    def __init__(self, trace: Trace, sizes: Array, dense: Array | None = None) -> None:
        small = sizes if dense is None else np.minimum(sizes, dense)
        sort = np.argsort(trace.page, kind="stable")
        page, kind = trace.page[sort], trace.kind[sort]
        time = np.maximum(0, trace.time[sort])
        same_page = np.concatenate([page[1:] == page[:-1], [False]])
        following = np.where(same_page, np.concatenate([time[1:], [0]]), trace.end)
        gaps = np.maximum(0, following - time) / SECOND
        alive = _alive(kind, same_page)
        read_next = same_page & (np.concatenate([kind[1:], [WRITE]]) == READ)
        lengths = np.where(alive, gaps, 0.0)
        values = lengths * small[page]
        self._free = float(values[~read_next].sum())
        costly = np.sort(values[read_next & (values > 0)])[::-1]
        self._costly = np.concatenate([[0.0], np.cumsum(costly)])
        self.whole = float((lengths * sizes[page]).sum())
        """Byte seconds that the pages take when nothing is written back or recompressed."""
        self._denser = self.whole - float((lengths * small[page]).sum())

    def best(self, rereads: int) -> float:
        """The most byte seconds of compr_data_size that can be saved with that many re-reads."""
        return self._denser + self._free + float(self._costly[min(rereads, len(self._costly) - 1)])


def _alive(kind: Array, same_page: Array) -> Array:
    """After which accesses, sorted by page, the page holds something: not after a free, until it is written."""
    starts = np.concatenate([[True], ~same_page[:-1]])
    numbers = np.arange(len(kind))
    decides = (kind != READ) | starts
    last = np.maximum.accumulate(np.where(decides, numbers, 0))
    alive: Array = kind[last] == WRITE
    return alive
