"""The commands that talk to a daemon, through a real one; pictures and tables also on their own."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zramcore.cli import main
from zramcore.cli.client import human
from zramcore.cli.map_ import GRID, LOOK, dominant, png
from zramcore.cli.top import BARS, History, sparkline
from zramcore.daemon.client import Client
from zramcore.testing.daemon import RunningDaemon

Run = Callable[..., str]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with RunningDaemon(tmp_path_factory.mktemp("daemon"), "--nbd", "unix:nbd.sock") as running:
        yield running
        assert running.stop() == 0


@pytest.fixture
def client(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Client]:
    """A client of the daemon that the commands find too; the devices that a test leaves are removed."""
    monkeypatch.setenv("ZRAMCORE_SOCKET", str(daemon.socket))
    monkeypatch.chdir(tmp_path)
    with daemon.client() as client:
        yield client
        for device in client.devices():
            client.remove(device["name"], save=False, disconnect=True)


@pytest.fixture
def run(client: Client, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must succeed (with `fails`, that must not); what it printed (on stderr)."""

    def run(*words: str, fails: int = 0) -> str:
        assert main(list(words)) == fails
        printed = capsys.readouterr()
        return printed.err if fails else printed.out

    return run


def fill(client: Client, name: str, folder: Path) -> None:
    """A device of 64 pages, filled through an image: 8 huge, 8 same-filled, 16 compressible ones, then nothing."""
    image = folder / "data.img"
    image.write_bytes(os.urandom(8 * 4096) + b"\1" * 8 * 4096 + b"words and words " * 4096)
    device = {"disksize": "256K", "backing_dev": f"file:{folder}/b.img,size=256K", "comp_algorithm": "lz4"}
    client.create(name, {**device, "recomp_algorithm": "algo=zstd priority=1", "image": {"load": str(image)}}, [], "/")


# create, list, show, get, set


def test_create_says_what_it_made_and_list_shows_it(run: Run, tmp_path: Path) -> None:
    made = run(
        "create", "swap", "--disksize", "64M", "--comp", "zstd", "--allocator", "malloc",
        "--backing", "file:b.img,size=1M", "--policy", "idle:age=3h,limit=100", "--policy", "huge",
        "--set", "mem_limit=8M", "--set", "writeback_limit=5", "--set", "writeback_limit_enable=1",
        "--set", "recomp_algorithm=algo=lz4 priority=1", "--set", "recomp_algorithm=algo=deflate priority=2",
        "--nbd", "unix:swap.sock",
    ).splitlines()  # fmt: skip
    assert made[0] == f"swap (zram0): 64M, zstd, backing file:{tmp_path}/b.img,size=1M, policies idle, huge"
    assert made[-1] == f"  nbd+unix:///zram0?socket={tmp_path}/swap.sock"
    head, row = run("list").splitlines()
    assert head.split()[:5] == ["NAME", "LABEL", "ALGORITHM", "DISKSIZE", "DATA"]
    assert dict(zip(head.split(), row.split(), strict=True)) == {
        "NAME": "zram0", "LABEL": "swap", "ALGORITHM": "zstd", "DISKSIZE": "64M", "DATA": "0B", "COMPR": "0B",
        "TOTAL": "0B", "MEM-LIMIT": "8M", "MEM-USED": "0B", "SAME": "0", "HUGE": "0", "MIGRATED": "0",
        "BD-COUNT": "0B", "BD-READS": "0B", "BD-WRITES": "0B", "OPEN": "0",
    }  # fmt: skip
    assert run("list", "--bytes").split()[-13] == str(64 << 20)
    (device,) = json.loads(run("list", "--json"))["devices"]
    assert [policy["options"] for policy in device["policies"]] == [{"age": "3h", "limit": "100"}, {}]
    assert run("get", "swap", "writeback_limit") == "5\n"
    assert "#2: " in run("get", "zram0", "recomp_algorithm")


def test_create_prints_json(run: Run) -> None:
    made = json.loads(run("create", "zram0", "--disksize", "1M", "--page-size", "16384", "--json"))
    assert (made["name"], made["label"], made["page_size"]) == ("zram0", "zram0", 16384)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--disksize", "1M", "--comp", "zst"], "did you mean 'zstd'?"),
        (["--disksize", "1M", "--set", "mem_limt=1M"], "did you mean 'mem_limit'?"),
        (["--disksize", "1M", "--policy", "idle"], "has no backing_dev"),
        (["--disksize", "1M", "--backing", "file:b.img,size=1M", "--nbd", "tcp:0.0.0.0:0"], "there is no TLS"),
        (["--disksize", "1M", "--backing", "file:b.img,size=1M", "--policy", "idle:age=soon"], "age=soon"),
    ],
)
def test_a_create_that_fails_leaves_nothing_behind(
    run: Run, client: Client, tmp_path: Path, words: list[str], said: str
) -> None:
    line = run("create", "disk", *words, fails=1)
    assert said in line
    assert line.count("\n") == 1
    assert client.devices() == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "words", [[], ["--disksize", "1M", "--policy", "idle:age"], ["--disksize", "1M", "--policy", ":a=b"],
              ["--disksize", "1M", "--set", "mem_limit"], ["--disksize", "1M", "--page-size", "8192"]]
)  # fmt: skip
def test_a_create_that_makes_no_sense_is_a_usage_error(run: Run, client: Client, words: list[str]) -> None:
    run("create", "disk", *words, fails=2)
    assert client.devices() == []


def test_set_and_get_are_the_kernels(run: Run, client: Client) -> None:
    client.request("GET", "/sys/class/zram-control/hot_add")
    run("set", "zram0", "disksize", "1M")
    assert run("get", "zram0", "disksize") == "1048576\n"
    assert "EBUSY" in run("set", "zram0", "disksize", "2M", fails=1)
    assert "did you mean 'mm_stat'" in run("get", "zram0", "mm_stats", fails=1)
    run("reset", "zram0")
    assert run("get", "zram0", "initstate") == "0\n"


def test_show_tells_everything(run: Run, client: Client, daemon: RunningDaemon, tmp_path: Path) -> None:
    fill(client, "disk", tmp_path)
    client.set_policies("disk", [{"name": "none"}])
    lines = run("show", "disk").splitlines()
    by_name = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert by_name["disksize"] == "262144"
    assert by_name["recomp_algorithm"].startswith("#1: lz4")
    assert by_name["(nbd)"] == f"nbd+unix:///zram0?socket={daemon.folder}/nbd.sock"
    assert by_name["(image)"] == f"load {tmp_path}/data.img"
    assert by_name["(policy)"].startswith("none; ")
    shown = json.loads(run("show", "disk", "--json"))
    assert shown["attributes"]["disksize"] == "262144\n"
    assert shown["mm_stat"]["huge_pages"] == 8


# What they do


def test_idle_writeback_recompress_say_what_they_did(run: Run, client: Client, tmp_path: Path) -> None:
    fill(client, "disk", tmp_path)
    assert run("writeback", "disk", "huge") == "disk: wrote back 32K, freed 32K\n"
    assert run("writeback", "disk") == "disk: freed 0B\n"
    run("idle", "disk", "100")
    assert client.slot_map("disk", 1)["totals"]["idle"] == 0
    run("idle", "disk")
    assert client.slot_map("disk", 1)["totals"]["idle"] == 16
    assert re.fullmatch(r"disk: (freed|grew) [0-9.]+[BK]\n", run("recompress", "disk", "type=idle", "max_pages=4"))
    # a page that was recompressed is no longer idle
    assert re.fullmatch(r"disk: wrote back 48K, freed [0-9.]+[BK]\n", run("writeback", "disk", "idle"))
    assert "ERANGE" in run("writeback", "disk", "page_index=64", fails=1)
    assert "EINVAL" in run("idle", "disk", "sometimes", fails=1)


def test_remove_saves_an_image_and_is_refused_while_it_is_open(
    run: Run, client: Client, daemon: RunningDaemon, tmp_path: Path
) -> None:
    client.create("disk", {"disksize": "1M", "image": {"save": str(tmp_path / "d.img")}}, [], "/")
    with connected(daemon):
        assert client.device("disk")["open"] == 1
        assert "is open 1 times" in run("remove", "disk", fails=1)
        assert run("remove", "disk", "--disconnect") == "disk: image saved, 0B stored\n"
    assert (tmp_path / "d.img").stat().st_size == 1 << 20
    assert "there is no device" in run("remove", "disk", fails=1)


def connected(daemon: RunningDaemon) -> object:
    """An NBD client of the only device, past its handshake."""
    import socket

    from zramcore.nbd import protocol

    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(str(daemon.folder / "nbd.sock"))
    sock.recv(protocol.GREETING.size, socket.MSG_WAITALL)
    sock.sendall(protocol.CLIENT_FLAGS.pack(protocol.FLAG_FIXED_NEWSTYLE | protocol.FLAG_NO_ZEROES))
    sock.sendall(protocol.OPTION.pack(protocol.OPTION_MAGIC, protocol.OPT_EXPORT_NAME, 0))
    assert len(sock.recv(protocol.EXPORT_NAME_REPLY.size, socket.MSG_WAITALL)) == protocol.EXPORT_NAME_REPLY.size
    return sock


def test_without_a_daemon_every_command_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "none.sock")
    monkeypatch.delenv("ZRAMCORE_SOCKET", raising=False)
    for words in (
        ["list"], ["show", "a"], ["get", "a", "b"], ["set", "a", "b", "c"], ["idle", "a"], ["writeback", "a"],
        ["recompress", "a"], ["reset", "a"], ["remove", "a"], ["top", "--once"], ["map", "a"], ["reload"],
        ["create", "a", "--disksize", "1M"],
    ):  # fmt: skip
        assert main([*words, "--socket", path]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"zramcore: no daemon answers on {path} ")
        assert f"start one: zramcore daemon --socket {path}" in printed.err
    assert os.listdir(tmp_path) == []


def test_reload_of_a_daemon_without_a_config_is_refused(run: Run) -> None:
    assert "started without a config file" in run("reload", fails=1)


def test_names_of_devices_are_completed(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client.create("swap", {"disksize": "1M"}, [], "/")
    monkeypatch.setenv("_ZRAMCORE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "zramcore show ")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert main([]) == 0
    assert capsys.readouterr().out.split() == ["plain,swap", "plain,zram0"]


# top


def test_top_prints_rounds_where_there_is_no_terminal(run: Run, client: Client, tmp_path: Path) -> None:
    fill(client, "disk", tmp_path)
    once = run("top", "--once")
    assert once.startswith("1 device: 128K of data, ")
    assert "\x1b" not in once
    assert once.splitlines()[-1].split()[0] == "disk"
    rounds = run("top", "--count", "2", "--interval", "0.1").split("\n\n1 device")
    assert len(rounds) == 2
    assert rounds[0].splitlines()[-1].split()[7:10] == ["-", "-", "-"]
    assert rounds[1].splitlines()[-1].split()[7:10] == ["0B", "0B", "0B"]


def test_top_prints_json_a_line_a_round(run: Run, client: Client, tmp_path: Path) -> None:
    fill(client, "disk", tmp_path)
    first, second = map(json.loads, run("top", "--json", "--count", "2", "--interval", "0.1").splitlines())
    (before,), (after,) = first, second
    assert (before["label"], before["data"], before["read"]) == ("disk", 128 << 10, None)
    assert after | {"read": None, "written": None, "written_back": None} == before
    assert (after["read"], after["written"], after["written_back"]) == (0.0, 0.0, 0.0)


def test_top_on_a_terminal_draws_over_itself_and_leaves_the_screen_as_it_was(client: Client, tmp_path: Path) -> None:
    fill(client, "disk", tmp_path)
    master, slave = os.openpty()
    command = [sys.executable, "-m", "zramcore", "top", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=slave, stdin=slave, stderr=subprocess.PIPE) as process:
        os.close(slave)
        shown = b""
        while shown.count(b"\x1b[H") < 3:
            shown += os.read(master, 4096)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while part := os.read(master, 4096):
                shown += part
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    os.close(master)
    assert shown.startswith(b"\x1b[?1049h\x1b[?25l")
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l")
    assert b"1 device: 128K of data" in shown


def test_rates_are_differences_and_a_reset_begins_again() -> None:
    def device(read: int, written: int, back: int) -> dict[str, object]:
        memory = dict.fromkeys(("orig_data_size", "mem_used_total", "huge_pages"), 0)
        io = {"read_sectors": read, "written_sectors": written}
        return {"name": "zram0", "label": "a", "disksize": 1 << 20, "mm_stat": memory, "stat": io,
                "bd_stat": {"bd_count": 0, "bd_writes": back}}  # fmt: skip

    history = History()
    assert history.row(device(0, 0, 0), 10.0)[7:10] == ["-", "-", "-"]
    assert history.row(device(4, 8, 3), 12.0)[7:10] == ["1K", "2K", "6K"]
    assert history.row(device(0, 0, 0), 13.0)[7:10] == ["-", "-", "-"]
    assert history.row(device(2, 0, 0), 14.0)[7:10] == ["1K", "0B", "0B"]


@pytest.mark.parametrize(
    ("values", "bars"),
    [([], ""), ([5], BARS[0]), ([3, 3, 3], BARS[0] * 3), ([0, 7], BARS[0] + BARS[7]), (range(8), BARS)],
)
def test_a_sparkline(values: list[float], bars: str) -> None:
    assert sparkline(values) == bars


def test_a_sparkline_from_zero_shows_a_constant_as_high() -> None:
    assert sparkline([4, 4], 0) == BARS[7] * 2


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (1023, "1023B"), (1024, "1K"), (1536, "1.5K"), (64 << 20, "64M"), (5 << 70, "5120E")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human(size) == text


# map


def test_the_map_has_a_letter_for_each_state(run: Run, client: Client, tmp_path: Path) -> None:
    fill(client, "disk", tmp_path)
    client.store("disk", "writeback", "page_indexes=0-3")
    client.store("disk", "idle", "all")
    client.request("GET", "/sys/block/disk/mm_stat")
    lines = run("map", "disk", "--cells", "64").splitlines()
    cells = "".join(lines[: lines.index("")])
    assert cells == "w" * 4 + "i" * 4 + "s" * 8 + "i" * 16 + "." * 32
    assert lines[-2] == ". empty  s same  c compressed  H huge  i idle  w written back"
    assert lines[-1] == "64 slots: 32 empty, 8 same, 20 idle, 4 written back"
    coloured = run("map", "disk", "--cells", "64", "--color")
    assert coloured.count("\x1b[48;2;135;95;175m") == 4 + 1  # and the legend
    drawn = json.loads(run("map", "disk", "--cells", "4", "--json"))
    assert drawn["counts"][0] == [0, 8, 0, 0, 4, 4]


def test_the_map_as_png(run: Run, client: Client, tmp_path: Path) -> None:
    fill(client, "disk", tmp_path)
    assert (
        run("map", "disk", "--cells", "64", "--png", "map.png") == "64 slots: 32 empty, 8 same, 16 compressed, 8 huge\n"
    )
    width, height, pixels = decoded(Path("map.png").read_bytes())
    assert (width, height) == (128, 128)
    row = [pixels[0][column * 16] for column in range(8)]
    assert row == [LOOK["huge"][1]] * 8
    assert [pixels[line * 16][0] for line in range(8)] == [
        LOOK[state][1] for state in ("huge", "same", "compressed", "compressed", "empty", "empty", "empty", "empty")
    ]
    assert pixels[15][0] == pixels[0][15] == GRID


def decoded(data: bytes) -> tuple[int, int, list[list[tuple[int, int, int]]]]:
    """Width, height and pixels of a PNG of 8-bit RGB without filters; every checksum is checked."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, chunks = 8, {}
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        assert struct.unpack_from(">I", data, position + 8 + length)[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        position += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 2, 0, 0, 0]
    lines = zlib.decompress(chunks[b"IDAT"])
    assert len(lines) == height * (1 + 3 * width)
    pixels = []
    for start in range(0, len(lines), 1 + 3 * width):
        assert lines[start] == 0
        line = lines[start + 1 : start + 1 + 3 * width]
        pixels.append([tuple(line[at : at + 3]) for at in range(0, len(line), 3)])
    return width, height, pixels


def test_small_cells_have_no_grid() -> None:
    assert decoded(png([[(1, 2, 3), (4, 5, 6)]], 1)) == (2, 1, [[(1, 2, 3), (4, 5, 6)]])


@pytest.mark.skipif(shutil.which("file") is None, reason="needs file(1)")
def test_others_take_it_for_a_png(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png([[(0, 0, 0)] * 3] * 2, 4))
    said = subprocess.run(["file", "-b", tmp_path / "a.png"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("PNG image data, 12 x 8, 8-bit/color RGB")


def test_a_cell_shows_what_most_of_its_pages_are() -> None:
    states = list(LOOK)
    assert dominant([100, 0, 0, 0, 0, 0], states) == "empty"
    assert dominant([100, 0, 1, 0, 0, 0], states) == "compressed"
    assert dominant([0, 1, 2, 3, 2, 1], states) == "huge"


# systemd


def test_install_writes_a_unit_its_user_and_its_directories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["systemd", "install", "--root", str(tmp_path), "--program", "/opt/a b/100%/zramcore"]
    assert main(words) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        "etc/systemd/system/zramcore.service",
        "etc/sysusers.d/zramcore.conf",
        "etc/tmpfiles.d/zramcore.conf",
        "etc/zramcore/zramcore.toml",
    ]
    unit = configparser.RawConfigParser(strict=False)
    unit.read(written[0])
    assert unit["Service"]["execstart"].startswith("'/opt/a b/100%%/zramcore' daemon --config ")
    assert unit["Service"]["type"] == "notify"
    assert main(["config", "check", str(written[3])]) == 0
    written[3].write_text("# mine\n")
    assert main(words) == 0
    assert written[3].read_text() == "# mine\n"
    written[0].write_text("[Unit]\n")
    assert main(words) == 1
    assert "exists and is different; --force replaces it" in capsys.readouterr().err
    assert written[0].read_text() == "[Unit]\n"
    assert main([*words, "--force"]) == 0
    assert "ExecStart" in written[0].read_text()


def test_the_unit_starts_a_daemon_with_options_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["systemd", "install", "--root", str(tmp_path)]) == 0
    unit = (tmp_path / "etc/systemd/system/zramcore.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    capsys.readouterr()
    assert main(["daemon", "--help"]) == 0
    printed = capsys.readouterr().out
    for option in re.findall(r"--[a-z-]+", line):
        assert option in printed


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    assert main(["systemd", "install", "--root", str(tmp_path), "--program", "/bin/true", "--kernel"]) == 0
    assert (tmp_path / "etc/systemd/system/zramcore.service.d/kernel.conf").exists()
    unit = tmp_path / "etc/systemd/system/zramcore.service"
    said = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert [line for line in said.stderr.splitlines() if "zramcore.service" in line and "User" not in line] == []
