"""`zramcore bench`: what it prints, its JSON, its refusals, and that /dev/zram0 is reset whatever ends it."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from zramcore.bench import backing, plot
from zramcore.bench.block import KernelSide, OurSide, Request
from zramcore.bench.rounds import Job
from zramcore.cli import main
from zramcore.errors import DeviceIOError
from zramcore.interfaces import CompressorParams
from zramcore.kernel import KernelDevice
from zramcore.native import load_batch
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue
from zramcore.testing.sysfs import make_sysfs

Capture = pytest.CaptureFixture[str]

KEYS = ["work", "request", "threads", "side", "us_per_page", "spread", "ratio_to_kernel", "ratio_to_limit"]


def limit(name: str) -> str:
    """The side that is the limit of a compressor here."""
    compressor = build_catalogue(load_plugins()).compressors[name](CompressorParams())
    return f"bare {name} {'in C' if load_batch() and compressor.native_codec() else 'by calls'}"


LZ4, ZSTD = limit("lz4"), limit("zstd")
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
        (work, side) for work in ("compress", "decompress") for side in ("lz4", LZ4, "zstd", ZSTD)
    ]
    assert all(row["us_per_page"] > 0 and row["ratio_to_limit"] > 0 for row in found)
    assert {row["ratio_to_limit"] for row in found if row["side"].startswith("bare")} == {1.0}
    assert {row["side"]: row["ratio"] > 1 for row in found if "ratio" in row} == {"lz4": True, "zstd": True}


def test_devices_do_what_was_chosen_in_the_order_of_the_works(rows: Callable[..., list[dict[str, Any]]]) -> None:
    found = rows(*DEVICE, "--threads", "1", "--allocator", "all")
    assert [(row["work"], row["request"], row["threads"], row["side"]) for row in found] == [
        (work, 4096, 1, side)
        for work in ("random write", "random read")
        for side in ("zramcore lz4, zsmalloc", "zramcore lz4, malloc", LZ4)
    ]
    assert {row["ratio_to_kernel"] for row in found} == {None}


def test_memory_tells_what_is_used_and_what_the_process_grew_by(rows: Callable[..., list[dict[str, Any]]]) -> None:
    lz4, zstd = rows("memory", *QUICK[:2])
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
        (side, threads) for side in ("zramcore lz4", LZ4, "kernel lz4") for threads in (1, 2)
    ]
    assert all(row["ratio_to_kernel"] > 0 for row in found)
    assert {row["ratio_to_kernel"] for row in found if row["side"] == "kernel lz4"} == {1.0}
    gains = [row for row in found if row["work"].endswith(": gain")]
    assert [row["side"] for row in gains] == ["zramcore lz4", LZ4, "kernel lz4"] * 2
    memory = rows("memory", *QUICK[:2], "--comp", "lz4", "--against", "kernel")
    assert [row["side"] for row in memory] == ["zramcore lz4", "kernel lz4"]
    assert memory[0]["ratio_to_kernel"] == pytest.approx(memory[0]["used_bytes"] / memory[1]["used_bytes"], abs=1e-3)


def test_the_kernel_may_run_another_algorithm(
    rows: Callable[..., list[dict[str, Any]]], free_zram0: KernelDevice
) -> None:
    found = rows("memory", *QUICK[:2], "--comp", "zstd", "--against", "kernel:lzo-rle")
    assert [row["side"] for row in found] == ["zramcore zstd", "kernel lzo-rle"]


@pytest.mark.parametrize("folder", [(), ("--folder", ".")])
def test_every_backing_driver_is_written_and_read_against_plain_io(
    folder: Sequence[str], rows: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = rows("writeback", *QUICK, "--comp", "zstd", *folder)
    sides = [*(f"zramcore zstd, {name}" for name in ("file", "direct", "mmap")), "plain O_DIRECT"]
    assert [(row["work"], row["side"]) for row in found] == [
        (work, side) for work in ("writeback", "read back") for side in sides
    ]
    assert all(row["us_per_page"] > 0 and row["ratio_to_limit"] > 0 for row in found)
    assert os.listdir(tmp_path) == []


def test_latency_has_two_percentiles_with_and_without_a_pass(rows: Callable[..., list[dict[str, Any]]]) -> None:
    found = rows("latency", "--size", "8M", "--rounds", "1")
    ours = "zramcore lz4, direct"
    assert [(row["work"], row["threads"], row["side"]) for row in found] == [
        (work, 4, side)
        for work in ("mixed, p50", "mixed, p99")
        for side in (f"{ours}, no pass", f"{ours}, during a pass")
    ]
    assert all(row["us_per_page"] > 0 and row["requests"] > 100 for row in found)
    assert [row["times"] for row in found if row["side"].endswith("no pass")] == [1.0, 1.0]
    assert found[0]["us_per_page"] <= found[2]["us_per_page"]


def test_scans_are_measured_on_tables_of_the_sizes_that_were_given(capsys: Capture) -> None:
    assert main(["bench", "scan", "--slots", "64K,1M", "--allocated", "65536", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["work"], row["side"]) for row in found] == [
        (f"{work}, {slots}", side)
        for slots in ("65536 slots dense", "1048576 slots dense", "1048576 slots scattered")
        for work in ("idle all", "select idle", "select huge", "idle by age")
        for side in ("zramcore", "numpy pass")
    ]
    assert all(row["ms"] > 0 and row["ratio_to_limit"] > 0 for row in found)


def test_the_kernel_marks_idle_too(free_zram0: KernelDevice, capsys: Capture) -> None:
    words = ("--slots", "64K", "--allocated", "4096", "--rounds", "1", "--json", "--against", "kernel")
    assert main(["bench", "scan", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    works = {row["work"].partition(",")[0] for row in found if row["side"] == "kernel lz4"}
    ages = {"idle by age"} if "idle_age" in free_zram0.capabilities else set()
    assert works == {"idle all"} | ages
    assert all(row["ratio_to_kernel"] for row in found if row["work"].startswith("idle all"))


NBD = ("nbd", *QUICK, "--comp", "lz4", "--request", "4k,1m")


def test_nbd_is_measured_at_each_size_and_depth(rows: Callable[..., list[dict[str, Any]]]) -> None:
    found = rows(*NBD)
    assert [(row["work"], row["request"], row["side"]) for row in found if row["us_per_page"]] == [
        (f"random {work}, depth {depth}", request, side)
        for request in (1 << 20, 4096)
        for work in ("write", "read")
        for depth in (1, 32)
        for side in ("zramcore lz4", LZ4)
    ]
    memory = [row for row in found if row["work"].startswith("memory")]
    assert [row["work"] for row in memory] == ["memory, these data", "memory, random data"]
    assert all(row["resident_bytes"] > 1 << 20 for row in memory)


@pytest.mark.skipif(shutil.which("nbdkit") is None, reason="needs nbdkit")
def test_nbdkit_is_a_side(rows: Callable[..., list[dict[str, Any]]]) -> None:
    found = rows(*NBD, "--depth", "32", "--against", "nbdkit")
    sides = ["zramcore lz4", LZ4, "nbdkit zstd", "nbdkit malloc"]
    assert [row["side"] for row in found if row["work"] == "random read, depth 32"] == sides * 2
    compared = [row for row in found if "nbdkit zstd=1" in row]
    assert {row["side"] for row in compared} == set(sides) - {LZ4}
    assert {row["nbdkit zstd=1"] for row in compared if row["side"] == "nbdkit zstd"} == {1.0}


def test_the_table_says_what_it_is_about(compressible_file: Path, capsys: Capture) -> None:
    assert main(["bench", *DEVICE, "--threads", "1", str(compressible_file)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"2 MiB of pages from {compressible_file}; medians of 1 round"
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


def test_nbdkit_that_is_missing_is_named_before_anything_is_measured(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, compressible_file: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    assert "apt install nbdkit" in complaint(capsys, "nbd", "--against", "nbdkit", str(compressible_file))


def test_a_folder_without_direct_io_is_refused(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, compressible_file: Path, tmp_path: Path
) -> None:
    really = os.open

    def refuse(path: str, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return really(path, flags, *rest, **named)

    monkeypatch.setattr(backing.os, "open", refuse)
    line = complaint(capsys, "writeback", *QUICK, "--folder", str(tmp_path), str(compressible_file))
    assert f"cannot do direct I/O in {tmp_path}" in line
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "words",
    [
        ("device", "--work", "erase"),
        ("device", "--request", "8k"),
        ("device", "--against", "windows"),
        ("codecs", "--size", "big"),
        ("codecs", "--rounds", "0"),
        ("scan", "--slots", "1M,8"),
        ("nbd", "--against", "kernel"),
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
