"""Scripts against devices: the words, what they print, and what they leave behind."""

from __future__ import annotations

import functools
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from zramcore.control import Control
from zramcore.interfaces import Catalogue
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue
from zramcore.script import BootClock, Machine, ScriptError, VirtualClock, new_machine, run_script
from zramcore.script.data import random_bytes


@functools.cache
def catalogue() -> Catalogue:
    return build_catalogue(load_plugins())


@pytest.fixture
def machine() -> Iterator[Machine]:
    with new_machine(lambda clock: Control(catalogue(), clock=clock), VirtualClock()) as machine:
        yield machine


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Four data pages: two that do not compress well apart, one of one word, one of text."""
    path = tmp_path / "pages"
    path.write_bytes(bytes(range(256)) * 16 + bytes(4096) + b"\1" * 4096 + b"some text " * 409 + b"at end")
    return path


def run(machine: Machine, text: str, pages: Path | str = "pages.bin", **options: bool) -> list[str]:
    out = io.StringIO()
    run_script(text, machine, out, out, file="test", pages=str(pages), **options)
    return out.getvalue().splitlines()


def answers(lines: list[str]) -> list[str]:
    """What was answered to each operation."""
    return [line.partition(" => ")[2] for line in lines if line.startswith("$ ") and " => " in line]


def read_back(data: bytes) -> str:
    """What a read that returns `data` answers."""
    return f"OK {len(data)} crc32={zlib.crc32(data):08x} first8={data[:8].hex()}"


EINVAL = "EINVAL (22, Invalid argument)"
EBUSY = "EBUSY (16, Device or resource busy)"


def test_attributes(machine: Machine) -> None:
    script = "w disksize 1M; c disksize; wn disksize 2M; w idle foo; w mm_stat 1; c idle; c nothing; wn idle ''"
    assert run(machine, script) == [
        "$ echo '1M' > disksize => OK",
        "$ cat disksize => 1048576",
        f"$ printf %s '2M' > disksize => {EBUSY}",
        f"$ echo 'foo' > idle => {EINVAL}",
        "$ echo '1' > mm_stat [open] => EACCES (13, Permission denied)",
        "$ cat idle [open] => EACCES (13, Permission denied)",
        "$ cat nothing [open] => ENOENT (2, No such file or directory)",
        "$ printf %s '' > idle => OK",
    ]  # fmt: skip


def test_both_names_of_one_errno_print_as_the_kernels(machine: Machine) -> None:
    assert answers(run(machine, "w disksize 1M; secdiscard 0 4096"))[1] == "EOPNOTSUPP (95, Operation not supported)"


def test_setup_and_state(machine: Machine) -> None:
    lines = run(machine, "setup lz4 1M; wr 0 zero; wr 2 rand:1; st; s; bs; bs 1; bsc; show")
    assert lines[:3] == [
        "$ echo '1' > reset => OK",
        "$ echo 'lz4' > comp_algorithm => OK",
        "$ echo '1M' > disksize => OK",
    ]
    assert lines[5:] == [
        "  mm_stat:  8192 4096 4096 0 4096 1 0 1 1",
        "  bd_stat:  0 0 0",
        "  io_stat:  0 0 0 0",
        "  =  8192 4096 4096 0 4096 1 0 1 1 |  0 0 0 |  0 0 0 0",
        "  block_state (raw | index flags):",
        "   [           0          100.000000 s.....] | 0 s.....",
        "   [           2          100.000000 ..h...] | 2 ..h...",
        "   lines=2",
        "  block_state (raw | index flags):",
        "   [           0          100.000000 s.....] | 0 s.....",
        "   lines=2",
        "  block_state flags census:",
        "   ..h... 1",
        "   s..... 1",
        "  initstate: 1",
        "  disksize: 1048576",
        "  comp_algorithm: [lz4] lz4hc zstd deflate store ",
        "  backing_dev: none",
        "  mm_stat:  8192 4096 4096 0 4096 1 0 1 1",
        "  bd_stat:  0 0 0",
        "  io_stat:  0 0 0 0",
    ]  # fmt: skip


def test_state_of_an_uninitialised_device(machine: Machine) -> None:
    assert run(machine, "bs; bsc; rdp 0; wr 0 zero; info; pages x") == [
        "  block_state (raw | index flags):",
        "cat: read error: Invalid argument",
        "   lines=0",
        "  block_state flags census:",
        "bsc: the device is not initialised",
        "$ pread /dev/zram0 off=0 len=4096 (O_DIRECT) => OK 0 crc32=00000000 first8=0000000000000000",
        "$ pwrite /dev/zram0 off=0 len=4096 data=zero (O_DIRECT) => ENOSPC (28, No space left on device)",
        "$ blockdev /dev/zram0 => size64=0 ssz=4096 pbsz=4096",
    ]


def test_data_pages(machine: Machine, pages: Path) -> None:
    lines = run(machine, "setup zstd 16K; put 0 4 0; cmp 0 0 4; cmp 0 1 3; put 0 2 3; rdp 3; zt cmp $D 3 $P 0 1", pages)
    assert lines[3:] == [
        "$ dd data pages 0..+4 -> zram page 0 (4K O_DIRECT writes)",
        "$ compare /dev/zram0 pages 0.. with data pages 0.. n=4 => 0 differ (first -1), 0 read errors",
        "$ compare /dev/zram0 pages 0.. with data pages 1.. n=3 => 3 differ (first 0), 0 read errors",
        "$ dd data pages 0..+2 -> zram page 3 (4K O_DIRECT writes)",
        "  dd: error writing '/dev/zram0': No space left on device",
        f"$ pread /dev/zram0 off=12288 len=4096 (O_DIRECT) => {read_back(bytes(range(256)) * 16)}",
        "$ compare /dev/zram0 pages 3.. with data pages 0.. n=1 => 0 differ (first -1), 0 read errors",
    ]


def test_the_page_table_shows_what_each_page_cost(machine: Machine, pages: Path) -> None:
    lines = run(machine, "setup lz4 1M; zt pages $D $P 0 3 5 $Z/mm_stat", pages)
    assert lines[3] == "# page compr_delta orig_delta mem_used_delta same_delta huge_delta huge_since_delta"
    rows = [[int(number) for number in line.split()] for line in lines[4:]]
    assert [row[0] for row in rows] == [0, 1, 2]
    assert [row[2] for row in rows] == [4096] * 3
    assert [row[4] for row in rows] == [0, 1, 1]
    assert rows[0][1] > 0
    assert rows[1][1] == 0


def test_requests(machine: Machine) -> None:
    script = """setup lz4 64K
    pw 512 1024 word:5a buf; pr 0 512 buf; pr 512 8 buf; pw 100 100 zero; disc 0 1; zeroout 4096 4096; punch 0 4096
    fzero 0 4096; noh 0 4096; pw 65536 4096 zero; pr 61440 8192; discard 61440 8192; io"""
    assert answers(run(machine, script))[3:] == [
        "OK 1024",
        read_back(bytes(512)),
        read_back(b"\x5a" + bytes(7)),
        EINVAL,
        "OK 0",
        "OK 0",
        "OK 0",
        "OK 0",
        "EOPNOTSUPP (95, Operation not supported)",
        "ENOSPC (28, No space left on device)",
        "OK 4096 crc32=c71c0011 first8=0000000000000000",
        EINVAL,
    ]


def test_mem_limit_fails_direct_writes_with_eio_and_buffered_ones_in_fsync(machine: Machine) -> None:
    lines = run(machine, "setup lz4 1M; w mem_limit 4K; wr 0 rand:0; wr 1 rand:1; pw 8192 4096 rand:2 buf; io")
    assert lines[5].endswith("=> EIO (5, Input/output error)")
    assert lines[6].endswith("(buffered) [fsync] => EIO (5, Input/output error)")
    assert lines[7] == "  io_stat:  0 2 0 0"


def test_backing_files_have_the_name_the_script_gave_them(machine: Machine, pages: Path) -> None:
    script = """mkloop /dev/loop0 4
    setup lz4 1M /dev/loop0
    put 0 1 0; wr 1 rand:3; w writeback huge; bd; c backing_dev
    echo $(cat /sys/block/loop0/size)
    zt pr /dev/loop0 0 4096; zt pr /dev/loop0 16384 4096; zt pr /dev/loop0 100 4096"""
    lines = run(machine, script, pages)
    assert lines[0] == "$ losetup /dev/loop0 <4-page tmpfs file> => rc=0 sectors=32"
    assert lines[7:11] == [
        "$ echo 'huge' > writeback => OK",
        "  bd_stat:  1 0 1",
        "$ cat backing_dev => /dev/loop0",
        "32",
    ]
    assert answers(lines)[-3:] == [
        read_back(random_bytes(3, 4096)),
        "OK 0 crc32=00000000 first8=0000000000000000",
        EINVAL,
    ]


def test_a_machine_leaves_nothing_behind() -> None:
    with new_machine(lambda clock: Control(catalogue(), clock=clock), VirtualClock()) as machine:
        path = machine.make_file("/dev/loop0", 4096)
        run(machine, "setup lz4 1M /dev/loop0; hold wr")
        assert path.exists()
    assert not path.exists()
    assert not machine.control.devices[0].initialized


class TestHolds:
    def test_a_held_device_cannot_be_reset(self, machine: Machine) -> None:
        lines = run(machine, "w disksize 1M; hold wr; w reset 1; release; w reset 1")
        assert lines[1:] == [
            "$ open(/dev/zram0, wr) held",
            f"$ echo '1' > reset => {EBUSY}",
            "$ close(/dev/zram0)",
            "$ echo '1' > reset => OK",
        ]

    def test_a_hold_in_the_background_ends_when_its_time_is_over(self, machine: Machine) -> None:
        script = "w disksize 1M; zt hold $D 2 ro & sleep 0.5; w reset 1; sleep 1; w reset 1; sleep 1; w reset 1"
        assert answers(run(machine, script)) == ["OK", EBUSY, EBUSY, "OK"]

    def test_wait_waits_for_holds_and_kill_ends_one(self, machine: Machine) -> None:
        script = """w disksize 1M; zt hold $D 99 ro & wait; w reset 1
        zt hold $D 5 ro & kill $!; kill $! || echo over; w reset 1"""
        lines = run(machine, script)
        assert answers(lines) == ["OK", "OK", "OK"]
        assert "over" in lines
        assert machine.clock.now() == 199

    def test_in_the_foreground_it_takes_its_time(self, machine: Machine) -> None:
        assert answers(run(machine, "w disksize 1M; zt hold $D 3 wr; w reset 1")) == ["OK", "OK"]
        assert machine.clock.now() == 103

    def test_exclusive_ones(self, machine: Machine) -> None:
        script = """mkloop /dev/loop0 4; zt hold /dev/loop0 9 excl & zt hold /dev/loop0 9 excl &
        w backing_dev /dev/loop0; wait; w backing_dev /dev/loop0; zt hold /dev/loop0 1 excl
        zt hold $D 1 excl & zt hold $D 1 excl & zt hold /dev/none 1 ro"""
        lines = run(machine, script)
        assert lines.count(f"hold [open] => {EBUSY}") == 3
        assert answers(lines)[1:] == [EBUSY, "OK"]
        assert lines[-1] == "hold [open] => ENOENT (2, No such file or directory)"


def test_time_marks_idle_pages(machine: Machine) -> None:
    lines = run(machine, "w disksize 1M; wr 0 rand:0; sleep 3; wr 1 rand:1; w idle 2; bs")
    assert [line[-6:] for line in lines if line.startswith("   [")] == ["..hi..", "..h..."]


def test_more_devices(machine: Machine) -> None:
    lines = run(
        machine, "hot_add; dev 1; w disksize 1M; hold ro; hot_remove 1; release; hot_remove 1; hot_remove 7; c disksize"
    )
    assert lines == [
        "$ cat hot_add => 1",
        "$ echo '1M' > disksize => OK",
        "$ open(/dev/zram1, ro) held",
        f"$ echo '1' > hot_remove => {EBUSY}",
        "$ close(/dev/zram1)",
        "$ echo '1' > hot_remove => OK",
        "$ echo '7' > hot_remove => ENODEV (19, No such device)",
        "$ cat disksize [open] => ENOENT (2, No such file or directory)",
    ]


def test_paths_of_sysfs(machine: Machine) -> None:
    script = """w disksize 64K; cat /sys/block/zram0/size $Z/queue/logical_block_size $Z/ro
    [ -e $Z/idle ] && [ -e $DBG ] && [ -e $D ] && ! [ -e $Z/queue/scheduler ] && echo so
    echo all > $Z/idle; echo 1 > $Z/mm_stat; echo x > $Z/none; cat $Z/reset; cat $Z/none"""
    assert run(machine, script)[1:] == [
        "128",
        "4096",
        "0",
        "so",
        "sh: write error: Permission denied",
        "sh: write error: No such file or directory",
        "cat: can't open '/sys/block/zram0/reset': Permission denied",
        "cat: can't open '/sys/block/zram0/none': No such file or directory",
    ]  # fmt: skip


def test_run_echoes_and_tells_the_status(machine: Machine) -> None:
    assert run(machine, "run false; run echo a b") == ["$ false", "  rc=1", "$ echo a b", "a b", "  rc=0"]


@pytest.mark.parametrize(
    "line",
    [
        "w disksize", "c", "wr 0", "wr x zero", "wr 0 ones", "rdp", "disc 1", "put 0 1", "cmp 0", "setup lz4", "zt",
        "zt x", "zt pw $D 0", "mkloop x", "dev", "pages", "hold", "hold xx", "release 1", "sleep x", "sleep -1", "kill",
        "run", "hot_add 1", "hot_remove", "bs x", "nothing", "put 0 1 0", "tr a", "head -x", "wc", "uname", "seq",
        "printf",
    ],
)  # fmt: skip
def test_a_malformed_line_is_named_and_runs_nothing_more(machine: Machine, line: str) -> None:
    out = io.StringIO()
    with pytest.raises(ScriptError, match=r"^test:2: "):
        run_script(f"\n{line}\necho after", machine, out, out, file="test", pages="/none")
    assert "after" not in out.getvalue()


def test_an_unknown_command_is_found_before_anything_runs(machine: Machine) -> None:
    with pytest.raises(ScriptError, match=r"^test:3: unknown command 'disksiz'"):
        run(machine, "w disksize 1M\nf() { g; }; g() { true; }\nfor i in 1; do f; x=$(disksiz) ; done")
    assert not machine.control.devices[0].initialized


def test_stop_on_error(machine: Machine) -> None:
    out = io.StringIO()
    assert run_script("w disksize 0\nw disksize 1M", machine, out, out, stop_on_error=True) == 1
    assert out.getvalue() == f"$ echo '0' > disksize => {EINVAL}\n"
    assert run_script("w disksize 0 || true\nw disksize 1M", machine, out, out, stop_on_error=True) == 0


def test_status(machine: Machine) -> None:
    out = io.StringIO()
    assert run_script("false", machine, out, out) == 0
    assert run_script("exit 3", machine, out, out) == 3
    assert run_script("false; exit", machine, out, out) == 1


def test_the_boot_clock_goes_on() -> None:
    clock = BootClock()
    before = clock.now()
    clock.sleep(0.001)
    assert clock.now() >= before + 0.001
