"""Times of options, as people write and read them: 100us, 10ms, 30s, 5m, 3h, 7d, 1w."""

from __future__ import annotations

import re

import click

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "": 1.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)(us|ms|[smhdw]?)", re.ASCII)
_LONGEST = 10 * 365 * 86400.0


def read_time(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Seconds, more than 0 and less than ten years. For an option's callback."""
    if text is None:
        return None
    match = _TIME.fullmatch(text.strip().lower())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST:
        raise click.BadParameter(f"{text!r} is not a time: write a number with us, ms, s, m, h, d or w behind it")
    return seconds


def duration(seconds: float) -> str:
    """A time as people read it: ``7 days``, ``21.3 h``, ``40 min``, ``12 s``."""
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.3g} days"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds / 60:.3g} min" if seconds >= 120 else f"{seconds:.3g} s"
