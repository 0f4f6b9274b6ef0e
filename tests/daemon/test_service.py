"""The life of the daemon as a process: ready, signals, reload, refusals, and what a SIGTERM under load leaves."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from zramcore.cli import main
from zramcore.errors import ZramError
from zramcore.nbd import protocol as nbd

CONFIG = """[device.disk]
disksize = "4M"
comp_algorithm = "lz4"
backing_dev = "file:disk.backing,size=4M"

[device.disk.image]
load = "disk.img"
save = "disk.img"
optional = true
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "zramcore.toml"
    file.write_text(CONFIG)
    return file


def failed_start(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a daemon that does not start says, on stderr; it exits 1 and leaves its folder as it was."""
    before = os.listdir(folder)
    with contextlib.chdir(folder):
        assert main(["daemon", "--socket", str(folder / "control.sock"), *arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert [name for name in os.listdir(folder) if name not in before and not name.endswith(".lock")] == []
    return said.err.splitlines()[-1]


# Start and stop


def test_ready_is_told_when_clients_are_served_and_sigterm_ends_it_with_0(launch, tmp_path, config):
    daemon = launch("--config", "zramcore.toml", "--nbd", "unix:nbd.sock")
    assert daemon.notified[-1].splitlines() == ["READY=1", "STATUS=1 devices"]
    with daemon.client() as client:
        info = client.info()
        assert (info["pid"], info["devices"]) == (daemon.process.pid, ["zram0"])
        assert info["nbd"] == [f"unix:{tmp_path}/nbd.sock"]
        assert client.device("disk")["origin"] == "config"
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o600
    assert daemon.stop() == 0
    daemon_events = [fields["event"] for fields in daemon.events()]
    assert daemon_events[0] == "starting"
    assert daemon_events.index("device_up") < daemon_events.index("api_listening") < daemon_events.index("ready")
    assert daemon_events[-2:] == ["device_removed", "stopped"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix in (".sock", ".img")) == ["disk.img"]
    assert (tmp_path / "disk.img").stat().st_size == 4 << 20


def test_it_loads_no_library_that_nobody_uses(launch):
    """TLS, metrics and tokens are megabytes each: they come when they are asked for."""
    daemon = launch("--nbd", "unix:nbd.sock")
    with daemon.client() as client:
        assert client.devices() == []
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert not any(name in maps for name in ("_ssl", "_hashlib", "libcrypto"))


@pytest.mark.parametrize("package", ["waitress", "prometheus_client"])
def test_a_package_that_is_not_installed_is_named(tmp_path, capsys, monkeypatch, package):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    assert failed_start(tmp_path, capsys) == f"zramcore: the daemon needs {package}: pip install 'zramcore[serve]'"


def test_sigint_ends_it_too_and_the_next_one_takes_over(launch, tmp_path):
    first = launch()
    assert first.stop(signal.SIGINT) == 0
    killed = launch()
    killed.process.kill()
    killed.process.wait()
    assert killed.socket.exists()  # nobody answers on it
    second = launch()
    with second.client() as client:
        assert client.info()["pid"] == second.process.pid
    assert second.stop() == 0


def test_a_second_daemon_on_the_socket_is_refused(launch, tmp_path, capsys):
    first = launch("--nbd", "unix:nbd.sock")
    said = failed_start(tmp_path, capsys)
    assert "serves" in said
    assert "EBUSY" in said
    with first.client() as client:
        assert client.devices() == []
    assert "somebody listens" in failed_start(tmp_path, capsys, "--socket", "other.sock", "--nbd", "unix:nbd.sock")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--http", "tcp:127.0.0.1:0"], "not served over TCP without a token"),
        (["--token-file", "token"], "a token is for the API over TCP"),
        (["--nbd", "tcp:0.0.0.0:0"], "there is no TLS"),
        (["--nbd", "udp:1"], "unix:/path/to/socket or tcp:HOST:PORT"),
        (["--nbd-certificate", "none.pem", "--nbd", "unix:n.sock"], "none.pem"),
        (["--socket-group", "nosuchgroup"], "no group 'nosuchgroup'"),
        (["--config", "missing.toml"], "cannot be read"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, said):
    assert said in failed_start(tmp_path, capsys, *arguments)


def test_a_wrong_config_is_told_problem_by_problem(tmp_path, config, capsys):
    config.write_text(CONFIG.replace("lz4", "lz5") + '[device.two]\nmem_limt = "1M"\n')
    assert main(["daemon", "--socket", str(tmp_path / "c.sock"), "--config", str(config)]) == 1
    first, second, last = capsys.readouterr().err.splitlines()
    assert "event=config_problem" in first
    assert "key=device.disk.comp_algorithm" in first
    assert "key=device.two.mem_limt" in second
    assert last.startswith("zramcore: ")
    assert sorted(os.listdir(tmp_path)) == ["zramcore.toml"]


def test_sigterm_while_an_image_is_loaded_stops_it_and_keeps_the_image(tmp_path, config):
    image = tmp_path / "disk.img"
    image.write_bytes(random.Random(3).randbytes(2 << 20))
    before = image.read_bytes()
    # the signal comes from inside the loading: nothing is left to the scheduler of the machine
    program = (
        "import os, signal, sys\n"
        "from zramcore import deployment\n"
        "load = deployment.load_image\n"
        "def stopped(device, path, cancelled):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return load(device, path, cancelled)\n"
        "deployment.load_image = stopped\n"
        "from zramcore.cli import main\n"
        "sys.exit(main(['daemon', '--config', 'zramcore.toml', '--socket', 'c.sock']))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "event=stopped_early" in result.stderr
    assert "event=ready" not in result.stderr
    assert image.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["c.sock.lock", "disk.img", "zramcore.toml"]


def test_an_image_that_cannot_be_saved_is_exit_status_1_and_said(launch, tmp_path, config):
    config.write_text(
        CONFIG.replace('save = "disk.img"', 'save = "folder/disk.img"').replace('load = "disk.img"\n', "")
    )
    config.write_text(config.read_text().replace("optional = true\n", ""))
    (tmp_path / "folder").mkdir()
    daemon = launch("--config", "zramcore.toml")
    (tmp_path / "folder").rmdir()
    assert daemon.stop() == 1
    (stays,) = daemon.events("device_stays")
    assert stays["label"] == "disk"
    assert "ENOENT" in stays["error"]


def test_signs_of_life_come_within_the_watchdogs_interval(launch):
    daemon = launch(environment={"WATCHDOG_USEC": "200000"})
    for _ in range(3):
        daemon.wait_for("WATCHDOG=1")
    daemon.process.send_signal(signal.SIGTERM)
    daemon.wait_for("STOPPING=1")
    assert daemon.process.wait(30) == 0


def test_the_journal_gets_levels_instead_of_times(launch):
    daemon = launch(environment={"JOURNAL_STREAM": "8:1"})
    assert daemon.stop() == 0
    assert all(line.startswith("<6>level=info event=") for line in daemon.log_file.read_text().splitlines())


def test_the_api_over_tcp_needs_the_token(launch, tmp_path):
    token = tmp_path / "token"
    token.write_text("t" * 32)
    token.chmod(0o600)
    daemon = launch("--http", "tcp:127.0.0.1:0", "--token-file", "token")
    with daemon.client() as client:
        url = client.info()["http"]
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{url}/metrics", timeout=20)
    assert caught.value.code == 401
    caught.value.close()
    request = urllib.request.Request(f"{url}/devices", headers={"Authorization": f"Bearer {'t' * 32}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert json.load(answer) == []
    assert "t" * 32 not in daemon.log_file.read_text()


# Reload


def test_sighup_applies_what_can_be_live_and_refuses_the_rest_with_its_reason(launch, config):
    daemon = launch("--config", "zramcore.toml")
    config.write_text(
        CONFIG.replace('"4M"\ncomp', '"4M"\nmem_limit = "1M"\ncomp').replace("lz4", "zstd")
        + '[device.more]\ndisksize = "1M"\n[daemon]\nnbd = "unix:n.sock"\n'
    )
    with daemon.client() as client:
        planned = client.reload(dry_run=True)
        assert [change["key"] for change in planned] == ["comp_algorithm", "mem_limit", "", "nbd"]
        assert client.info()["devices"] == ["zram0"]
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("RELOADING=1")
        daemon.wait_for("READY=1")
        assert client.info()["devices"] == ["zram0", "zram1"]
        assert client.device("disk")["mm_stat"]["mem_limit"] == 1 << 20
        assert client.device("disk")["comp_algorithm"] == "lz4"
        refused = [(change["kind"], change["key"]) for change in client.reload() if change["refused"]]
        assert refused == [("set", "comp_algorithm"), ("daemon", "nbd")]
    assert daemon.stop() == 0
    changes = daemon.events("reload_change")[:4]
    assert [change["result"] for change in changes] == ["refused", "applied", "applied", "refused"]
    assert (changes[0]["before"], changes[0]["after"]) == ("lz4", "zstd")
    assert "cannot change while the device is initialised" in changes[0]["refused"]
    assert daemon.events("reloaded")[0]["applied"] == "2"


def test_a_wrong_file_changes_nothing_on_sighup(launch, config):
    daemon = launch("--config", "zramcore.toml")
    config.write_text("[device.disk]\ndisksize = 1M\n")
    with daemon.client() as client:
        with pytest.raises(ZramError, match="is not TOML"):
            client.reload()
        assert client.device("disk")["disksize"] == 4 << 20
    daemon.process.send_signal(signal.SIGHUP)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(30) == 0


# SIGTERM under load

PAGE = 4096
CLIENTS = 4
ROUND = 8
"""Pages that a client writes between two flushes."""
REGION = 64
"""Pages of a client's own."""


def page(client: int, index: int, version: int) -> bytes:
    """A page that says what it is; every other one does not compress, so that there is something to write back."""
    stamp = struct.pack(">III", client, index, version)
    noise = random.Random(stamp).randbytes(PAGE - len(stamp)) if index % 2 else stamp * 400
    return (stamp + noise)[:PAGE].ljust(PAGE, b"\0")


class Writer(threading.Thread):
    """Writes rounds of pages over NBD, each followed by a flush, until the server ends it."""

    def __init__(self, path: Path, number: int, rounds: threading.Semaphore) -> None:
        super().__init__()
        self.number = number
        self.rounds = rounds
        self.flushed: dict[int, int] = {}
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(path))
        self._exactly(nbd.GREETING.size)
        self.sock.sendall(nbd.CLIENT_FLAGS.pack(nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES))
        self.sock.sendall(nbd.OPTION.pack(nbd.OPTION_MAGIC, nbd.OPT_EXPORT_NAME, 5) + b"zram0")
        self._exactly(nbd.EXPORT_NAME_REPLY.size)

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.sock.recv(length - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def _replied(self, count: int) -> bool:
        """Receive replies; whether all were without an error."""
        replies = [nbd.SIMPLE_REPLY.unpack(self._exactly(nbd.SIMPLE_REPLY.size)) for _ in range(count)]
        return not any(error for _, error, _ in replies)

    def run(self) -> None:
        version = 0
        try:
            while True:
                version += 1
                written = random.Random(version).sample(range(REGION), ROUND)
                frames = b""
                for index in written:
                    offset = (self.number * REGION + index) * PAGE
                    frames += nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.CMD_WRITE, index, offset, PAGE)
                    frames += page(self.number, index, version)
                self.sock.sendall(frames)
                if not self._replied(ROUND):
                    return
                self.sock.sendall(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.CMD_FLUSH, 0, 0, 0))
                if not self._replied(1):
                    return
                self.flushed |= dict.fromkeys(written, version)
                self.rounds.release()
        except (EOFError, ConnectionError):
            pass  # the server has ended it, as it should
        finally:
            self.sock.close()


HUGE = CONFIG + "[[device.disk.policy]]\nname = 'huge'\nperiod = '50ms'\n"
BOUNDED = (
    CONFIG.replace("[device.disk.image]", 'mem_limit = "128K"\nmem_limit_wait = 10000\n[device.disk.image]')
    + "[[device.disk.policy]]\nname = 'watermark'\n"
)
"""The clients write four times as much as there is memory for: some of them always wait for a pass."""


@pytest.mark.parametrize("text", [HUGE, BOUNDED], ids=["huge", "bounded"])
def test_what_was_flushed_before_a_sigterm_under_load_is_in_the_image(launch, tmp_path, config, text):
    config.write_text(text)
    daemon = launch("--config", "zramcore.toml", "--nbd", "unix:nbd.sock")
    rounds = threading.Semaphore(0)
    writers = [Writer(tmp_path / "nbd.sock", number, rounds) for number in range(CLIENTS)]
    for writer in writers:
        writer.start()
    with daemon.client() as client:
        for number in range(60):
            assert rounds.acquire(timeout=30)
            if number % 20 == 10:
                client.store("disk", "writeback", "huge")
        assert client.device("disk")["bd_stat"]["bd_writes"] > 0
    assert daemon.stop() == 0
    for writer in writers:
        writer.join(30)
        assert not writer.is_alive()
        assert writer.flushed
    image = (tmp_path / "disk.img").read_bytes()
    checked = 0
    for writer in writers:
        for index, version in writer.flushed.items():
            offset = (writer.number * REGION + index) * PAGE
            found = image[offset : offset + PAGE]
            kept = struct.unpack_from(">III", found)
            assert kept[:2] == (writer.number, index)
            assert kept[2] >= version  # a later write may have been on its way
            assert found == page(*kept)
            checked += 1
    assert checked > CLIENTS * ROUND
    assert daemon.events("nbd_request_failed") == []
    again = launch("--config", "zramcore.toml")
    with again.client() as client:
        assert client.device("disk")["mm_stat"]["mem_used_max"] <= (160 << 10 if text == BOUNDED else 4 << 20)
    assert again.stop() == 0
    assert (tmp_path / "disk.img").read_bytes() == image


# What outlives it


def test_what_was_written_today_counts_after_a_restart(launch, tmp_path):
    (tmp_path / "disk.img").write_bytes(random.Random(1).randbytes(100 * 4096))
    (tmp_path / "zramcore.toml").write_text(
        "writes_per_day = '160K'\n[device.disk]\ndisksize = '1M'\nbacking_dev = 'file:b,size=1M'\n"
        "image = {load = 'disk.img'}\npolicy = [{name = 'huge'}]\n"
    )
    written = []
    for _ in range(2):
        daemon = launch("--config", "zramcore.toml", "--state", "state.json")
        with daemon.client() as client:
            while not (device := client.device("disk"))["policies"][0]["ticks"]:
                assert daemon.process.poll() is None
        written.append((device["bd_stat"]["bd_writes"], device["writes_left"]))
        assert daemon.stop() == 0
    assert written == [(40, 0), (0, 0)]
    decisions = [event["decision"] for event in daemon.events("policy")]
    assert decisions == [f"writing back huge pages, wrote {size}, freed {size}, stopped: budget used up"
                         for size in ("160 KiB", "0 B")]  # fmt: skip
