"""The text of blkparse, in its default format, as a trace.

    252,0    1        1     0.000000000  4242  Q  WS 2048 + 8 [fio]

Requests are those that were queued (Q); where there are none, those that were issued (D), else completed (C). R is a
read, W a write, D or Z (write zeroes) frees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InvalidValue
from .tokens import Lines, Names, read_lines
from .trace import FREE, READ, WRITE, Array, Trace, from_requests

SECTOR = 512
ACTIONS = (b"Q", b"D", b"C")
HINT = "the default format of blkparse is read: blktrace -d /dev/zram0 -o - | blkparse -i - > FILE; or delete the line"


@dataclass
class _Requests:
    """Columns of the requests of one action, chunk by chunk."""

    time: list[Array] = field(default_factory=list)
    offset: list[Array] = field(default_factory=list)
    length: list[Array] = field(default_factory=list)
    kind: list[Array] = field(default_factory=list)


def looks_like_blkparse(head: bytes) -> bool:
    """Whether a file that begins with `head` may be blkparse's output."""
    for line in head.splitlines():
        words = line.split()
        if words and words[0] != b"Input":
            return len(words) >= 7 and words[0].replace(b",", b"", 1).isdigit() and b"," in words[0]
    return False


def read_blkparse(path: Path) -> Trace:
    """Read blkparse's output. Raises InvalidValue (EINVAL) with the file's name and the line's number."""
    requests = {action: _Requests() for action in ACTIONS}
    devices = Names()
    for lines in read_lines(path):
        if _take(lines, requests, devices):
            break
    chosen = next((each for action in ACTIONS if (each := requests[action]).time), None)
    if chosen is None:
        raise InvalidValue(f"{path} has no requests that were queued, issued or completed", hint=HINT)
    if len(devices.names) > 1:
        names = " and ".join(sorted(name.decode("ascii", "replace") for name in devices.names))
        raise InvalidValue(
            f"{path} has requests to {names}", hint="trace one device: blktrace -d /dev/zram0, blkparse -i zram0"
        )
    time = np.concatenate(chosen.time)
    return from_requests(
        (time - int(time.min())) // 1000, np.concatenate(chosen.offset), np.concatenate(chosen.length),
        np.concatenate(chosen.kind), source=path.name,
    )  # fmt: skip


def _take(lines: Lines, requests: dict[bytes, _Requests], devices: Names) -> bool:
    """Add the requests of some lines; whether blkparse's summary begins in them."""
    filled = np.flatnonzero(lines.words > 0)
    head = lines.start[lines.first[filled]]
    # the summary: "CPU0 (zram0):" for each processor, or "Total (zram0):" right away
    summary = np.flatnonzero((lines.data[head] == ord("C")) | (lines.data[head] == ord("T")))
    end = int(filled[summary[0]]) if len(summary) else len(lines.words)
    filled = filled[filled < end]
    filled = filled[~lines.equal(lines.first[filled], b"Input")]  # "Input file zram0.blktrace.0 added"
    first = lines.first[filled]
    _, not_device = lines.numbers(first, ignore=b",")
    bad = not_device | (lines.words[filled] < 7)
    if np.any(bad):
        raise lines.wrong(int(filled[np.flatnonzero(bad)[0]]), "not a line of blkparse", HINT)
    for action in ACTIONS:
        at = np.flatnonzero(lines.equal(first + 5, action) & (lines.words[filled] >= 10))
        at = at[lines.equal(first[at] + 8, b"+")]  # a flush has no sectors
        _add(lines, filled[at], first[at], requests[action], devices)
    return end < len(lines.words)


def _add(lines: Lines, line: Array, first: Array, requests: _Requests, devices: Names) -> None:
    if not len(first):
        return
    time, bad_time = lines.numbers(first + 3, ignore=b".")
    dot = lines.data[np.maximum(lines.end[first + 3] - 10, 0)]
    sector, bad_sector = lines.numbers(first + 7)
    count, bad_count = lines.numbers(first + 9)
    bad = bad_time | (dot != ord(".")) | bad_sector | bad_count
    if np.any(bad):
        raise lines.wrong(int(line[np.flatnonzero(bad)[0]]), "not SECONDS.NANOSECONDS, or not SECTOR + COUNT", HINT)
    kind = np.full(len(first), -1)
    kind[lines.contains(first + 6, b"R")] = READ
    kind[lines.contains(first + 6, b"W")] = WRITE
    kind[lines.contains(first + 6, b"D") | lines.contains(first + 6, b"Z")] = FREE
    keep = kind >= 0
    if not np.any(keep):
        return
    devices.numbers(lines, first[keep])
    requests.time.append(time[keep])
    requests.offset.append(sector[keep] * SECTOR)
    requests.length.append(count[keep] * SECTOR)
    requests.kind.append(kind[keep])
