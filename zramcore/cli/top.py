"""`zramcore top`: the devices live, with sparklines of their memory and of what they write back."""

from __future__ import annotations

import collections
import itertools
import json
import shutil
import sys
import time
from collections.abc import Iterable
from typing import Any

import click

from ..daemon.client import Client
from .client import BLOCK, human, table, with_client

BARS = "▁▂▃▄▅▆▇█"
HISTORY = 30
"""Rounds that a sparkline shows."""
COLUMNS = (
    "NAME", "DISKSIZE", "DATA", "MEMORY", "RATIO", "HUGE", "BACKED", "READ/s", "WRITE/s", "WB/s",
    "MEMORY HISTORY".ljust(HISTORY), "WRITEBACK HISTORY".ljust(HISTORY),
)  # fmt: skip
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def sparkline(values: Iterable[float], lowest: float | None = None) -> str:
    """A bar a value, from the lowest (default: of the values) to the highest; all level when they are the same."""
    listed = list(values)
    if not listed:
        return ""
    low = min(listed) if lowest is None else lowest
    span = max(listed) - low
    if span <= 0:
        return BARS[0] * len(listed)
    return "".join(BARS[min(int((value - low) / span * len(BARS)), len(BARS) - 1)] for value in listed)


class History:
    """What earlier rounds saw, by device and its id: rates come from the difference of two."""

    def __init__(self) -> None:
        self._memory: dict[str, collections.deque[float]] = {}
        self._written: dict[str, collections.deque[float]] = {}
        self._last: dict[str, tuple[float, dict[str, Any]]] = {}

    def figures(self, device: dict[str, Any], now: float) -> dict[str, Any]:
        """One device in this round, `now` in seconds, monotonic: sizes in bytes, rates in bytes a second, None where
        there is none to tell. To be asked once a round: the next one's rates count from here."""
        name = device["name"]
        memory, backing, io = device["mm_stat"], device["bd_stat"], device["stat"]
        used, stored = memory["mem_used_total"], memory["orig_data_size"]
        written_back = backing["bd_count"] * BLOCK
        found = {
            "name": name,
            "label": device["label"],
            "disksize": device["disksize"],
            "data": stored,
            "memory": used,
            "ratio": max(stored - written_back, 0) / used if used else None,
            "huge_pages": memory["huge_pages"],
            "backed": written_back,
            "read": self._rate(device, now, "stat", "read_sectors", 512),
            "written": self._rate(device, now, "stat", "written_sectors", 512),
            "written_back": self._rate(device, now, "bd_stat", "bd_writes", BLOCK),
        }
        self._last[name] = (now, {"stat": io, "bd_stat": backing})
        for kept, value in ((self._memory, used), (self._written, found["written_back"] or 0.0)):
            kept.setdefault(name, collections.deque(maxlen=HISTORY)).append(value)
        return found

    def row(self, device: dict[str, Any], now: float) -> list[str]:
        """`figures` as a row of COLUMNS."""
        found = self.figures(device, now)
        name, ratio = found["name"], found["ratio"]
        rates = ["-" if found[key] is None else human(round(found[key])) for key in ("read", "written", "written_back")]
        return [
            found["label"],
            human(found["disksize"]),
            human(found["data"]),
            human(found["memory"]),
            "-" if ratio is None else f"{ratio:.2f}",
            str(found["huge_pages"]),
            human(found["backed"]),
            *rates,
            sparkline(self._memory[name], 0).ljust(HISTORY),
            sparkline(self._written[name], 0).ljust(HISTORY),
        ]

    def _rate(self, device: dict[str, Any], now: float, file: str, column: str, scale: int) -> float | None:
        """Bytes a second since the last round; None in the first, and after a reset."""
        then, before = self._last.get(device["name"], (now, None))
        if before is None or now <= then or device[file][column] < before[file][column]:
            return None
        return float((device[file][column] - before[file][column]) * scale / (now - then))


def picture(devices: list[dict[str, Any]], history: History, now: float) -> list[str]:
    """The lines of one round: a total, and the table."""
    rows = [history.row(device, now) for device in devices]
    stored = sum(device["mm_stat"]["orig_data_size"] for device in devices)
    used = sum(device["mm_stat"]["mem_used_total"] for device in devices)
    backed = sum(device["bd_stat"]["bd_count"] * BLOCK for device in devices)
    number = f"{len(devices)} device{'s' if len(devices) != 1 else ''}"
    total = f"{number}: {human(stored)} of data, {human(used)} of memory, {human(backed)} written back"
    return [total, "", *table(COLUMNS, rows)]


@click.command("top")
@with_client
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, metavar="SECONDS", help="Between two rounds.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N rounds.")
@click.option("--once", is_flag=True, help="One round, as --count 1.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON a round: bytes, and bytes a second.")
def command(client: Client, interval: float, count: int | None, once: bool, as_json: bool) -> None:
    """Watch the devices: data, memory, rates, and sparklines of memory and writeback. Ctrl-C ends it.

    Where the output is no terminal the rounds follow each other, with a blank line between.
    """
    last = 1 if once else count
    rounds = itertools.count() if last is None else range(last)
    history = History()
    live = sys.stdout.isatty() and not once and not as_json
    if live:
        click.echo(_ENTER, nl=False)
    try:
        for number in rounds:
            if number:
                time.sleep(interval)
            if as_json:
                now = time.monotonic()
                click.echo(json.dumps([history.figures(device, now) for device in client.devices()]))
                sys.stdout.flush()
                continue
            lines = picture(client.devices(), history, time.monotonic())
            if live:
                width, height = shutil.get_terminal_size()
                shown = [line[:width] + _CLEAR_LINE for line in lines[: height - 1]]
                click.echo(_HOME + "\n".join(shown) + _CLEAR_BELOW, nl=False)
            else:
                click.echo("\n".join([*([""] if number else []), *lines]))
    except KeyboardInterrupt:
        pass  # the way to end it: not an interrupted command
    finally:
        if live:
            click.echo(_LEAVE, nl=False)
