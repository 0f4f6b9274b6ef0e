"""A made-up trace to try policies on: a hot set, a cold set, and a change of phase. The same one for a seed, anywhere.

Of the pages 15 % are hot in the first half and cold in the second, 15 % the other way round; 10 % come back every half
day or so; 5 % are freed when the phase changes; 55 % are written once, and one in twenty of them is read once again.
"""

from __future__ import annotations

import numpy as np

from .trace import FREE, READ, SECOND, WRITE, Array, Trace, expanded

HOT, OTHER_HOT, SLOW, FREED = 0.15, 0.15, 0.10, 0.05
"""Parts of the pages; the rest are cold."""
FILL = 3600.0
"""Seconds in which everything is written first."""
RETURN = 12 * 3600.0
"""Seconds between two visits of the pages that come back slowly, on average."""
WRITES = 0.3
"""Part of the accesses to hot pages that are writes."""


def example(seed: int, nr_pages: int, days: float, accesses: int) -> Trace:
    """`accesses` is about how many there are; days of 86400 seconds, of which there must be an eighth or more."""
    source = np.random.Generator(np.random.PCG64(seed))  # only .random(): its stream is the same in every version
    end = days * 86400.0
    pages = np.argsort(source.random(nr_pages), kind="stable")
    hot, other_hot, slow, freed, cold = np.split(
        pages, np.cumsum([int(nr_pages * part) for part in (HOT, OTHER_HOT, SLOW, FREED)])
    )
    middle = end / 2
    parts = [(source.random(nr_pages) * FILL, np.arange(nr_pages), np.full(nr_pages, WRITE))]

    def visits(among: Array, count: int, start: float, stop: float, writes: float) -> None:
        # squared: the first pages of the set are visited more often
        chosen = among[(source.random(count) ** 2 * len(among)).astype(np.int64)]
        times = start + source.random(count) * (stop - start)
        parts.append((times, chosen, np.where(source.random(count) < writes, WRITE, READ)))

    returns = int(len(slow) * (end - FILL) / RETURN)
    again = len(cold) // 20
    busy = max(0, accesses - nr_pages - returns - again - len(freed))
    visits(hot, busy // 2, FILL, middle, WRITES)
    visits(other_hot, busy - busy // 2, middle, end, WRITES)
    parts.append(
        (
            FILL + source.random(returns) * (end - FILL),
            slow[(source.random(returns) * len(slow)).astype(np.int64)],
            np.full(returns, READ),
        )
    )
    parts.append((FILL + source.random(again) * (end - FILL), cold[:again], np.full(again, READ)))
    parts.append((np.full(len(freed), middle), freed, np.full(len(freed), FREE)))
    time, page, kind = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(time, kind="stable")
    return expanded(
        (time[order] * SECOND).astype(np.int64), page[order], np.ones(len(page), np.int64), kind[order],
        source=f"example, seed {seed}", page_size=4096, end=round(end * SECOND), nr_pages=nr_pages,
    )  # fmt: skip
