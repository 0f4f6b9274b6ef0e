"""Reading a trace of whatever kind: what a file is, its first bytes tell."""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidValue
from .blkparse import looks_like_blkparse, read_blkparse
from .iolog import iolog_version, read_iolog
from .trace import Trace, is_trace, load_trace

_HEAD = 1 << 16


def read_trace(path: Path) -> Trace:
    """A recording, an iolog of fio (2 or 3) or the text of blkparse.

    Raises InvalidValue (EINVAL) for another file or a bad line, naming file and line, and OSError.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if is_trace(head):
        trace = load_trace(path)
    elif (version := iolog_version(head)) is not None:
        trace = read_iolog(path, version)
    elif looks_like_blkparse(head):
        trace = read_blkparse(path)
    else:
        raise InvalidValue(
            f"{path} is no trace that can be read: its first line is neither a recording's, an iolog's nor blkparse's",
            hint="make one: zramcore record, fio --write_iolog=FILE, or blktrace -d DEVICE -o - | blkparse -i -",
        )
    if not len(trace.time):
        raise InvalidValue(f"{path} has no accesses", hint="record for longer, or while the device is used")
    return trace
