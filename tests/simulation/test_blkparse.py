"""blkparse's text: what the real program prints of a trace made here, and what is wrong with a line."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from zramcore.errors import InvalidValue
from zramcore.simulation.reading import read_trace
from zramcore.simulation.trace import FREE, READ, WRITE

needs_blkparse = pytest.mark.skipif(shutil.which("blkparse") is None, reason="needs blkparse (Debian package blktrace)")

# blktrace_api.h: actions, and categories in the high half
QUEUE, ISSUE, COMPLETE = 1, 7, 8
READ_BIT, WRITE_BIT, FLUSH_BIT, SYNC_BIT, QUEUE_BIT, ISSUE_BIT, COMPLETE_BIT, DISCARD_BIT = (
    1 << number for number in (0, 1, 2, 3, 4, 6, 7, 13)
)
_CATEGORY = {QUEUE: QUEUE_BIT, ISSUE: ISSUE_BIT, COMPLETE: COMPLETE_BIT}
ZRAM0 = 252 << 20
Event = tuple[int, int, int, int, int]
"""Nanoseconds, sector, bytes, action, bits of the kind."""

EVENTS: list[Event] = [
    (1_000, 0, 8192, QUEUE, WRITE_BIT | SYNC_BIT),
    (2_000, 0, 8192, ISSUE, WRITE_BIT | SYNC_BIT),
    (5_000_000, 8, 4096, QUEUE, READ_BIT),
    (6_000_000, 8, 4096, COMPLETE, READ_BIT),
    (1_500_000_000, 0, 0, QUEUE, WRITE_BIT | FLUSH_BIT),
    (2_000_000_000, 16, 4096, QUEUE, READ_BIT),
    (61_000_000_000, 0, 16384, QUEUE, DISCARD_BIT),
]


def binary(events: list[Event], device: int = ZRAM0) -> bytes:
    """struct blk_io_trace for each event, as blktrace writes them."""
    found = b""
    for sequence, (time, sector, size, action, bits) in enumerate(events, 1):
        found += struct.pack(
            "=IIQQIIIIIHH", 0x65617407, sequence, time, sector, size,
            action | (bits | _CATEGORY[action]) << 16, 4242, device, 0, 0, 0,
        )  # fmt: skip
    return found


def parsed(folder: Path, events: list[Event], *options: str) -> Path:
    """What blkparse prints of events."""
    (folder / "zram0.blktrace.0").write_bytes(binary(events))
    done = subprocess.run(["blkparse", "-i", "zram0", *options], cwd=folder, check=True, capture_output=True)
    file = folder / "trace.txt"
    file.write_bytes(done.stdout)
    return file


@needs_blkparse
def test_what_blkparse_prints_is_read(tmp_path: Path) -> None:
    file = parsed(tmp_path, EVENTS)
    assert b"Total" in file.read_bytes() or b"CPU0" in file.read_bytes(), "the summary is part of it"
    trace = read_trace(file)
    inside = trace.time >= 0
    assert trace.page[inside].tolist() == [0, 1, 1, 2, 0, 1, 2, 3]
    assert trace.kind[inside].tolist() == [WRITE, WRITE, READ, READ, FREE, FREE, FREE, FREE]
    # blkparse counts from the first event
    assert trace.time[inside].tolist() == [0, 0, 4_999, 1_999_999, *[60_999_999] * 4]
    assert trace.page[~inside].tolist() == [2], "it was read before it was written"


@needs_blkparse
def test_completions_are_read_where_nothing_was_queued(tmp_path: Path) -> None:
    trace = read_trace(parsed(tmp_path, [event for event in EVENTS if event[3] == COMPLETE]))
    assert trace.page[trace.time >= 0].tolist() == [1]


TEXT = """252,0    1        1     0.000000000  4242  Q  WS 2048 + 8 [fio]
252,0    1        2     0.000001500  4242  C  WS 2048 + 8 [0]
252,0    0        3     0.250000000     7  m   N a message of the driver, with words
252,0    0        4     1.000000000     7  Q FWS [jbd2/zram0-8]
252,0    0        5     7.123456789  4242  Q   R 2056 + 16 [fio]
CPU0 (zram0):
 Reads Queued:           1,        8KiB\t Writes Queued:           1,        4KiB
Throughput (R/W): 1KiB/s / 0KiB/s
"""


def test_text_as_manuals_show_it(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text(TEXT)
    trace = read_trace(file)
    inside = trace.time >= 0
    assert trace.page[inside].tolist() == [256, 257, 258]
    assert trace.time[inside].tolist() == [0, 7_123_456, 7_123_456]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("252,0    0        5     7.123456789  4242  Q   R x2056 + 16 [fio]", "not SECONDS.NANOSECONDS"),
        ("252,0    0        5     7.12  4242  Q   R 2056 + 16 [fio]", "not SECONDS.NANOSECONDS"),
        ("252,0    0        5     7.123456789", "not a line of blkparse"),
        ("an accident of the editor", "not a line of blkparse"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "trace.txt"
    lines = TEXT.splitlines()
    file.write_text("\n".join([*lines[:4], line, *lines[4:]]) + "\n")
    with pytest.raises(InvalidValue) as caught:
        read_trace(file)
    assert f"{file}:5: {reason}" in str(caught.value)
    assert "delete the line" in caught.value.hint


def test_two_devices_cannot_be_one(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text(TEXT.replace("252,0    0", "8,16     0"))
    with pytest.raises(InvalidValue, match=r"requests to 252,0 and 8,16.*trace one device"):
        read_trace(file)


def test_text_without_requests(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text("\n".join(TEXT.splitlines()[2:4]) + "\n")
    with pytest.raises(InvalidValue, match="no requests"):
        read_trace(file)


def test_a_large_text_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    line = "252,0    1 {0:8d} {1:5d}.{2:09d}  4242  Q   W {3} + 8 [fio]\n"
    with open(file, "w") as out:
        for number in range(5000):
            out.write(line.format(number, number // 100, number % 100 * 10_000_000, number % 700 * 8))
    trace = read_trace(file)
    assert np.array_equal(trace.page, np.arange(5000) % 700)
    assert np.array_equal(trace.time, np.arange(5000) * 10_000)
