"""The class table of a pool: the rows of debugfs zsmalloc/zram0/classes, and their text.

The text is that of Linux 7.3.4 as transcript 04b of the oracle shows it; the blank line above Total, which the
transcript's filter drops, is mm/zsmalloc.c's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .compaction import can_compact
from .zspages import ClassState

GROUP_TITLES = ("10%", "20%", "30%", "40%", "50%", "60%", "70%", "80%", "90%", "99%", "100%")
HEADER = (
    f" {'class':>5} {'size':>5} "
    + "".join(f"{title:>9} " for title in GROUP_TITLES)
    + f"{'obj_allocated':>13} {'obj_used':>10} {'pages_used':>10} {'pages_per_zspage':>16} {'freeable':>8}\n"
)


@dataclass(frozen=True)
class ClassRow:
    """One class: zspages by fullness (10 %, 20 %, ... 90 %, 99 %, 100 %), objects, pages. Sizes are in bytes."""

    index: int
    size: int
    zspages: tuple[int, ...]
    obj_allocated: int
    obj_used: int
    pages_used: int
    pages_per_zspage: int
    freeable: int
    """Pages that compaction could free."""


def class_rows(states: Iterable[ClassState]) -> list[ClassRow]:
    """A row for each class; the caller holds the pool's lock."""
    return [
        ClassRow(
            index=state.index,
            size=state.size,
            zspages=tuple(state.counts()[1:]),
            obj_allocated=state.zspages * state.objects,
            obj_used=state.objects_used(),
            pages_used=state.zspages * state.pages,
            pages_per_zspage=state.pages,
            freeable=can_compact(state),
        )
        for state in states
    ]


def format_class_table(rows: Sequence[ClassRow]) -> str:
    """The kernel's text, with header and total."""
    lines = [HEADER]
    for row in rows:
        groups = "".join(f"{count:9} " for count in row.zspages)
        objects = f"{row.obj_allocated:13} {row.obj_used:10} {row.pages_used:10}"
        lines.append(f" {row.index:5} {row.size:5} {groups}{objects} {row.pages_per_zspage:16} {row.freeable:8}\n")
    totals = [sum(row.zspages[group] for row in rows) for group in range(len(GROUP_TITLES))]
    lines.append("\n")
    lines.append(
        f" {'Total':>5} {'':>5} "
        + "".join(f"{count:9} " for count in totals)
        + f"{sum(row.obj_allocated for row in rows):13} {sum(row.obj_used for row in rows):10} "
        + f"{sum(row.pages_used for row in rows):10} {'':>16} {sum(row.freeable for row in rows):8}\n"
    )
    return "".join(lines)
