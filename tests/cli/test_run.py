"""`zramcore run`: in process with --once and --duration, and as a process that gets signals."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from zramcore.cli.run import command
from zramcore.errors import DeviceBusy

CONFIG = """[device.zram0]
disksize = "4M"
backing_dev = "file:b.img,size=1M"
image = {load = "disk.img", save = "disk.img", optional = true}
"""
PROGRAM = "from zramcore.cli.run import command; command()"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "disk.img").write_bytes(random.Random(5).randbytes(64 << 10))
    return tmp_path


def write(folder: Path, text: str) -> str:
    file = folder / "run.toml"
    file.write_text(text)
    return str(file)


def saved(folder: Path) -> bool:
    """Whether the image was saved, and right."""
    return (folder / "disk.img").read_bytes() == random.Random(5).randbytes(64 << 10).ljust(4 << 20, b"\0")


def test_once_brings_up_runs_a_round_and_shuts_down(folder: Path) -> None:
    file = write(folder, f"{CONFIG}policy = [{{name = 'idle'}}, {{name = 'huge'}}, {{name = 'none'}}]\n")
    result = CliRunner().invoke(command, [file, "--once"], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "zram0: 4194304 bytes, 65536 bytes loaded",
        "ready: 1 device, 3 policies",
        "zram0 idle: marking every page idle",
        "zram0 huge: writing back huge pages, wrote 64 KiB, freed 64 KiB, stopped: nothing left",
        f"zram0: saved {folder}/disk.img, 65536 bytes stored",
        "stopped",
    ]
    assert saved(folder)


def test_verbose_prints_decisions_to_do_nothing(folder: Path) -> None:
    file = write(folder, f"{CONFIG}policy = [{{name = 'none'}}]\n")
    result = CliRunner().invoke(command, [file, "--once", "-v"], catch_exceptions=False)
    assert "zram0 none: nothing to do" in result.stdout.splitlines()


def test_duration_ends_it_and_policies_run_meanwhile(folder: Path) -> None:
    file = write(folder, f"{CONFIG}policy = [{{name = 'idle', age = '50ms'}}]\n")
    handler = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(command, [file, "--duration", "0.4"], catch_exceptions=False)
    assert result.exit_code == 0
    decided = "writing back idle pages untouched since the last round, then marking every page idle"
    assert f"zram0 idle: {decided}, wrote 64 KiB, freed 64 KiB, stopped: nothing left" in result.stdout
    assert result.stdout.splitlines()[-1] == "stopped"
    assert saved(folder)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_wrong_config_changes_nothing(folder: Path) -> None:
    result = CliRunner().invoke(command, [write(folder, f"{CONFIG}mem_limt = '1M'\n")])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "device.zram0.mem_limt: is not a key of a device; did you mean 'mem_limit'?" in result.stderr
    assert not (folder / "b.img").exists()


def test_an_error_of_the_start_is_raised_for_the_top_level(folder: Path) -> None:
    from zramcore.control import Control
    from zramcore.pluginmanager import load_plugins
    from zramcore.registry import build_catalogue

    control = Control(build_catalogue(load_plugins()))
    control.hot_add()
    control.target("zram0").store("backing_dev", f"file:{folder}/b.img,size=1M")
    result = CliRunner().invoke(command, [write(folder, CONFIG), "--once"])
    assert isinstance(result.exception, DeviceBusy)
    assert result.exception.attribute == "zram0/backing_dev"
    assert "ready" not in result.stdout
    control.hot_remove(0)


def test_once_and_duration_exclude_each_other(folder: Path) -> None:
    result = CliRunner().invoke(command, [write(folder, CONFIG), "--once", "--duration", "1"])
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr


# As a process -----------------------------------------------------------------------------------------------------


@pytest.fixture
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`run` that has printed its ready line."""
    file = write(folder, f"{CONFIG}policy = [{{name = 'none'}}]\n")
    with subprocess.Popen([sys.executable, "-c", PROGRAM, file], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any(line == "ready: 1 device, 1 policy\n" for line in lines)
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(running: subprocess.Popen[str], folder: Path, number: signal.Signals) -> None:
    running.send_signal(number)
    output, _ = running.communicate(timeout=30)
    assert running.returncode == 0
    assert output.splitlines() == [f"zram0: saved {folder}/disk.img, 65536 bytes stored", "stopped"]
    assert saved(folder)


SLOW_SAVE = """
import os, sys, threading
from zramcore import image
from zramcore.cli.run import command
rename = os.replace
def wait_for_the_test(*args):
    print("saving", flush=True)
    sys.stdin.readline()
    rename(*args)
image.os.replace = wait_for_the_test
command()
"""


def test_a_second_signal_while_saving_does_not_hurt_the_image(folder: Path) -> None:
    before = (folder / "disk.img").read_bytes()
    file = write(folder, CONFIG)
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_SAVE, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in iter(process.stdout.readline, ""):
            if line.startswith("ready"):
                process.send_signal(signal.SIGINT)
            if line == "saving\n":
                break
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert (folder / "disk.img").read_bytes() == before
        output, _ = process.communicate("go\n", timeout=30)
    assert process.returncode == 0
    assert output.splitlines()[-1] == "stopped"
    assert saved(folder)
    assert sorted(os.listdir(folder)) == ["b.img", "disk.img", "run.toml"]


def test_a_kill_while_saving_leaves_the_old_image(folder: Path) -> None:
    before = (folder / "disk.img").read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_SAVE, write(folder, CONFIG), "--once"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(line == "saving\n" for line in iter(process.stdout.readline, ""))
        process.kill()
    assert (folder / "disk.img").read_bytes() == before
