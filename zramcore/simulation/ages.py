"""AgeIndex: how many pages are in memory by the second of their last access, so that a histogram of a million pages
costs a tenth of a millisecond. A policy may ask for one every few seconds of a week."""

from __future__ import annotations

import numpy as np

from ..insight import AGE_EDGES
from .trace import Array

_SHIFT = 5
"""Each level sums 32 entries of the one below: seconds, half minutes, a quarter of an hour."""
_LEVELS = 3
_WIDTH = 1 << _SHIFT
_STEPS = np.arange(_WIDTH)[None, :]
_COLUMNS = np.arange(3)
"""Pages, bytes, idle pages; they lie side by side in one flat array a level."""
_IDLE = 2


class AgeIndex:
    """Counts, bytes and idle pages for each second from 0 to `last`."""

    def __init__(self, last: int) -> None:
        top = (last >> _SHIFT * (_LEVELS - 1)) + 2
        self._levels = [np.zeros(top * _WIDTH ** (_LEVELS - 1 - level) * 3, np.int64) for level in range(_LEVELS)]
        self._last = top * _WIDTH ** (_LEVELS - 1) - 1
        self._edges = np.array(AGE_EDGES[1:])

    def change(self, seconds: Array, sizes: Array, idle: Array, signs: Array) -> None:
        """Add (1) or take out (-1) pages: their seconds, their objects' bytes, whether they are idle."""
        if not len(seconds):
            return
        values = np.empty((len(seconds), 3), np.int64)
        values[:, 0], values[:, 1], values[:, 2] = signs, sizes, idle
        values[:, 1:] *= signs[:, None]
        flat = values.ravel()
        for level, sums in enumerate(self._levels):
            keys = (seconds >> level * _SHIFT)[:, None] * 3 + _COLUMNS
            np.add.at(sums, keys.ravel(), flat)

    def mark(self, seconds: Array, sign: int) -> None:
        """Pages that are counted already became idle (1), or are not idle any more (-1)."""
        if len(seconds):
            for level, sums in enumerate(self._levels):
                np.add.at(sums, (seconds >> level * _SHIFT) * 3 + _IDLE, sign)

    def older(self, cutoffs: Array) -> Array:
        """For each cutoff (seconds) the sums over the seconds below it: an array of 3 columns."""
        cutoffs = np.minimum(np.maximum(cutoffs, 0), self._last)
        top = self._levels[-1].reshape(-1, 3)
        whole = np.concatenate([np.zeros((1, 3), np.int64), top.cumsum(axis=0)])
        found: Array = whole[cutoffs >> _SHIFT * (_LEVELS - 1)]
        for level in range(_LEVELS - 1):
            at = cutoffs >> level * _SHIFT
            rows = (at >> _SHIFT << _SHIFT)[:, None] + _STEPS
            part = self._levels[level].reshape(-1, 3)[rows]
            found = found + np.einsum("ij,ijk->ik", (rows < at[:, None]).astype(np.int64), part)
        return found

    def buckets(self, now: int) -> Array:
        """The rows of idle_histogram at `now`, youngest first: pages, bytes, idle pages of each."""
        all_of_it = self._levels[-1].reshape(-1, 3).sum(axis=0)
        older = np.concatenate([all_of_it[None, :], self.older(now - self._edges)])
        older[:-1] -= older[1:]
        return older
