"""fio's iolog, versions 2 and 3 (``fio --write_iolog``), as a trace.

Version 3 has a line for each request: microseconds (so fio 3.33 writes them), file, action, offset, length in bytes.
Version 2 has no times, but ``wait`` lines of microseconds. Files are put one after the other, as one device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InvalidValue
from .tokens import Lines, Names, read_lines
from .trace import FREE, MARK, READ, WRITE, Array, Trace, from_requests

HEADERS = {b"fio version 2 iolog": 2, b"fio version 3 iolog": 3}
_KINDS = {b"read": READ, b"write": WRITE, b"trim": FREE, b"sync": MARK, b"datasync": MARK, b"wait": MARK}
_FILE_ACTIONS = (b"add", b"open", b"close")
_ALIGNMENT = 1 << 20


def iolog_version(head: bytes) -> int | None:
    """The version of an iolog that begins with `head`; None when it is none."""
    return HEADERS.get(head.partition(b"\n")[0].rstrip())


@dataclass
class _Requests:
    """Columns of the requests, chunk by chunk."""

    time: list[Array] = field(default_factory=list)
    file: list[Array] = field(default_factory=list)
    offset: list[Array] = field(default_factory=list)
    length: list[Array] = field(default_factory=list)
    kind: list[Array] = field(default_factory=list)


def read_iolog(path: Path, version: int) -> Trace:
    """Read an iolog. Raises InvalidValue (EINVAL) with the file's name and the line's number."""
    requests, files, clock = _Requests(), Names(), 0
    for lines in read_lines(path, skip=1):
        clock = _take(lines, version, requests, files, clock)
    if not any(len(part) for part in requests.time):
        raise InvalidValue(f"{path} has no requests", hint="record it with fio --write_iolog=FILE")
    file, offset, length = (np.concatenate(part) for part in (requests.file, requests.offset, requests.length))
    sizes = np.zeros(len(files.names), np.int64)
    np.maximum.at(sizes, file, offset + length)
    sizes = -(-sizes // _ALIGNMENT) * _ALIGNMENT
    bases = np.cumsum(sizes) - sizes
    time = np.concatenate(requests.time)
    return from_requests(
        time - int(time.min()), offset + bases[file], length, np.concatenate(requests.kind), source=path.name
    )


def _take(lines: Lines, version: int, requests: _Requests, files: Names, clock: int) -> int:
    """Add the requests of some lines; the time after them, of version 2."""
    lead = version - 2  # version 3 has the time in front
    full = lines.words == 4 + lead
    short = (lines.words == 2 + lead) | (lines.words == 0)
    form = "TIME FILE ACTION OFFSET LENGTH" if version == 3 else "FILE ACTION OFFSET LENGTH"
    other = np.flatnonzero(~full & ~short)
    if len(other):
        hint = f"a line of version {version} is {form}; names with blanks cannot be read; or delete the line"
        raise lines.wrong(int(other[0]), "not a line of an iolog", hint)
    _check_file_actions(lines, np.flatnonzero(lines.words == 2 + lead), lead)
    at = np.flatnonzero(full)
    first = lines.first[at]
    kind = np.full(len(at), -1, np.int64)
    waits = lines.equal(first + lead + 1, b"wait")
    for word, number in _KINDS.items():
        kind[lines.equal(first + lead + 1, word)] = number
    columns = [lines.numbers(first + lead + 2), lines.numbers(first + lead + 3)]
    if version == 3:
        columns.append(lines.numbers(first))
    bad = (kind < 0) | np.any([wrong for _, wrong in columns], axis=0)
    if np.any(bad):
        hint = f"known actions: {', '.join(word.decode() for word in _KINDS)}; times and sizes are whole numbers"
        raise lines.wrong(int(at[np.flatnonzero(bad)[0]]), f"not {form}", hint)
    if version == 3:
        time = columns[2][0]
    else:
        time = clock + np.cumsum(np.where(waits, columns[0][0], 0))
        clock = int(time[-1]) if len(time) else clock
    requests.time.append(time)
    requests.file.append(files.numbers(lines, first + lead))
    requests.offset.append(np.where(waits, 0, columns[0][0]))
    requests.length.append(np.where(kind == MARK, 0, columns[1][0]))
    requests.kind.append(kind)
    return clock


def _check_file_actions(lines: Lines, at: Array, lead: int) -> None:
    action = lines.first[at] + lead + 1
    known = np.any([lines.equal(action, word) for word in _FILE_ACTIONS], axis=0)
    if not np.all(known):
        hint = f"known without an offset: {', '.join(word.decode() for word in _FILE_ACTIONS)}; or delete the line"
        raise lines.wrong(int(at[np.flatnonzero(~known)[0]]), "an action that fio does not have", hint)
