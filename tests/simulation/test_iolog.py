"""fio's iologs: real ones of version 3, and of version 2 that fio itself replays; and what is wrong with a line."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zramcore.errors import InvalidValue
from zramcore.simulation import tokens
from zramcore.simulation.reading import read_trace
from zramcore.simulation.trace import FREE, READ, SECOND, WRITE

needs_fio = pytest.mark.skipif(shutil.which("fio") is None, reason="needs fio (Debian package fio)")

V2 = """fio version 2 iolog
{0} add
{0} open
{0} write 0 8192
{0} wait 2000000 0
{0} read 4096 4096
{0} wait 500000 0
{0} sync 0 0
{0} trim 0 8192
{0} close
"""


def fio(*options: str, folder: Path) -> dict[str, Any]:
    """Run a job in `folder`; the figures of its one job, as fio reports them."""
    command = ["fio", "--name=job", "--ioengine=sync", "--output-format=json", *options]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    return found


@needs_fio
def test_every_request_that_fio_made_is_in_its_trace(tmp_path: Path) -> None:
    job = fio(
        "--filename=one:two", "--size=2M", "--rw=randrw", "--bsrange=4k-16k", "--thinktime=1ms", "--number_ios=200",
        "--fsync=20", "--write_iolog=log", folder=tmp_path,
    )  # fmt: skip
    trace = read_trace(tmp_path / "log")
    inside = trace.time >= 0
    assert np.count_nonzero(inside & (trace.kind == READ)) * 4096 == job["read"]["io_bytes"]
    assert np.count_nonzero(inside & (trace.kind == WRITE)) * 4096 == job["write"]["io_bytes"]
    assert np.all(np.diff(trace.time) >= 0)
    assert 0.2 * SECOND <= trace.end <= (job["job_runtime"] + 1000) * 1000, "200 pauses of 1 ms; times are microseconds"
    assert trace.nr_pages > 256, "the second file lies behind the first"


@needs_fio
def test_what_is_read_first_was_there_before(tmp_path: Path) -> None:
    fio("--filename=one", "--size=1M", "--rw=read", "--bs=64k", "--write_iolog=log", folder=tmp_path)
    trace = read_trace(tmp_path / "log")
    assert trace.accesses == 256
    before = trace.time < 0
    assert np.array_equal(trace.page[before], np.arange(256))
    assert set(trace.kind[before].tolist()) == {WRITE}


@needs_fio
def test_trims_free_pages(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("fio version 3 iolog\n1 f add\n2 f open\n3 f write 0 12288\n9 f trim 100 9000\n10 f close\n")
    trace = read_trace(log)
    assert trace.page[trace.kind == FREE].tolist() == [1], "a page that is trimmed in part stays"


@needs_fio
def test_a_log_of_version_2_that_fio_replays_too(tmp_path: Path) -> None:
    log, file = tmp_path / "log", tmp_path / "file"
    log.write_text(V2.format(file))
    file.write_bytes(bytes(65536))
    without_trim = log.read_text().replace(f"{file} trim 0 8192\n", "")
    (tmp_path / "replayed").write_text(without_trim)
    job = fio("--read_iolog=replayed", "--replay_no_stall=1", folder=tmp_path)
    assert (job["write"]["io_bytes"], job["read"]["io_bytes"]) == (8192, 4096), "fio reads it as we do"
    trace = read_trace(log)
    assert trace.page.tolist() == [0, 1, 1, 0, 1]
    assert trace.kind.tolist() == [WRITE, WRITE, READ, FREE, FREE]
    assert trace.time.tolist() == [0, 0, 2_000_000, 2_500_000, 2_500_000]


def test_a_log_of_version_2_without_waits_has_no_times_until_it_is_stretched(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("fio version 2 iolog\nf add\nf open\nf write 0 4096\nf write 4096 4096\n")
    trace = read_trace(log)
    assert trace.end == 0
    stretched = trace.stretched(10)
    assert stretched.time.tolist() == [0, 5 * SECOND]
    assert stretched.end == 10 * SECOND


@pytest.mark.parametrize("chunk", [40, 64, 1 << 20])
def test_chunks_of_any_size_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    log = tmp_path / "log"
    lines = [f"{1000 * number} file{number % 3} write {4096 * number} 4096\n" for number in range(50)]
    log.write_text("fio version 3 iolog\n" + "".join(lines).rstrip("\n"))  # the last line has no end
    monkeypatch.setattr(tokens, "CHUNK", chunk)
    trace = read_trace(log)
    assert trace.time.tolist() == [1000 * number for number in range(50)]
    base = [0, 1 << 20, 2 << 20]
    assert trace.page.tolist() == [(base[number % 3] >> 12) + number for number in range(50)]


@pytest.mark.parametrize(
    ("version", "line", "reason"),
    [
        (3, "12 f write 0 eight", "not TIME FILE ACTION OFFSET LENGTH"),
        (3, "12 f write -5 4096", "not TIME FILE ACTION OFFSET LENGTH"),
        (3, "12 f erase 0 4096", "not TIME FILE ACTION OFFSET LENGTH"),
        (3, "12 f write 0 99999999999999999999", "not TIME FILE ACTION OFFSET LENGTH"),
        (3, "soon f write 0 4096", "not TIME FILE ACTION OFFSET LENGTH"),
        (3, "12 my file write 0 4096", "not a line of an iolog"),
        (3, "12 f shut", "an action that fio does not have"),
        (2, "f write 0", "not a line of an iolog"),
        (2, "f write 0 4k", "not FILE ACTION OFFSET LENGTH"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, version: int, line: str, reason: str) -> None:
    log = tmp_path / "log"
    lead = "1 " if version == 3 else ""
    log.write_text(f"fio version {version} iolog\n{lead}f add\n{lead}f open\n{lead}f write 0 4096\n{line}\n")
    with pytest.raises(InvalidValue) as caught:
        read_trace(log)
    assert f"{log}:5: {reason}: {line!r}" in str(caught.value)
    assert "delete the line" in caught.value.hint or "known actions" in caught.value.hint


def test_a_log_without_requests(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("fio version 3 iolog\n1 f add\n")
    with pytest.raises(InvalidValue, match="has no requests"):
        read_trace(log)
