"""Compressed sizes of pages: drawn for each page from sizes that real pages had, by a seed; always the same.

The default sizes are those of data/page-sizes.txt, whose header says what was measured. `measure` takes one's own data
and the algorithms of one's own device instead. A recording says which pages were same-filled or did not compress, and
the mean of the others: they are drawn accordingly, and scaled to that mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from ..errors import InvalidValue, did_you_mean
from .trace import HUGE, KNOWN, SAME, Array, Trace

FILE = "page-sizes.txt"
MOST_SAMPLES = 4096


@dataclass(frozen=True)
class Samples:
    """Sizes that real pages had: a row for each page, a column for each algorithm, in bytes; 0 is same-filled."""

    algorithms: tuple[str, ...]
    sizes: Array

    def of(self, algorithms: Sequence[str]) -> Samples:
        """Only the columns of these algorithms, in their order. Raises InvalidValue (EINVAL) for one that is not
        there."""
        for name in algorithms:
            if name not in self.algorithms:
                hint = f"measure them on data of yours: --sizes PATH; {did_you_mean(name, self.algorithms)}"
                raise InvalidValue(f"nobody measured the sizes of {name} for simulations", hint=hint)
        return Samples(tuple(algorithms), self.sizes[:, [self.algorithms.index(name) for name in algorithms]])


def default_samples() -> Samples:
    """The sizes that come with zramcore, for pages of 4096 bytes."""
    text = (resources.files("zramcore") / "data" / FILE).read_text()
    head, *rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return Samples(tuple(head), np.array([[int(size) for size in row] for row in rows]))


@dataclass(frozen=True)
class PageSizes:
    """For each page of the device its size with each of the device's algorithms, in the order of their priorities:
    ``sizes[k, page]`` bytes, 1 to page_size. Same-filled pages have 0."""

    sizes: Array


def draw(samples: Samples, trace: Trace, nr_pages: int, seed: int, page_size: int, huge_class_size: int) -> PageSizes:
    """A row of `samples` for each page, by a hash of its number and `seed`."""
    rows = samples.sizes
    pages = np.arange(nr_pages, dtype=np.uint64)
    picked = _hash(pages, seed)
    choice = (picked % np.uint64(len(rows))).astype(np.int64)
    classes = np.zeros(nr_pages, np.uint8)
    if trace.classes is not None:
        known = min(nr_pages, len(trace.classes))
        classes[:known] = trace.classes[:known]
    same, huge = rows[:, 0] == 0, rows[:, 0] >= huge_class_size
    for flags, kind in ((KNOWN | SAME, same), (KNOWN | HUGE, huge), (KNOWN, ~same & ~huge)):
        which = np.flatnonzero(classes == flags)
        among = np.flatnonzero(kind)
        if len(which) and len(among):
            choice[which] = among[(picked[which] % np.uint64(len(among))).astype(np.int64)]
    sizes = rows[choice].T.copy()
    if trace.mean_size is not None:
        plain = (sizes[0] > 0) & (sizes[0] < huge_class_size)
        if plain.any():
            factor = trace.mean_size / sizes[0, plain].mean()
            scaled = np.rint(sizes[:, plain] * factor).astype(np.int64)
            sizes[:, plain] = np.clip(scaled, 1, huge_class_size - 1)
    # what nobody has samples of: a page that is known to be same-filled, or huge
    sizes[:, (classes & SAME) != 0] = 0
    sizes[0, classes == (KNOWN | HUGE)] = page_size
    sizes[:, sizes[0] == 0] = 0
    return PageSizes(np.minimum(sizes, page_size))


def _hash(numbers: Array, seed: int) -> Array:
    """Splitmix64's finaliser: well mixed, and the same everywhere."""
    mixed = numbers + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def spread(pages: Iterable[bytes], most: int = MOST_SAMPLES) -> list[bytes]:
    """At most `most` of the pages, evenly from all of them."""
    every = list(pages)
    step = max(1, -(-len(every) // most))
    return every[::step]
