"""Traces: what requests become, the file and what is wrong with one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from zramcore.errors import InvalidValue
from zramcore.simulation.example import example
from zramcore.simulation.reading import read_trace
from zramcore.simulation.trace import (
    FREE,
    HEADER_SIZE,
    HUGE,
    KNOWN,
    MAGIC,
    MARK,
    READ,
    RECORD,
    SAME,
    SECOND,
    TOUCH,
    WRITE,
    Batch,
    Trace,
    from_requests,
    load_trace,
    save_trace,
    write_header,
)  # fmt: skip


def written(path: Path, batch: Batch, **keys: object) -> Path:
    """A file with these records."""
    with open(path, "wb") as file:
        write_header(file, **{"page_size": 4096, "nr_pages": 10, "source": "a test", **keys})
        batch.write(file)
    return path


def test_a_saved_trace_comes_back(tmp_path: Path) -> None:
    trace = example(7, 256, 0.25, 2000)
    save_trace(trace, tmp_path / "t")
    again = read_trace(tmp_path / "t")
    for name in ("time", "page", "kind"):
        assert np.array_equal(getattr(again, name), getattr(trace, name)), name
    assert (again.end, again.nr_pages, again.source) == (trace.end, 256, "example, seed 7")


def test_the_file_is_what_its_description_says(tmp_path: Path) -> None:
    """The header's lines, and records as numpy maps them, at the offsets that the docs give."""
    save_trace(example(1, 64, 0.125, 500), tmp_path / "t")
    data = (tmp_path / "t").read_bytes()
    assert data.startswith(b"zramcore trace 1\n")
    assert json.loads(data[len(MAGIC) : HEADER_SIZE])["nr_pages"] == 64
    records = np.memmap(tmp_path / "t", RECORD, "r", offset=HEADER_SIZE)
    assert RECORD.itemsize == 16
    assert len(data) == HEADER_SIZE + 16 * len(records)
    assert np.array_equal(records["page"], load_trace(tmp_path / "t").page)


def test_a_file_that_was_cut_off_is_good_up_to_there(tmp_path: Path) -> None:
    save_trace(example(1, 64, 0.125, 500), tmp_path / "t")
    whole = load_trace(tmp_path / "t")
    data = (tmp_path / "t").read_bytes()
    (tmp_path / "cut").write_bytes(data[: HEADER_SIZE + 16 * 40 + 7])
    assert np.array_equal(load_trace(tmp_path / "cut").page, whole.page[:40])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"zramcore trace 2\n{}\n", "this is a 'zramcore trace 2'"),
        (MAGIC + b"{not json", "its header cannot be read"),
        (MAGIC + b'{"page_size":4096}\n', "its header cannot be read"),
        (MAGIC + b'{"page_size":1000,"nr_pages":1}\n', "out of range"),
        (b"nothing of the kind\n", "no trace that can be read"),
        (b"", "no trace that can be read"),
    ],
)
def test_a_file_that_is_none_says_why(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(InvalidValue, match=reason):
        read_trace(tmp_path / "t")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    batch = Batch()
    batch.add(np.arange(5), np.arange(5), WRITE)
    path = written(tmp_path / "t", batch)
    data = bytearray(path.read_bytes())
    data[HEADER_SIZE + 3 * 16 + 14] = 99  # the kind of record 3
    path.write_bytes(data)
    with pytest.raises(
        InvalidValue, match=rf"record 3 at byte {HEADER_SIZE + 48} is damaged.*truncate -s {HEADER_SIZE + 48}"
    ):
        load_trace(path)


def test_touches_are_writes_of_pages_that_were_not_there_and_reads_of_others(tmp_path: Path) -> None:
    batch = Batch()
    batch.add(
        np.array([1, 2, 3, 4, 5, 6]), np.array([0, 0, 1, 1, 1, 2]), np.array([TOUCH, TOUCH, WRITE, FREE, TOUCH, READ])
    )
    trace = load_trace(written(tmp_path / "t", batch))
    inside = trace.time >= 0
    assert trace.kind[inside].tolist() == [WRITE, READ, WRITE, FREE, WRITE, READ]
    assert trace.page[~inside].tolist() == [2]


def test_a_recording_has_classes_and_a_mean_size(tmp_path: Path) -> None:
    batch = Batch()
    batch.add(np.array([-5, 1, 2]), np.array([0, 1, 0]), WRITE, np.array([KNOWN | SAME, KNOWN | HUGE, KNOWN]))
    batch.add(3, 1500, MARK)
    batch.add(9_000_000, 1300, MARK)
    trace = load_trace(written(tmp_path / "t", batch))
    assert trace.classes is not None
    assert trace.classes.tolist() == [KNOWN, KNOWN | HUGE, *[0] * 8]
    assert trace.mean_size == 1400
    assert trace.end == 9 * SECOND, "the last look, whether or not there was an access"
    assert trace.accesses == 2


def test_records_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    batch, other = Batch(), Batch()
    batch.add(np.array([5, 9]), np.array([0, 1]), WRITE)
    other.add(np.array([7]), np.array([2]), WRITE)
    path = written(tmp_path / "t", batch)
    with open(path, "ab") as file:
        other.write(file)
    assert load_trace(path).page.tolist() == [0, 2, 1]


def requests(*rows: tuple[int, int, int, int]) -> Trace:
    """A trace of requests: time, offset, length, kind."""
    return from_requests(*np.array(rows, np.int64).T, source="a test")


def test_requests_become_pages() -> None:
    trace = requests((0, 0, 12288, WRITE), (3, 4000, 200, WRITE), (5, 100, 12000, FREE), (7, 0, 0, READ))
    assert list(zip(trace.page.tolist(), trace.kind.tolist(), strict=True)) == [
        (0, WRITE), (1, WRITE), (2, WRITE), (0, WRITE), (1, WRITE), (1, FREE),
    ]  # fmt: skip


def test_larger_pages_hold_what_lies_in_them() -> None:
    trace = requests((0, 0, 4096, WRITE), (1, 5 * 4096, 4096, WRITE)).of_pages(16384)
    assert (trace.page.tolist(), trace.nr_pages, trace.page_size) == ([0, 1], 2, 16384)
    with pytest.raises(InvalidValue, match="set page_size = 16384"):
        trace.of_pages(4096)


def test_the_example_is_the_same_for_a_seed_and_has_its_phases() -> None:
    one, other = example(3, 1024, 1.0, 20_000), example(3, 1024, 1.0, 20_000)
    assert np.array_equal(one.time, other.time)
    assert np.array_equal(one.page, other.page)
    assert not np.array_equal(one.page[:1024], example(4, 1024, 1.0, 20_000).page[:1024])
    assert one.accesses == pytest.approx(20_000, rel=0.01)
    middle = one.end // 2
    busy = [
        set(np.flatnonzero(np.bincount(one.page[which], minlength=1024) > 5).tolist())
        for which in ((one.time > 3600 * SECOND) & (one.time < middle), one.time > middle)
    ]
    assert len(busy[0]) > 100 < len(busy[1])
    assert not busy[0] & busy[1], "what was hot is cold, and the other way round"
    assert np.count_nonzero(one.kind == FREE) == int(1024 * 0.05)
