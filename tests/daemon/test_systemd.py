"""The packaged unit under a real systemd: PID 1 of namespaces of its own, with only our units."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from zramcore.daemon.client import Client

SYSTEMD = Path("/lib/systemd/systemd")
PROGRAMS = ("unshare", "nsenter", "systemctl", "systemd-sysusers", "systemd-tmpfiles", "nbdcopy", "mount")
NAMESPACES = ("--fork", "--pid", "--mount", "--uts", "--ipc", "--cgroup")
PATIENCE = 60.0
CGROUPS = Path("/sys/fs/cgroup")
OURS = ("init.scope", "system.slice")
"""What systemd makes below the cgroup that it starts in."""

BOOT = """
mount --make-rprivate /
mount -t tmpfs tmpfs /run
cp -a /etc {base}/etc
rm -rf {base}/etc/systemd
mkdir -p {base}/etc/systemd/system {base}/lib
printf '[Manager]\\nDefaultTasksAccounting=no\\nDefaultMemoryAccounting=no\\n' > {base}/etc/systemd/system.conf
mount --bind {base}/etc /etc
mount --bind {base}/lib /var/lib
export SYSTEMD_UNIT_PATH={base}/units:/etc/systemd/system container=test
exec {systemd} --system --unit=multi-user.target --show-status=0 --log-target=null
"""
TARGETS = ("sysinit", "basic", "shutdown", "local-fs", "umount", "final", "sockets", "multi-user")
DROP_IN = """[Service]
# The interpreter that runs the tests may lie in a home that no other user can enter.
User=root
Group=root
ProtectHome=no
WatchdogSec=2
StandardError=append:{base}/daemon.log
"""
SOCKET = """[Socket]
ListenStream=/run/zramcore/nbd.sock
FileDescriptorName=nbd
"""
CONFIG = """[device.disk]
disksize = "64M"
comp_algorithm = "zstd"
mem_limit = "{limit}"

[device.disk.image]
load = "/var/lib/zramcore/disk.img"
save = "/var/lib/zramcore/disk.img"
optional = true
"""


class Machine:
    """What runs in the namespaces of a systemd."""

    def __init__(self, base: Path, pid: int) -> None:
        self.base, self.pid = base, pid
        self.root = Path(f"/proc/{pid}/root")

    def run(self, *words: str) -> str:
        """Run a command in there; what it printed."""
        inside = ["nsenter", "-t", str(self.pid), "-p", "-m", "-u", "-i", "-C", *words]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.log()}"
        return done.stdout

    def log(self) -> str:
        file = self.base / "daemon.log"
        return file.read_text() if file.exists() else ""

    def shown(self, *properties: str) -> dict[str, str]:
        """Properties of the service."""
        lines = self.run("systemctl", "show", "zramcore", "-p", ",".join(properties)).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def wait_for(self, **wanted: str) -> None:
        """Wait until the service has these properties."""
        for _ in range(int(PATIENCE / 0.1)):
            if self.shown(*wanted) == wanted:
                return
            threading.Event().wait(0.1)
        pytest.fail(f"{wanted} did not come: {self.shown(*wanted)}\n{self.log()}")

    def uri(self) -> str:
        return f"nbd+unix:///zram0?socket={self.root}/run/zramcore/nbd.sock"

    def client(self) -> Client:
        return Client(f"{self.root}/run/zramcore/control.sock")


def cgroups_of_systemd() -> set[Path]:
    """The cgroups that a systemd started here has, in every hierarchy."""
    with Path("/proc/self/cgroup").open() as file:
        here = {line.rstrip("\n").split(":", 2)[2].lstrip("/") for line in file}
    return {
        below
        for hierarchy in (CGROUPS, *CGROUPS.glob("*/"))
        for path in here
        for name in OURS
        if (below := hierarchy / path / name).is_dir()
    }


def remove_cgroups(groups: set[Path]) -> None:
    """Remove cgroups as soon as nothing runs in them any more."""
    for _ in range(int(PATIENCE / 0.1)):
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        if not any(group.exists() for group in groups):
            return
        threading.Event().wait(0.1)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A systemd with our unit installed as the manual says, and with a socket unit for it."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or not SYSTEMD.exists():
        pytest.skip(f"needs {', '.join(missing) or SYSTEMD}")
    if subprocess.run(["unshare", *NAMESPACES, "--mount-proc", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs leave to make namespaces")
    base = tmp_path_factory.mktemp("machine")
    units = base / "units"
    units.mkdir()
    for target in TARGETS:
        (units / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    (base / "boot").write_text(BOOT.format(base=base, systemd=SYSTEMD))
    before = cgroups_of_systemd()
    with (base / "boot.log").open("wb") as log:
        boot = ["unshare", *NAMESPACES, "--mount-proc", "--kill-child", "sh", "-e", str(base / "boot")]
        process = subprocess.Popen(boot, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield booted(base, process)
    finally:
        process.kill()
        process.wait()
        remove_cgroups(cgroups_of_systemd() - before)


def booted(base: Path, process: subprocess.Popen[bytes]) -> Machine:
    """The machine, once its systemd answers and zramcore is installed."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for _ in range(int(PATIENCE / 0.1)):
        threading.Event().wait(0.1)
        if process.poll() is not None:
            pytest.skip(f"systemd does not start in a namespace here: {(base / 'boot.log').read_text()}")
        pids = children.read_text().split()
        if not pids:
            continue
        machine = Machine(base, int(pids[0]))
        with contextlib.suppress(AssertionError):
            machine.run("systemctl", "show", "-p", "Version")
            break
    else:
        pytest.skip(f"systemd does not answer in a namespace here: {(base / 'boot.log').read_text()}")
    program = base / "zramcore"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m zramcore "$@"\n')
    program.chmod(0o755)
    machine.run(str(program), "systemd", "install", "--program", str(program))
    etc = machine.root / "etc"
    (etc / "systemd/system/zramcore.service.d").mkdir()
    (etc / "systemd/system/zramcore.service.d/test.conf").write_text(DROP_IN.format(base=base))
    (etc / "systemd/system/zramcore.socket").write_text(SOCKET)
    (etc / "zramcore/zramcore.toml").write_text(CONFIG.format(limit="48M"))
    machine.run("systemd-sysusers")
    machine.run("systemd-tmpfiles", "--create", "zramcore.conf")
    machine.run("systemctl", "daemon-reload")
    return machine


def test_the_packaged_unit_serves_reloads_comes_back_and_keeps_its_data(machine: Machine, tmp_path: Path) -> None:
    owner = (machine.root / "run/zramcore").stat()
    assert (owner.st_mode & 0o777, owner.st_uid) == (0o750, (machine.root / "var/lib/zramcore").stat().st_uid)
    assert owner.st_uid != 0
    machine.run("systemctl", "enable", "--now", "zramcore.socket", "zramcore")
    assert machine.shown("ActiveState", "StatusText") == {"ActiveState": "active", "StatusText": "1 devices"}

    # NBD on the socket that systemd passed
    data = tmp_path / "data"
    data.write_bytes(random.Random(5).randbytes(1 << 20) + bytes(63 << 20))
    subprocess.run(["nbdcopy", data, machine.uri()], check=True)

    (machine.root / "etc/zramcore/zramcore.toml").write_text(CONFIG.format(limit="40M"))
    machine.run("systemctl", "reload", "zramcore")
    with machine.client() as client:
        assert client.show("disk", "mm_stat").split()[3] == str(40 << 20)

    machine.run("systemctl", "restart", "zramcore")
    copy = tmp_path / "copy"
    subprocess.run(["nbdcopy", machine.uri(), copy], check=True)
    assert copy.read_bytes() == data.read_bytes()

    machine.run("kill", "-KILL", machine.shown("MainPID")["MainPID"])
    machine.wait_for(NRestarts="1", ActiveState="active")
    copy.unlink()
    subprocess.run(["nbdcopy", machine.uri(), copy], check=True)
    assert copy.read_bytes() == data.read_bytes()

    machine.run("systemctl", "stop", "zramcore.socket", "zramcore")
    stopped = machine.shown("ActiveState", "Result", "ExecMainStatus")
    assert stopped == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}


def test_the_watchdog_restarts_a_daemon_that_hangs(machine: Machine) -> None:
    machine.run("systemctl", "start", "zramcore")
    before = machine.shown("NRestarts", "MainPID")
    machine.run("kill", "-STOP", before["MainPID"])
    machine.wait_for(NRestarts=str(int(before["NRestarts"]) + 1), ActiveState="active")
    assert machine.shown("MainPID")["MainPID"] != before["MainPID"]
    machine.run("systemctl", "stop", "zramcore")
    assert machine.shown("Result") == {"Result": "success"}
