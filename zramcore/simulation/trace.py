"""Trace: who touched which page when, as arrays; and its file.

A file is a header of HEADER_SIZE bytes, then records of RECORD, one after the other, as numpy maps them::

    np.memmap(path, RECORD, "r", offset=HEADER_SIZE)

The header is the line MAGIC, a line of JSON, and blanks; see `write_header` for its keys. A file can be appended to,
and one that was cut off is good up to its last whole record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidValue

MAGIC = b"zramcore trace 1\n"
HEADER_SIZE = 512

READ, WRITE, FREE, TOUCH, MARK = range(5)
"""Kinds of record. TOUCH: read or written, nobody knows; MARK: no access, the recorder looked at the device."""
SAME, HUGE, KNOWN = 1, 2, 4
"""Flags of a record: the page was same-filled, or did not compress, when the recorder saw it; KNOWN: it did look."""

RECORD = np.dtype([("time", "<i8"), ("page", "<u4"), ("count", "<u2"), ("kind", "u1"), ("flags", "u1")])
"""16 bytes: microseconds since the start (negative: before it, what was stored then); first page; number of pages;
kind; flags. A MARK has the mean size of the objects that are neither same-filled nor huge, in bytes, as its page."""

SECOND = 1_000_000

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Trace:
    """Accesses of single pages in order of time, the arrays of one length: `time` in microseconds (int64), `page`
    (int64), `kind` (uint8). `end`: how long it lasts, in microseconds.

    `classes`: for each page below `nr_pages` its last known flags (SAME, HUGE, KNOWN), None when nobody looked.
    `mean_size`: bytes of an object that is neither same-filled nor huge, None when nobody says.
    """

    time: Array
    page: Array
    kind: Array
    end: int
    nr_pages: int
    page_size: int = 4096
    source: str = ""
    classes: Array | None = None
    mean_size: float | None = None

    @property
    def accesses(self) -> int:
        """Accesses from the start on, of one page each."""
        return int(len(self.time) - np.searchsorted(self.time, 0, side="left"))

    def stretched(self, seconds: float) -> Trace:
        """The same accesses over another time; those of a trace without times are spread evenly."""
        end = round(seconds * SECOND)
        if self.end:
            late = self.time > 0
            time = np.where(late, self.time * (end / self.end), self.time).astype(np.int64)
        else:
            early = int(np.searchsorted(self.time, 0, side="left"))
            spread = np.linspace(0, end, len(self.time) - early, endpoint=False).astype(np.int64)
            time = np.concatenate([self.time[:early], spread])
        return Trace(
            time, self.page, self.kind, end, self.nr_pages, self.page_size, self.source, self.classes, self.mean_size
        )

    def of_pages(self, page_size: int) -> Trace:
        """The same accesses in larger pages. Raises InvalidValue (EINVAL) where they would be smaller."""
        if page_size < self.page_size:
            raise InvalidValue(
                f"the trace has pages of {self.page_size} bytes, the device of {page_size}",
                hint=f"set page_size = {self.page_size}",
            )
        if page_size == self.page_size:
            return self
        ratio = page_size // self.page_size
        return Trace(
            self.time, self.page // ratio, self.kind, self.end, -(-self.nr_pages // ratio), page_size, self.source
        )


def from_requests(
    time: Array, offset: Array, length: Array, kind: Array, *, source: str, page_size: int = 4096
) -> Trace:
    """A trace of requests: microseconds, bytes, bytes, kind. A page that is read first was there at the start; so was
    one that is written in part first. A FREE counts where it covers a page whole."""
    first = np.where(kind == FREE, -(-offset // page_size), offset // page_size)
    last = np.where(kind == FREE, (offset + length) // page_size, -(-(offset + length) // page_size))
    count = np.maximum(last - first, 0)
    keep = (count > 0) & (kind != MARK)
    time, first, count, kind = time[keep], first[keep], count[keep], kind[keep]
    order = np.argsort(time, kind="stable") if np.any(time[1:] < time[:-1]) else slice(None)
    return expanded(time[order], first[order], count[order], kind[order], source=source, page_size=page_size)


def expanded(
    time: Array, first: Array, count: Array, kind: Array, *, source: str, page_size: int, end: int = 0, **more: Any
) -> Trace:
    """Single pages from runs of pages, in order of time already."""
    if count.size and int(count.max()) == 1 and int(count.min()) == 1:
        page = first.astype(np.int64)
    else:
        starts = np.cumsum(count) - count
        page = np.repeat(first.astype(np.int64) - starts, count) + np.arange(int(count.sum()))
        time, kind = np.repeat(time, count), np.repeat(kind, count)
    nr_pages = int(page.max()) + 1 if page.size else 0
    kind = _decided(page, kind.astype(np.uint8))
    time, page, kind = _with_pages_there_before(time.astype(np.int64), page, kind, nr_pages)
    return Trace(
        time, page, kind, max(end, int(time[-1]) if time.size else 0), max(nr_pages, more.pop("nr_pages", 0)),
        page_size, source, **more,
    )  # fmt: skip


def _decided(page: Array, kind: Array) -> Array:
    """Every TOUCH as a READ, but as a WRITE where the page was not there."""
    if not np.any(kind == TOUCH):
        return kind
    sort = np.argsort(page, kind="stable")
    ordered = kind[sort]
    before = np.concatenate([[FREE], ordered[:-1]])
    before[np.concatenate([[True], page[sort][1:] != page[sort][:-1]])] = FREE
    touched = ordered == TOUCH
    decided = kind.copy()
    decided[sort[touched]] = np.where(before[touched] == FREE, WRITE, READ)
    return decided


def _with_pages_there_before(time: Array, page: Array, kind: Array, nr_pages: int) -> tuple[Array, Array, Array]:
    """Put a WRITE just before the start for each page that is read before it is written."""
    first_seen = np.full(nr_pages, -1, np.int64)
    first_seen[page[::-1]] = np.arange(len(page))[::-1]
    seen = np.flatnonzero(first_seen >= 0)
    read_first = seen[kind[first_seen[seen]] == READ]
    if not len(read_first):
        return time, page, kind
    at = int(np.searchsorted(time, 0, side="left"))
    added = len(read_first)
    return (
        np.insert(time, at, np.full(added, -1, np.int64)),
        np.insert(page, at, read_first),
        np.insert(kind, at, np.full(added, WRITE, np.uint8)),
    )


# The file -------------------------------------------------------------------------------------------------------------


def write_header(file: IO[bytes], **keys: Any) -> None:
    """Begin a file. Keys: ``page_size``, ``nr_pages`` (of the device), ``source`` (text), ``started`` (Unix time),
    ``period`` (seconds between two looks of the recorder; 0: every access is there), ``end`` (microseconds; 0: that
    of the last record)."""
    text = json.dumps(keys, separators=(",", ":")).encode() + b"\n"
    header = MAGIC + text
    if len(header) > HEADER_SIZE:
        raise ValueError(f"the header of a trace has {HEADER_SIZE} bytes, not {len(header)}")
    file.write(header.ljust(HEADER_SIZE, b" "))


def save_trace(trace: Trace, path: Path) -> None:
    """Write a trace to a file; its classes and mean size, which only a recording has, are left out."""
    records = np.zeros(len(trace.time), RECORD)
    records["time"], records["page"], records["kind"], records["count"] = trace.time, trace.page, trace.kind, 1
    with open(path, "wb") as file:
        write_header(
            file, page_size=trace.page_size, nr_pages=trace.nr_pages, source=trace.source, period=0, end=trace.end
        )
        records.tofile(file)


def is_trace(head: bytes) -> bool:
    """Whether a file that begins with `head` is one of ours, of whatever version."""
    return head.startswith(MAGIC.rpartition(b" ")[0])


def load_trace(path: Path) -> Trace:
    """Read a file. Raises InvalidValue (EINVAL) saying what is wrong with it, and OSError."""
    with open(path, "rb") as file:
        keys = _header(file.read(HEADER_SIZE), path)
        data = np.frombuffer(file.read(), np.uint8)
    records: Array = data[: len(data) // RECORD.itemsize * RECORD.itemsize].view(RECORD)
    _check_records(records, path)
    marks = records[records["kind"] == MARK]
    end = max([int(keys.get("end", 0)), *marks["time"][-1:].tolist()])
    accesses = records[records["kind"] != MARK]
    if np.any(accesses["time"][1:] < accesses["time"][:-1]):
        accesses = accesses[np.argsort(accesses["time"], kind="stable")]
    pages = int(keys["nr_pages"])
    sizes = marks["page"][marks["page"] > 0]
    return expanded(
        accesses["time"], accesses["page"], accesses["count"].astype(np.int64), accesses["kind"],
        source=str(keys.get("source", "")), page_size=int(keys["page_size"]), end=end, nr_pages=pages,
        classes=_classes(accesses, pages), mean_size=float(sizes.mean()) if len(sizes) else None,
    )  # fmt: skip


def _header(head: bytes, path: Path) -> Mapping[str, Any]:
    if not is_trace(head):
        raise InvalidValue(f"{path} is not a trace of zramcore")
    if not head.startswith(MAGIC):
        version = head.partition(b"\n")[0].decode("ascii", "replace")
        raise InvalidValue(f"{path}: this is a {version!r}", hint=f"this zramcore reads {MAGIC.decode().strip()!r}")
    try:
        keys: Mapping[str, Any] = json.loads(head[len(MAGIC) :])
        if int(keys["page_size"]) not in (4096, 16384, 65536) or not 0 <= int(keys["nr_pages"]) < 1 << 32:
            raise ValueError("page_size or nr_pages is out of range")
        int(keys.get("end", 0))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidValue(f"{path}: its header cannot be read: {error}", hint="record it again") from error
    return keys


def _check_records(records: Array, path: Path) -> None:
    last = records["page"].astype(np.int64) + records["count"]
    bad = np.flatnonzero((records["kind"] > MARK) | ((records["kind"] != MARK) & (last > 1 << 32)))
    if len(bad):
        at = HEADER_SIZE + int(bad[0]) * RECORD.itemsize
        raise InvalidValue(
            f"{path}: record {int(bad[0])} at byte {at} is damaged", hint=f"cut the file there: truncate -s {at}"
        )


def _classes(accesses: Array, nr_pages: int) -> Array | None:
    known = accesses[(accesses["flags"] & KNOWN) != 0]
    if not len(known):
        return None
    classes = np.zeros(nr_pages, np.uint8)
    ones = known[(known["count"] == 1) & (known["page"] < nr_pages)]
    classes[ones["page"]] = ones["flags"]  # in order of time: the last one stays
    return classes


@dataclass
class Batch:
    """Records on their way to a file."""

    parts: list[Array] = field(default_factory=list)

    def add(self, time: Array | int, page: Array | int, kind: Array | int, flags: Array | int = 0) -> None:
        """Records of one page each (a MARK: `page` is its mean size)."""
        records = np.zeros(np.broadcast(time, page, kind, flags).size, RECORD)
        records["time"], records["page"], records["kind"], records["flags"], records["count"] = (
            time, page, kind, flags, 1,
        )  # fmt: skip
        self.parts.append(records)

    def write(self, file: IO[bytes]) -> int:
        """Append them, in order of time; how many there were."""
        if not self.parts:
            return 0
        records = np.concatenate(self.parts)
        file.write(records[np.argsort(records["time"], kind="stable")].tobytes())
        self.parts.clear()
        return len(records)
