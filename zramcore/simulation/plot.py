"""Plots of outcomes, with matplotlib, which the extra `plot` installs. Nothing else of zramcore imports this."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..errors import InvalidValue
from .replay import TOGETHER, Outcome
from .trace import SECOND, Trace

COLOURS = ("#7f7f7f", "#1b6ca8", "#d1495b", "#2e933c", "#edae49", "#7d4f9e", "#8c564b", "#17becf")
"""The first is that of doing nothing; they differ in lightness too."""
STYLES = ("-", "-.", ":")
_UNITS = (
    (2 * 86400.0, 86400.0, "days"),
    (2 * 3600.0, 3600.0, "hours"),
    (120.0, 60.0, "minutes"),
    (0.0, 1.0, "seconds"),
)
_MIB = 1 << 20


def plot_outcomes(outcomes: Sequence[Outcome], trace: Trace, path: Path) -> None:
    """Draw memory, blocks written and pages re-read over time, a line for each outcome, into a file.

    Raises InvalidValue (EINVAL) for a kind of file that matplotlib does not know, and OSError.
    """
    figure = Figure(figsize=(9, 8.4), layout="constrained")
    known = FigureCanvasAgg(figure).get_supported_filetypes()
    if path.suffix.lower().lstrip(".") not in known:
        raise InvalidValue(
            f"{path} is not a kind of picture that can be drawn", hint=f"one of: .{', .'.join(sorted(known))}"
        )
    memory, written, rereads = figure.subplots(3, 1, sharex=True, height_ratios=(5, 3, 3))
    scale, unit = next((scale, unit) for least, scale, unit in _UNITS if trace.end / SECOND >= least)
    for number, outcome in enumerate(outcomes):
        look = _look(number, outcome.label)
        seconds, used, _, blocks, again = outcome.series.T
        time = seconds / scale
        memory.plot(time, used / _MIB, label=outcome.label, **look)
        if number:  # nothing is never written or read back without a policy
            written.plot(time, blocks * outcome.page_size / _MIB, **look)
            rereads.plot(time, again, **look)
    memory.set_title(f"{trace.source}: {trace.accesses:,} accesses to {trace.nr_pages:,} pages", fontsize=11)
    memory.set_ylabel("memory, MiB")
    written.set_ylabel("written so far, MiB")
    rereads.set_ylabel("re-reads so far")
    rereads.set_xlabel(unit)
    for axes in (memory, written, rereads):
        axes.grid(True, color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    figure.legend(loc="outside lower center", ncols=min(5, len(outcomes)), frameon=False)
    smaller: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if path.suffix.lower() == ".png" else {}
    figure.savefig(path, dpi=80, **smaller)


def _look(number: int, label: str) -> dict[str, Any]:
    """How a line is drawn. That of all policies is dashed: it may lie on one of them."""
    if label == TOGETHER:
        return {"color": "#111111", "linestyle": (0, (4, 3)), "linewidth": 1.4, "zorder": 5}
    colour = COLOURS[number % len(COLOURS)]
    return {"color": colour, "linestyle": STYLES[number // len(COLOURS) % len(STYLES)], "linewidth": 1.6}
