"""Rows as a table, for a terminal of 80 columns or so: a block for each work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from .rows import Row

MIB = 1 << 20


def size(value: float) -> str:
    """Bytes as people write the size of a request: 4K, 64K, 1M."""
    for shift, letter in ((20, "M"), (10, "K")):
        if value and not value % (1 << shift):
            return f"{int(value) >> shift}{letter}"
    return f"{value:.0f}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.2g}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _figure(name: str, value: float | None) -> str:
    if value is not None and name.endswith("_bytes"):
        return f"{value / MIB:.1f} MiB"
    return _number(value)


COLUMNS: dict[str, Callable[[Row], str]] = {
    "work": lambda row: row.work,
    "request": lambda row: size(row.request) if row.request else "",
    "threads": lambda row: str(row.threads),
    "side": lambda row: row.side,
    "us/page": lambda row: _number(row.us_per_page),
    "spread": lambda row: _percent(row.spread),
    "kernel=1": lambda row: _number(row.ratio_to_kernel),
    "limit=1": lambda row: _number(row.ratio_to_limit),
}
LEFT = ("work", "side")


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """The table; columns in which nobody has anything are left out."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    headings = [*COLUMNS, *(name.removesuffix("_bytes").replace("_", " ") for name in names)]
    cells = [
        [*(show(row) for show in COLUMNS.values()), *(_figure(name, row.figures.get(name)) for name in names)]
        for row in rows
    ]
    kept = [index for index in range(len(headings)) if any(line[index] for line in cells)]
    widths = {index: max(len(headings[index]), *(len(line[index]) for line in cells)) for index in kept}

    def line(texts: Sequence[str]) -> str:
        aligned = (
            texts[index].ljust(widths[index]) if headings[index] in LEFT else texts[index].rjust(widths[index])
            for index in kept
        )
        return "  ".join(aligned).rstrip()

    yield line(headings)
    for _, group in groupby(zip(rows, cells, strict=True), key=lambda pair: (pair[0].work, pair[0].request)):
        yield from (line(texts) for _, texts in group)
