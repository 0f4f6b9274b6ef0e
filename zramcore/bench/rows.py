"""Rows: what the sides took, as medians with their spread, and as ratios.

A ratio compares rounds with each other, in which both sides met the same noise, and is the median of those: it moves
far less from run to run than the microseconds do.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .rounds import Contender


@dataclass
class Row:
    """One side at one work. Ratios of times are speeds (2: twice as fast), with the reference's 1; None: no reference.

    `request` is in bytes; `spread` half the distance of the quartiles, as a share of the median; `figures` what else
    there is to say of it, by name.
    """

    work: str
    request: int
    threads: int
    side: str
    us_per_page: float | None = None
    spread: float | None = None
    ratio_to_kernel: float | None = None
    ratio_to_limit: float | None = None
    figures: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Its fields, and the figures as fields of their own."""
        fields = {key: value for key, value in vars(self).items() if key != "figures"} | self.figures
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in fields.items()}


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, as a share of the median; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / middle if middle else 0.0


def ratio(reference: Sequence[float], values: Sequence[float]) -> float:
    """How much faster than the reference, round by round: the median."""
    return statistics.median(theirs / ours for theirs, ours in zip(reference, values, strict=True))


def compare(work: str, request: int, contenders: Sequence[Contender], pages: int) -> list[Row]:
    """The rows of a work, of whose pages each contender did `pages` in a round."""
    rows = []
    for contender in contenders:
        references = {
            other.role: other.seconds
            for other in contenders
            if other.role in ("kernel", "limit") and other.threads == contender.threads
        }
        median = statistics.median(contender.seconds) * 1e6 / pages
        kernel, limit = (
            ratio(references[role], contender.seconds) if role in references else None for role in ("kernel", "limit")
        )
        spent = spread(contender.seconds)
        rows.append(Row(work, request, contender.threads, contender.side, median, spent, kernel, limit))
    return rows


def gains(work: str, request: int, contenders: Sequence[Contender]) -> list[Row]:
    """How much faster each side is with its most threads than with one, and that gain against the references' own."""
    measured: dict[tuple[str, str], list[float]] = {}
    threads = max(contender.threads for contender in contenders)
    for several in contenders:
        single = next((c for c in contenders if (c.role, c.base, c.threads) == (several.role, several.base, 1)), None)
        if several.threads == threads > 1 and single is not None:
            measured[several.role, several.side] = [
                one / many for one, many in zip(single.seconds, several.seconds, strict=True)
            ]
    references = {role: values for (role, _), values in measured.items()}
    rows = []
    for (_, side), values in measured.items():
        kernel, limit = (
            statistics.median(ours / theirs for ours, theirs in zip(values, references[role], strict=True))
            if role in references
            else None
            for role in ("kernel", "limit")
        )
        gain = {"gain": statistics.median(values)}
        rows.append(Row(f"{work}: gain", request, threads, side, None, spread(values), kernel, limit, gain))
    return rows
