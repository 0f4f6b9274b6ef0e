"""`zramcore bench`: what it prints, its JSON, its refusals, and that /dev/zram0 is reset whatever ends it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from zramcore.bench import plot
from zramcore.bench.block import KernelSide, OurSide, Request
from zramcore.bench.rounds import Job
from zramcore.cli import main
from zramcore.errors import DeviceIOError
from zramcore.kernel import KernelDevice
from zramcore.testing.sysfs import make_sysfs

Capture = pytest.CaptureFixture[str]

KEYS = ["work", "request", "threads", "side", "us_per_page", "spread", "ratio_to_kernel", "ratio_to_limit"]
QUICK = ("--size", "2M", "--rounds", "1")
DEVICE = ("device", *QUICK, "--order", "random", "--request", "4k", "--work", "read,write")


@pytest.fixture
def rows(compressible_file: Path, capsys: Capture) -> Callable[..., list[dict[str, Any]]]:
    """Runs a benchmark on the text; the rows of its --json."""

    def run(*words: str) -> list[dict[str, Any]]:
        assert main(["bench", *words, "--json", str(compressible_file)]) == 0
        printed: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        assert all(list(row)[: len(KEYS)] == KEYS for row in printed)
        return printed

    return run


def complaint(capsys: Capture, *words: str, status: int = 1) -> str:
    """The one line on stderr of a run that fails."""
    assert main(["bench", *words]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_codecs_have_a_row_for_each_direction_and_their_limit(rows: Callable[..., list[dict[str, Any]]]) -> None:
    found = rows("codecs", *QUICK, "--comp", "lz4,zstd")
    assert [(row["work"], row["side"]) for row in found] == [
        (work, side)
        for work in ("compress", "decompress")
        for side in ("lz4", "bare lz4 calls", "zstd", "bare zstd calls")
    ]
    assert all(row["us_per_page"] > 0 and row["ratio_to_limit"] > 0 for row in found)
    assert {row["ratio_to_limit"] for row in found if row["side"].startswith("bare")} == {1.0}
    assert {row["side"]: row["ratio"] > 1 for row in found if "ratio" in row} == {"lz4": True, "zstd": True}


def test_devices_do_what_was_chosen_in_the_order_of_the_works(rows: Callable[..., list[dict[str, Any]]]) -> None:
    found = rows(*DEVICE, "--threads", "1", "--allocator", "all")
    assert [(row["work"], row["request"], row["threads"], row["side"]) for row in found] == [
        (work, 4096, 1, side)
        for work in ("random write", "random read")
        for side in ("zramcore lz4, zsmalloc", "zramcore lz4, malloc", "bare lz4 calls")
    ]
    assert {row["ratio_to_kernel"] for row in found} == {None}


def test_memory_tells_what_is_used_and_what_the_process_grew_by(rows: Callable[..., list[dict[str, Any]]]) -> None:
    lz4, zstd = rows("memory", *QUICK)
    assert (lz4["side"], zstd["side"]) == ("zramcore lz4", "zramcore zstd")
    assert 0 < zstd["used_bytes"] <= lz4["used_bytes"] < 2 << 20
    assert lz4["data/used"] == pytest.approx((2 << 20) / lz4["used_bytes"], abs=1e-3)
    assert lz4["us_per_page"] is None


def test_the_kernel_is_a_side_at_each_number_of_threads(
    rows: Callable[..., list[dict[str, Any]]],
    free_zram0: KernelDevice,
) -> None:
    found = rows(*DEVICE, "--against", "kernel")
    timed = [row for row in found if row["us_per_page"] is not None]
    assert [(row["side"], row["threads"]) for row in timed if row["work"] == "random read"] == [
        (side, threads) for side in ("zramcore lz4", "bare lz4 calls", "kernel lz4") for threads in (1, 2)
    ]
    assert all(row["ratio_to_kernel"] > 0 for row in found)
    assert {row["ratio_to_kernel"] for row in found if row["side"] == "kernel lz4"} == {1.0}
    gains = [row for row in found if row["work"].endswith(": gain")]
    assert [row["side"] for row in gains] == ["zramcore lz4", "bare lz4 calls", "kernel lz4"] * 2
    memory = rows("memory", *QUICK, "--comp", "lz4", "--against", "kernel")
    assert [row["side"] for row in memory] == ["zramcore lz4", "kernel lz4"]
    assert memory[0]["ratio_to_kernel"] == pytest.approx(memory[0]["used_bytes"] / memory[1]["used_bytes"], abs=1e-3)


def test_the_kernel_may_run_another_algorithm(
    rows: Callable[..., list[dict[str, Any]]], free_zram0: KernelDevice
) -> None:
    found = rows("memory", *QUICK, "--comp", "zstd", "--against", "kernel:lzo-rle")
    assert [row["side"] for row in found] == ["zramcore zstd", "kernel lzo-rle"]


def test_the_table_says_what_it_is_about(compressible_file: Path, capsys: Capture) -> None:
    assert main(["bench", *DEVICE, "--threads", "1", str(compressible_file)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"2 MiB of pages from {compressible_file}; medians of 1 rounds"
    assert printed[2].split() == ["work", "request", "threads", "side", "us/page", "spread", "limit=1"]
    assert len(printed) == 3 + 4


def test_without_paths_this_machine_is_measured(capsys: Capture) -> None:
    assert main(["bench", "codecs", *QUICK, "--comp", "store"]) == 0
    assert "from this process's memory, Python sources and this machine's programs" in capsys.readouterr().out


# Refusals -------------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_named(compressible_file: Path, capsys: Capture, tmp_path: Path) -> None:
    assert "no compressor is called 'lz5'" in complaint(capsys, "device", "--comp", "lz5")
    assert "no allocator is called 'zalloc'" in complaint(
        capsys, "device", "--allocator", "zalloc", str(compressible_file)
    )
    assert "No such file" in complaint(capsys, "codecs", "/no/such/file")
    small = tmp_path / "small"
    small.write_bytes(os.urandom(1 << 20))
    assert "too few to measure with" in complaint(capsys, "codecs", str(small))


@pytest.mark.parametrize(
    "words",
    [
        ("device", "--work", "erase"),
        ("device", "--request", "8k"),
        ("device", "--against", "windows"),
        ("codecs", "--size", "big"),
        ("codecs", "--rounds", "0"),
        ("nonesuch",),
    ],
)
def test_wrong_usage_is_status_2(words: Sequence[str], capsys: Capture) -> None:
    assert main(["bench", *words]) == 2
    assert capsys.readouterr().err.startswith("Usage: ")


def test_a_picture_without_matplotlib_names_the_extra_before_anything_is_measured(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'zramcore[plot]'" in complaint(capsys, "codecs", "--plot", str(tmp_path / "out.png"))


def test_a_picture_is_drawn_beside_the_table(compressible_file: Path, capsys: Capture, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    plot.require_matplotlib()
    picture = tmp_path / "out.png"
    assert main(["bench", "codecs", *QUICK, "--comp", "lz4", "--plot", str(picture), str(compressible_file)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "decompress" in capsys.readouterr().out


def test_a_kernel_device_in_use_is_refused_and_left_as_it_is(free_zram0: KernelDevice, capsys: Capture) -> None:
    free_zram0.store("disksize", "1M")
    try:
        assert "is in use: its disksize is 1048576" in complaint(capsys, *DEVICE, "--against", "kernel")
        assert free_zram0.show("disksize") == "1048576\n"
    finally:
        free_zram0.reset()


def test_an_algorithm_that_the_kernel_lacks_is_refused(
    free_zram0: KernelDevice, compressible_file: Path, capsys: Capture
) -> None:
    line = complaint(capsys, *DEVICE, "--comp", "store", "--against", "kernel", str(compressible_file))
    assert "the kernel's zram0 has no store" in line


def test_without_root_or_zram_one_line_says_so(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zramcore.bench import kernel_zram

    tree = make_sysfs(tmp_path / "sys")
    really = kernel_zram.KernelControl
    monkeypatch.setattr(kernel_zram, "KernelControl", lambda sysfs: really(sysfs=tree))
    monkeypatch.setattr(kernel_zram.os, "access", lambda path, mode: False)
    assert "needs root" in complaint(capsys, *DEVICE, "--against", "kernel")
    (tree / "block/zram0").rename(tree / "block/gone")
    assert "there is no" in complaint(capsys, *DEVICE, "--against", "kernel")


# The kernel's device is reset whatever happens ------------------------------------------------------------------------


@pytest.mark.parametrize("side", [OurSide, KernelSide])
def test_after_a_failure(
    side: type[OurSide] | type[KernelSide],
    free_zram0: KernelDevice,
    compressible_file: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> None:
        assert free_zram0.initialized
        raise DeviceIOError("injected")

    def job(self: object, part: int, base: int, requests: Sequence[Request]) -> Job:
        return fails

    monkeypatch.setattr(side, "job", job)
    assert "injected" in complaint(capsys, *DEVICE, "--against", "kernel", str(compressible_file))
    assert free_zram0.show("disksize") == "0\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_after_a_signal(number: signal.Signals, status: int, free_zram0: KernelDevice, compressible_file: Path) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "zramcore", "bench", "device", "--size", "2M", "--rounds", "100000"]
    with subprocess.Popen(
        [*words, "--against", "kernel", compressible_file], stderr=theirs, stdout=subprocess.PIPE
    ) as process:
        os.close(theirs)
        said = b""
        while b"round 3 of" not in said:
            said += os.read(ours, 4096)
        assert free_zram0.initialized
        process.send_signal(number)
        assert process.wait(30) == status
    os.close(ours)
    assert free_zram0.show("disksize") == "0\n"
