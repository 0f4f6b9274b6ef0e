"""Rows as a picture: bars of the microseconds a page, one panel for each work. matplotlib is asked for only here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from ..errors import NotSupported, ZramError
from .rows import Row
from .table import size

COLUMNS = 3
PANEL = (4.6, 2.6)
"""Inches of a panel."""
COLOURS = {"kernel": "#d7875f", "bare": "#9e9e9e", "raw": "#9e9e9e"}
"""By the first word of a side's name; the others are ours, or their peers."""
OURS = "#5f87af"


def require_matplotlib() -> None:
    """Raises NotSupported (EOPNOTSUPP) when it is not installed."""
    try:
        import matplotlib.figure  # noqa: F401 - whether it is there
    except ImportError as error:
        raise NotSupported(
            "--plot needs matplotlib, which is not installed", hint="pip install 'zramcore[plot]'"
        ) from error


def plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write a picture of the rows that have times, in the format that the name of `path` ends with.

    Raises NotSupported (EOPNOTSUPP) without matplotlib, ZramError when it cannot be written.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    timed = [row for row in rows if row.us_per_page is not None]
    panels = [list(group) for _, group in groupby(timed, key=lambda row: (row.work, row.request))]
    width = max(1, min(COLUMNS, len(panels)))
    height = max(1, -(-len(panels) // width))
    figure = Figure(figsize=(PANEL[0] * width, PANEL[1] * height), layout="constrained")
    axes = figure.subplots(height, width, squeeze=False).flatten().tolist()
    for axis, panel in zip(axes, panels, strict=False):
        several = len({row.threads for row in panel}) > 1
        labels = [f"{row.side}, {row.threads} thr" if several else row.side for row in panel]
        times = [row.us_per_page or 0.0 for row in panel]
        errors = [(row.spread or 0.0) * time for row, time in zip(panel, times, strict=True)]
        colours = [COLOURS.get(row.side.split()[0], OURS) for row in panel]
        axis.barh(range(len(panel)), times, xerr=errors, color=colours)
        axis.set_yticks(range(len(panel)), labels, fontsize=7)
        axis.invert_yaxis()
        request = f", {size(panel[0].request)}" if panel[0].request else ""
        axis.set_title(f"{panel[0].work}{request}", fontsize=9)
        axis.set_xlabel("us/page", fontsize=7)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(title, fontsize=10)
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise ZramError(f"cannot write {path}: {error}", errno=getattr(error, "errno", None)) from error
