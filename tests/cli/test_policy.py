"""`zramcore policy simulate`, `example` and `preview`, and `zramcore record`, with a real daemon for the last two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zramcore.cli import main
from zramcore.daemon.client import Client
from zramcore.simulation.trace import load_trace
from zramcore.testing.daemon import PATIENCE, RunningDaemon
from zramcore.testing.sysfs import make_sysfs

Run = Callable[..., str]

CONFIG = """
[device.zram0]
disksize = "2M"
comp_algorithm = "lz4"
recomp_algorithm = ["algo=zstd priority=1"]
backing_dev = "file:backing.img,size=2M"

[[device.zram0.policy]]
name = "idle"
age = "2h"
period = "1h"

[[device.zram0.policy]]
name = "huge"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a config and a trace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZRAMCORE_SOCKET", str(tmp_path / "none.sock"))
    (tmp_path / "config.toml").write_text(CONFIG)
    assert main(["policy", "example", "-o", "trace", "--size", "2M", "--duration", "1d", "--accesses", "3000"]) == 0
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must succeed (with `fails`, that must end so); what it printed (on stderr)."""

    def run(*words: str, fails: int = 0) -> str:
        capsys.readouterr()
        assert main(list(words)) == fails
        printed = capsys.readouterr()
        if fails:
            assert printed.err.count("\n") == 1 or fails == 2, printed.err
        return printed.err if fails else printed.out

    return run


# simulate -------------------------------------------------------------------------------------------------------------


def test_policies_are_shown_side_by_side(run: Run) -> None:
    head, columns, *rows = run("policy", "simulate", "trace", "config.toml").splitlines()
    assert head == "example, seed 1: 3000 accesses to 512 pages in 24 h; zram0: lz4, zstd"
    assert columns.split() == ["policy", "memory", "peak", "at", "end", "saved", "of", "best", "written", "a", "day",
                               "re-reads", "waited"]  # fmt: skip
    assert [row.split()[0] for row in rows] == ["no", "idle", "huge", "together"]
    assert rows[0].split()[-6:] == ["0%", "0B", "0B", "0", "0.00", "s"]
    assert all(row.split()[-5] != "0B" for row in rows[1:])


def test_json_has_everything(run: Run) -> None:
    found = json.loads(run("policy", "simulate", "trace", "config.toml", "--json", "--latency", "1ms"))
    assert found["trace"]["accesses"] == 3000
    nothing, idle, *_ = found["results"]
    assert nothing["saved"] == pytest.approx(0, abs=1e-9)
    assert 0 < idle["saved"] <= idle["best"] <= 1
    assert idle["waited"] == pytest.approx(idle["rereads"] / 1000)
    assert idle["activity"]["idle"]["rounds"] == 25
    assert [len(column) for column in idle["series"].values()] == [481] * 5
    assert idle["series"]["written"][-1] * 4096 == idle["written"]
    assert idle["series"]["memory"][-1] == idle["end_memory"]


def test_the_same_seeds_give_the_same_table(run: Run) -> None:
    words = ("policy", "simulate", "trace", "config.toml", "-v")
    assert run(*words) == run(*words)
    assert run(*words, "--seed", "2") != run(*words)
    assert "idle: idle: 25 looks, 25 rounds" in run(*words)


def test_nothing_is_created(run: Run, folder: Path) -> None:
    run("policy", "simulate", "trace", "config.toml")
    assert sorted(file.name for file in folder.iterdir()) == ["config.toml", "trace"]


@pytest.mark.parametrize(("name", "begins"), [("out.png", b"\x89PNG"), ("out.svg", b"<?xml"), ("out.pdf", b"%PDF")])
def test_a_plot_is_drawn(run: Run, folder: Path, name: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (pip install 'zramcore[plot]')")
    run("policy", "simulate", "trace", "config.toml", "--plot", name)
    assert (folder / name).read_bytes().startswith(begins)


def test_a_plot_of_no_known_kind_is_refused(run: Run) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (pip install 'zramcore[plot]')")
    assert ".png" in run("policy", "simulate", "trace", "config.toml", "--plot", "out.doc", fails=1)


def test_without_matplotlib_the_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    printed = run("policy", "simulate", "trace", "config.toml", "--plot", "out.png", fails=1)
    assert "pip install 'zramcore[plot]'" in printed
    assert printed.count("\n") == 1


def test_sizes_are_measured_on_the_users_data(run: Run, folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "random").write_bytes(os.urandom(1 << 18))
    found = json.loads(run("policy", "simulate", "trace", "config.toml", "--sizes", "data", "--json"))
    assert found["results"][0]["peak_memory"] >= 512 * 4096, "nothing compresses"
    (folder / "data" / "random").write_bytes(b"")
    assert "no data" in run("policy", "simulate", "trace", "config.toml", "--sizes", "data", fails=1)
    assert "nowhere" in run("policy", "simulate", "trace", "config.toml", "--sizes", "nowhere", fails=1)


def test_a_trace_without_times_is_stretched(run: Run, folder: Path) -> None:
    (folder / "log").write_text("fio version 2 iolog\nf add\nf open\nf write 0 8192\n")
    assert "--over 1h" in run("policy", "simulate", "log", "config.toml", fails=1)
    assert "2 accesses to 2 pages in 2 h" in run("policy", "simulate", "log", "config.toml", "--over", "2h")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("2M", "1M"), "the trace reaches byte 2097152, zram0 ends at 1048576"),
        (('"lz4"', '"store"'), "nobody measured the sizes of store"),
        (("[device.zram0]", "[device.zram0]\npage_size = 16384"), "nobody measured the sizes of pages of 16384 bytes"),
        (('age = "2h"', 'age = "soon"'), "age"),
    ],
)
def test_what_cannot_be_simulated_says_why(run: Run, folder: Path, change: tuple[str, str], reason: str) -> None:
    (folder / "config.toml").write_text(CONFIG.replace(*change))
    assert reason in run("policy", "simulate", "trace", "config.toml", fails=1)


def test_a_device_of_several_is_named(run: Run, folder: Path) -> None:
    (folder / "config.toml").write_text(CONFIG + '\n[device.other]\ndisksize = "4M"\n')
    assert "--device NAME, one of zram0, other" in run("policy", "simulate", "trace", "config.toml", fails=1)
    assert "no policy" in run("policy", "simulate", "trace", "config.toml", "--device", "other")
    assert "no device 'third'" in run("policy", "simulate", "trace", "config.toml", "--device", "third", fails=1)


def test_policies_of_the_kernels_devices_are_simulated_too(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "config.toml").write_text(
        '[device.zram0]\ntarget = "kernel"\ndevice = "zram0"\n\n[[device.zram0.policy]]\nname = "idle_or_huge"\n'
        'age = "1h"\nperiod = "1h"\n'
    )
    monkeypatch.setenv("ZRAMCORE_SYSFS", str(make_sysfs(folder / "sys")))
    (folder / "sys/block/zram0/initstate").write_text("1\n")
    (folder / "sys/block/zram0/disksize").write_text("2097152\n")
    (folder / "sys/block/zram0/backing_dev").write_text("/dev/sdb\n")
    printed = run("policy", "simulate", "trace", "config.toml", "-v")
    assert "idle_or_huge: idle_or_huge: 25 looks, 25 rounds" in printed


@pytest.mark.parametrize(
    "words",
    [
        ("simulate", "trace"),
        ("simulate", "trace", "config.toml", "--over", "soon"),
        ("simulate", "trace", "config.toml", "--ram", "big"),
        ("example",),
        ("example", "-o", "x", "--duration", "0"),
    ],
)
def test_wrong_usage_is_status_2(run: Run, words: tuple[str, ...]) -> None:
    assert "Usage: " in run("policy", *words, fails=2)


@pytest.mark.parametrize(("option", "value"), [("--duration", "1h"), ("--size", "4K")])
def test_an_example_that_is_too_small_is_refused(run: Run, option: str, value: str) -> None:
    assert "too s" in run("policy", "example", "-o", "x", option, value, fails=1)


# preview and record ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with RunningDaemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture
def client(daemon: RunningDaemon, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of the daemon, which has a device like the config's, called disk, without policies."""
    monkeypatch.setenv("ZRAMCORE_SOCKET", str(daemon.socket))
    table: dict[str, Any] = {
        "disksize": "2M", "comp_algorithm": "lz4", "backing_dev": f"file:{folder}/backing.img,size=2M",
    }  # fmt: skip
    with daemon.client() as client:
        client.create("disk", table, [], str(folder))
        yield client
        client.remove("disk", save=False)


def test_a_preview_of_the_daemons_device(run: Run, client: Client) -> None:
    printed = run("policy", "preview", "config.toml", "--target", "disk")
    assert printed.startswith("zram0 of the daemon: 0 B stored, 0 pages in memory")
    assert "  now: writing back huge pages, would write and free nothing\n    writeback = huge\n" in printed
    found = json.loads(run("policy", "preview", "config.toml", "--target", "disk", "--json"))
    assert [policy["policy"] for policy in found[0]["policies"]] == ["idle", "huge"]
    assert found[0]["policies"][0]["steps"][0]["writes"][0] == {"attribute": "idle", "value": "7200", "ends": ""}


def test_a_preview_of_a_device_that_is_not_there(run: Run, client: Client) -> None:
    assert "no device" in run("policy", "preview", "config.toml", "--target", "nothing", fails=1)


def test_a_preview_without_a_daemon(run: Run) -> None:
    assert "no daemon answers" in run("policy", "preview", "config.toml", fails=1)


def test_a_preview_of_the_kernels_device(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_sysfs(folder / "sys")
    (root / "block/zram0/disksize").write_text("2097152\n")
    (root / "block/zram0/backing_dev").write_text("/dev/sdb\n")
    monkeypatch.setenv("ZRAMCORE_SYSFS", str(root))
    printed = run("policy", "preview", "config.toml", "--target", "zram0")
    assert printed.startswith("zram0 of the kernel: 8 KiB stored, 2 pages in memory, 80 MiB used")
    assert "would write 4 KiB (1 blocks)" in printed


def test_a_recording_is_replayed(run: Run, client: Client, folder: Path) -> None:
    printed = run("record", "disk", "-o", "recording", "--period", "20ms", "--duration", "100ms")
    assert printed.startswith("recording zram0 every 0.02 s: 0 pages at the start\n")
    trace = load_trace(folder / "recording")
    assert trace.nr_pages == 512
    assert 0.05e6 < trace.end < 10e6
    assert "File exists" in run("record", "disk", "-o", "recording", fails=1), "nothing is overwritten"
    assert "has no accesses" in run("policy", "simulate", "recording", "config.toml", fails=1)


def test_a_signal_ends_a_recording(client: Client, folder: Path) -> None:
    command = [sys.executable, "-m", "zramcore", "record", "disk", "-o", "recording", "--period", "50ms"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("recording zram0")
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read().startswith("recording: 0 accesses")
        assert process.wait(PATIENCE) == 0


def test_a_kernel_without_block_state_is_recorded_by_blktrace(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZRAMCORE_SYSFS", str(make_sysfs(folder / "sys", missing=["block_state"])))
    printed = run("record", "zram0", "-o", "recording", fails=1)
    assert "CONFIG_ZRAM_MEMORY_TRACKING" in printed
    assert "blktrace -d /dev/zram0" in printed
    assert not (folder / "recording").exists()
