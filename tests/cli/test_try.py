"""`zramcore try`: what it takes, what it does with it, what it prints, and what it leaves behind: nothing."""

from __future__ import annotations

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import zlib
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zramcore.cli import common, corpus, gathering, main, trial
from zramcore.cli.corpus import CHUNK, Corpus, file_extents, gather, python_installation
from zramcore.control import Control, Target
from zramcore.device import Device
from zramcore.errors import InvalidValue, NoSpace
from zramcore.hookspecs import hookimpl
from zramcore.interfaces import Buffer, Compressor, CompressorContext
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue

PAGE = 4096
RANDOM = random.Random(2)

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, which every test must leave empty."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert os.listdir(folder) == []


def text(pages: int) -> bytes:
    """Pages that compress to about a half, no two the same."""
    return b"".join(RANDOM.randbytes(32) * 2 for _ in range(pages * PAGE // 64))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A file of 64 same-filled pages, 50 that do not compress and 398 that do: two chunks."""
    path = tmp_path / "mixed"
    path.write_bytes(bytes(64 * PAGE) + RANDOM.randbytes(50 * PAGE) + text(398))
    return path


def report(capsys: Capture, *words: str | Path, status: int = 0) -> dict[str, Any]:
    """What --json prints."""
    assert main(["try", "--json", *map(str, words)]) == status
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def complaint(capsys: Capture, *words: str | Path, status: int = 1) -> str:
    """The one line on stderr of a run that fails; nothing else is printed."""
    assert main(["try", *map(str, words)]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


# Results


def test_the_figures_of_known_data(mixed: Path, capsys: Capture) -> None:
    found = report(capsys, mixed, "--comp", "lz4,zstd")
    assert found["verified"] is True
    assert [result["comp_algorithm"] for result in found["results"]] == ["lz4", "zstd"]
    for result in found["results"]:
        assert result["orig_data_size"] == 512 * PAGE
        assert result["same_pages"] == 64
        assert result["huge_pages"] == 50
        assert 50 * PAGE < result["compr_data_size"] < 300 * PAGE
        assert result["compr_data_size"] < result["mem_used_total"] < 320 * PAGE
        # The first quarter, read again, is the same-filled pages, 50 huge ones (written back as such) and 14 others.
        assert result["written_back"] == 512 - 64 - 14
        assert 0.9 * result["mem_used_total"] < result["freed_by_writeback"] < result["mem_used_total"]
        assert 0 < result["write_us_per_page"] < 1e5
        assert 0 < result["read_us_per_page"] < 1e5
        for key in ("orig_data_size", "compr_data_size", "mem_used_total", "same_pages", "huge_pages"):
            assert type(result[key]) is int
    assert found["padding"] == 0


def test_the_table_and_the_sentences(mixed: Path, capsys: Capture) -> None:
    assert main(["try", str(mixed), "--comp", "zstd,store"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert max(map(len, lines)) <= 80
    words = captured.out.split()
    assert " ".join(words[:4]) == "data: 2.0 MiB from"
    row = next(line for line in lines if line.startswith("store ")).split()
    assert row[:8] == ["store", "1.14", "12.5", "%", "87.5", "%", "1.8", "MiB"]
    assert float(row[8]) > 1.5
    assert all(int(speed) > 0 for speed in row[-2:])
    assert "store: 2.0 MiB of data took 1.8 MiB; writeback of idle and huge pages freed" in " ".join(words)
    assert captured.out.count("every byte verified") == 2


def test_data_that_is_only_zeroes_takes_no_memory(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "zeroes").write_bytes(bytes(10 * PAGE))
    assert main(["try", str(tmp_path / "zeroes"), "--comp", "lz4"]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("lz4 ")).split()
    assert row[:6] == ["lz4", "-", "100.0", "%", "0.0", "%"]
    assert "took 0.0 MiB" in " ".join(out.split())


def test_one_byte_is_enough(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "byte").write_bytes(b"x")
    found = report(capsys, tmp_path / "byte", "--comp", "lz4")
    assert (found["verified"], found["data_size"], found["padding"]) == (True, PAGE, PAGE - 1)


def test_without_a_path_it_takes_the_python_installation(capsys: Capture) -> None:
    assert main(["try", "--size", "3M", "--comp", "lz4"]) == 0
    sentence = " ".join(capsys.readouterr().out.split())
    assert sentence.startswith(
        "data: 3.0 MiB from this Python installation; the rest is left out, --size sets the limit"
    )
    assert Path(sys.executable).resolve() == python_installation()[0]


def test_the_default_algorithms_are_those_installed(mixed: Path, capsys: Capture) -> None:
    known = build_catalogue(load_plugins()).compressors
    names = [result["comp_algorithm"] for result in report(capsys, mixed)["results"]]
    assert names == [name for name in ("lzo-rle", "lz4", "zstd") if name in known]
    assert {"lz4", "zstd"} <= set(names)


def test_all_means_every_one_and_twice_means_once(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "text").write_bytes(text(4))
    known = list(build_catalogue(load_plugins()).compressors)
    every = report(capsys, tmp_path / "text", "--comp", "all")
    assert [result["comp_algorithm"] for result in every["results"]] == known
    twice = report(capsys, tmp_path / "text", "--comp", "lz4, lz4,")
    assert len(twice["results"]) == 1


def test_size_limits_the_data_and_says_so(mixed: Path, capsys: Capture) -> None:
    found = report(capsys, mixed, "--comp", "lz4", "--size", "0x1800")  # a page and a half
    assert (found["data_size"], found["truncated"]) == (2 * PAGE, True)
    found = report(capsys, mixed, "--comp", "lz4", "--size", "2M")
    assert (found["data_size"], found["truncated"]) == (512 * PAGE, False)


def test_a_trial_goes_through_attributes_in_the_kernels_order(
    mixed: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores: list[tuple[str, str]] = []
    original = Target.store

    def spy(self: Target, attribute: str, value: str) -> None:
        stores.append((attribute, value))
        original(self, attribute, value)

    monkeypatch.setattr(Target, "store", spy)
    report(capsys, mixed, "--comp", "zstd")
    path = dict(stores)["backing_dev"]
    assert stores == [
        ("comp_algorithm", "zstd"),
        ("backing_dev", path),
        ("disksize", str(512 * PAGE)),
        ("idle", "all"),
        ("writeback", "idle"),
        ("writeback", "huge"),
    ]


# What is compared


class _Forgetful(CompressorContext):
    """Gives back zeroes for every page that holds a certain word."""

    def compress_page(self, page: Buffer) -> Buffer:
        return zlib.compress(page, 1)

    def decompress_page(self, data: Buffer, page_size: int) -> Buffer:
        page = zlib.decompress(data)
        return bytes(page_size) if b"FORGET" in page else page


class Forgetful(Compressor):
    name = "forgetful"

    def create_context(self) -> CompressorContext:
        return _Forgetful()


def test_data_that_comes_back_different_is_noticed(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = SimpleNamespace(zramcore_compressors=hookimpl(lambda: [Forgetful]))
    monkeypatch.setitem(sys.modules, "forgetful", plugin)
    found = [*entry_points(group="zramcore"), EntryPoint("forgetful", "forgetful", "zramcore")]
    monkeypatch.setattr(common, "load_plugins", lambda: load_plugins(found))
    data = tmp_path / "data"
    data.write_bytes(text(600) + b"FORGET".ljust(PAGE, b"."))

    assert main(["try", str(data), "--comp", "lz4,forgetful"]) == 1
    captured = capsys.readouterr()
    assert captured.err == (
        "zramcore: forgetful: 1 of 3 MiB did not come back as they were written, the first at byte 2097152\n"
    )
    sentences = " ".join(captured.out.split())
    assert sentences.count("every byte verified") == 1
    assert sentences.endswith("DATA CAME BACK DIFFERENT")
    found_json = report(capsys, data, "--comp", "lz4,forgetful", status=1)
    assert found_json["verified"] is False
    assert [result["verified"] for result in found_json["results"]] == [True, False]


def gathered(path: Path, scratch: Path) -> Corpus:
    return gather(lambda unreadable: file_extents([path], unreadable), 1 << 30, str(scratch))


def test_what_lies_in_the_backing_file_is_compared_too(mixed: Path, scratch: Path) -> None:
    """A backing driver that lies about one block: only the reading after writeback can notice."""
    catalogue = build_catalogue(load_plugins())

    class Lying(catalogue.backing_drivers["file"]):  # type: ignore[misc]
        def read_blocks(self, block: int, count: int) -> Buffer:
            data = bytearray(super().read_blocks(block, count))
            if block <= 7 < block + count:
                data[(7 - block) * PAGE] ^= 1
            return data

        def read_scattered(self, blocks: Sequence[int], target: memoryview) -> bool:
            return False

    control = Control(replace(catalogue, backing_drivers={"file": Lying}))
    data = gathered(mixed, scratch)
    try:
        result = trial.run_trial(control, "lz4", data, str(scratch), lambda what, done: None)
    finally:
        data.close()
    assert not result.verified
    assert len(result.different) == 1
    assert control.devices == {}


def test_a_short_write_is_an_error(mixed: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "pwrite", lambda self, offset, data: len(data) - 1)
    assert "a write of 1048576 bytes at 0 ended after 1048575" in complaint(capsys, mixed)


# Temporary files


def test_the_backing_file_has_no_name_while_it_is_used(
    mixed: Path, scratch: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "SPOOL_MEMORY", CHUNK)  # the spool is a file then, too
    seen: list[list[str]] = []
    original = Device.pwrite

    def spy(self: Device, offset: int, data: bytes) -> int:
        seen.append(os.listdir(scratch))
        return original(self, offset, data)

    monkeypatch.setattr(Device, "pwrite", spy)
    assert report(capsys, mixed, "--comp", "lz4")["verified"] is True
    assert seen == [[], []]


def test_an_interrupt_in_the_middle_closes_everything(
    mixed: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Device, offset: int, data: bytes) -> int:
        raise KeyboardInterrupt

    files = os.listdir("/proc/self/fd")
    monkeypatch.setattr(Device, "pwrite", interrupt)
    assert main(["try", str(mixed), "--comp", "lz4"]) == 130
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "\n")
    assert os.listdir("/proc/self/fd") == files


INTERRUPTIBLE = """
import signal, sys
from zramcore.cli import main
# A shell that starts tests in the background has them ignore SIGINT, which a child inherits.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


def test_control_c_while_reading(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "try", str(fifo)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with open(fifo, "wb"):  # opens when the child has opened it for reading: it waits for data from now on
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "", "\n")


@pytest.fixture
def disk_usage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says how many bytes are free, by folder; others do not exist."""

    def pretend(**free: int) -> None:
        def usage(folder: str) -> object:
            name = folder.strip("/").replace("/", "_")
            if name not in free:
                raise FileNotFoundError(2, "No such file or directory", folder)
            return namedtuple("Usage", "free")(free[name])

        monkeypatch.setattr(shutil, "disk_usage", usage)

    return pretend


def test_var_tmp_is_used_before_tmp(disk_usage: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setattr(trial.tempfile, "gettempdir", lambda: "/tmp")
    disk_usage(tmp=1 << 30, var_tmp=1 << 30)
    assert trial.scratch_folder(1 << 20) == "/var/tmp"
    disk_usage(tmp=1 << 30, var_tmp=1 << 10)
    assert trial.scratch_folder(1 << 20) == "/tmp"
    disk_usage(tmp=1 << 20, var_tmp=1 << 10)
    with pytest.raises(NoSpace, match=r"no room for 2 MiB .*/var/tmp: 0 MiB free, /tmp: 1 MiB free.*TMPDIR"):
        trial.scratch_folder(2 << 20)


def test_a_tmpdir_that_does_not_exist_is_said(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/no/such/folder")
    assert "/no/such/folder: No such file or directory" in complaint(capsys)


# Files and folders


def test_a_folder_is_its_files_in_order_without_gaps(tmp_path: Path, scratch: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "inner").write_bytes(b"3" * 10)
    (folder / "a").write_bytes(b"1" * 5000)
    (folder / "c").write_bytes(b"2" * 10)
    (folder / "empty").touch()
    (folder / "link").symlink_to("c")
    (folder / "loop").symlink_to(".")
    os.link(folder / "c", folder / "same-as-c")
    os.mkfifo(folder / "fifo")
    data = gathered(folder, scratch)
    assert next(data.chunks()) == (0, (b"1" * 5000 + b"2" * 10 + b"3" * 10).ljust(2 * PAGE, b"\0"))
    assert (data.size, data.padding, data.sources, data.unreadable) == (2 * PAGE, 2 * PAGE - 5020, 3, [])
    data.close()


def test_a_large_corpus_is_the_same_from_a_file(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    contents = RANDOM.randbytes(2 * CHUNK + 5 * PAGE + 1)
    path.write_bytes(contents)
    monkeypatch.setattr(corpus, "SPOOL_MEMORY", PAGE)
    data = gathered(path, scratch)
    for _ in range(2):
        assert b"".join(chunk for _, chunk in data.chunks()) == contents.ljust(2 * CHUNK + 6 * PAGE, b"\0")
    assert all(data.matches(offset, chunk) for offset, chunk in data.chunks())
    assert not data.matches(0, contents[1 : CHUNK + 1])
    data.close()


def test_what_cannot_be_read_is_counted_and_named_once(mixed: Path, tmp_path: Path, capsys: Capture) -> None:
    # The first page of a process is never mapped: reading it fails, for everybody.
    assert main(["try", "/proc/self/mem", str(mixed), "--comp", "lz4"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "zramcore: left out 1 that could not be read: /proc/self/mem (Input/output error)\n"
    assert report(capsys, "/proc/self/mem", mixed, "--comp", "lz4")["unreadable"] == 1


def test_of_many_unreadable_files_three_are_named(tmp_path: Path, capsys: Capture) -> None:
    missing = [(f"/{number}", "Permission denied") for number in range(5)]
    with open(tmp_path / "spool", "w+b") as spool:
        gathering.report_unreadable(Corpus(spool, unreadable=missing))
    assert capsys.readouterr().err == (
        "zramcore: left out 5 that could not be read: /0 (Permission denied), /1 (Permission denied), "
        "/2 (Permission denied) and 2 more\n"
    )


def test_nothing_to_read_is_an_error(tmp_path: Path, capsys: Capture) -> None:
    assert complaint(capsys, tmp_path / "scratch") == (
        "zramcore: there is nothing to try: no data in what was given (EINVAL, Invalid argument)\n"
    )
    assert complaint(capsys, "/proc/self/mem").count("\n") == 1


def test_an_empty_corpus_closes_its_spool(scratch: Path) -> None:
    with pytest.raises(InvalidValue, match="nothing to try"):
        gather(lambda unreadable: [], 1 << 20, str(scratch))


def test_a_path_that_does_not_exist(capsys: Capture) -> None:
    assert complaint(capsys, "/no/such/file") == "zramcore: /no/such/file: No such file or directory\n"


# Options


@pytest.mark.parametrize("size", ["0", "", "abc", "12junk", "-1", "1.5M", "1MB"])
def test_a_size_that_is_none_is_a_usage_error(size: str, capsys: Capture) -> None:
    assert main(["try", "--size", size]) == 2
    assert f"Invalid value for '--size': {size!r} is not a size" in capsys.readouterr().err


def test_an_unknown_algorithm_is_explained(capsys: Capture) -> None:
    assert "no compressor is called 'lz5'" in complaint(capsys, "--comp", "lz4,lz5")
    assert "did you mean 'zstd'?" in complaint(capsys, "--comp", "zst")


def test_no_algorithm_at_all_is_a_usage_error(capsys: Capture) -> None:
    assert main(["try", "--comp", ","]) == 2
    assert "names no algorithm" in capsys.readouterr().err


def test_a_bar_is_drawn_on_a_terminal_only(mixed: Path) -> None:
    terminal, side = pty.openpty()
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "zramcore", "try", str(mixed), "--comp", "lz4"], stdout=subprocess.PIPE, stderr=side
        )
        os.close(side)
        out, _ = child.communicate(timeout=60)
        drawn = os.read(terminal, 1 << 16).decode()
    finally:
        os.close(terminal)
    assert child.returncode == 0
    assert "taking the data: 2 MiB" in drawn
    assert "lz4: writing back" in drawn
    assert "lz4: verifying" in drawn
    assert "100%" in drawn
    assert b"every" in out
    assert b"%]" not in out


# A process's memory

HOLDER = """
import mmap, sys
data = bytearray(int(sys.argv[1]))
with open(sys.argv[2], 'rb') as file:
    file.readinto(data)
reserved = mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print('ready', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[int, bytes]]:
    """A process that holds 3 MiB of random data in memory and has reserved 1 GiB; its id and the data."""
    data = RANDOM.randbytes(3 << 20)
    (tmp_path / "secret").write_bytes(data)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(len(data)), str(tmp_path / "secret")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child.pid, data
        child.communicate("")


def test_the_memory_of_a_process(process: tuple[int, bytes], capsys: Capture) -> None:
    pid, data = process
    found = report(capsys, "--pid", str(pid), "--comp", "lz4")
    assert found["verified"] is True
    assert found["padding"] == 0
    # All of its data is there, as pages that do not compress; what it only reserved is not.
    assert found["results"][0]["huge_pages"] >= len(data) // PAGE - 1
    assert len(data) < found["data_size"] < 100 << 20


def test_a_process_and_files_together(process: tuple[int, bytes], mixed: Path, capsys: Capture) -> None:
    pid, _ = process
    alone = report(capsys, "--pid", str(pid), "--comp", "lz4")["data_size"]
    both = report(capsys, "--pid", str(pid), mixed, "--comp", "lz4")["data_size"]
    assert both == alone + 512 * PAGE
    main(["try", "--pid", str(pid), str(mixed), "--comp", "lz4"])
    assert f"from the memory of process {pid}, {mixed}" in " ".join(capsys.readouterr().out.split())


def test_a_process_that_does_not_exist(capsys: Capture) -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert complaint(capsys, "--pid", str(child.pid)) == (
        f"zramcore: there is no process {child.pid} (ESRCH, No such process)\n"
    )


def test_a_process_that_ended_and_has_no_memory(capsys: Capture) -> None:
    child = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        line = complaint(capsys, "--pid", str(child.pid))
    finally:
        child.wait()
    assert f"process {child.pid}" in line


NOBODY = """
import os, sys
from zramcore.cli import main
main(["try", "--help"])  # what the command needs is imported before the permission to do so is gone
sys.stdout.flush()
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.environ["TMPDIR"] = "/tmp"
sys.exit(main(["try", "--pid", "1"]))
"""


def test_no_permission_for_a_process() -> None:
    result = subprocess.run([sys.executable, "-c", NOBODY], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr == (
        "zramcore: no permission to read the memory of process 1 (EACCES, Permission denied); "
        "run it as root, or as the same user with kernel.yama.ptrace_scope=0\n"
    )
