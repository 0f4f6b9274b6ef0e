"""A daemon whose devices are attached for real, in a place of its own; nothing is left behind whatever a test does."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from zramcore.attach import attachments, detach, tables
from zramcore.attach.programs import find
from zramcore.cli import root
from zramcore.errors import ZramError
from zramcore.testing.daemon import RunningDaemon

PATIENCE = 60.0


def why_not() -> str:
    """Why nothing can be attached on this machine; empty when it can."""
    if os.geteuid() != 0:
        return "attaching needs root"
    missing = [name for name in ("nbdfuse", "fusermount3", "losetup", "blkid", "mkfs.ext4") if find(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    for node in ("/dev/fuse", "/dev/loop-control"):
        try:
            os.close(os.open(node, os.O_RDWR))
        except OSError as error:
            return f"{node} cannot be used: {error.strerror}"
    return ""


@dataclass
class House:
    """A folder for one test: records of attachments in `run`, a daemon when `daemon()` is called."""

    folder: Path
    daemons: list[RunningDaemon] = field(default_factory=list)

    @property
    def records(self) -> Path:
        """The directory of the attachments."""
        return self.folder / "run"

    def daemon(self, *devices: dict[str, Any]) -> RunningDaemon:
        """A daemon with these devices: the keys of a config file, the label as ``name``."""
        running = RunningDaemon(self.folder, "--nbd", f"unix:{self.folder}/nbd.sock")
        self.daemons.append(running)
        with running.client() as client:
            for device in devices:
                table = {key: value for key, value in device.items() if key != "name"}
                client.create(device["name"], table, [], str(self.folder))
        return running

    def cli(self, *words: str) -> Result:
        """A command, as a user gives it."""
        socket = {"ZRAMCORE_SOCKET": str(self.folder / "control.sock")}
        return CliRunner(env=socket).invoke(root, words)

    def ok(self, *words: str) -> str:
        """A command that must succeed; what it printed."""
        result = self.cli(*words)
        assert result.exit_code == 0, f"{words}: {result.output} {result.exception!r}"
        return result.stdout

    def node(self, name: str) -> str:
        """The block node of an attachment."""
        (node,) = [record.node for record in attachments(self.records) if record.name == name]
        assert node is not None
        return node

    def leftovers(self) -> list[str]:
        """Mounts, swaps, loop devices and files of attachments that are still there."""
        found = [mounted.directory for mounted in tables.mounts() if mounted.directory.startswith(str(self.folder))]
        for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
            with suppress(OSError):
                if backing.read_text().startswith(str(self.folder)):
                    found.append(f"/dev/{backing.parts[3]}")
        found += [str(path) for path in self.records.glob("*") if path.suffix != ".lock"]
        return found

    def clean(self) -> None:
        """Undo everything, by force where it must be."""
        for record in attachments(self.records):
            with suppress(ZramError):
                detach(record.name, self.records, force=True)
        for running in self.daemons:
            running.kill()
        for mounted in reversed(tables.mounts()):
            if mounted.directory.startswith(str(self.folder)):
                subprocess.run(["umount", "-l", mounted.directory], timeout=PATIENCE, check=False)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A house on a machine where attaching works."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    monkeypatch.setenv("ZRAMCORE_ATTACH_DIR", str(tmp_path / "run"))
    made = House(tmp_path)
    try:
        yield made
        assert made.leftovers() == []
    finally:
        made.clean()


@pytest.fixture
def needs() -> Callable[..., None]:
    """Skip the test unless these programs are installed."""

    def need(*programs: str) -> None:
        missing = [program for program in programs if find(program) is None]
        if missing:
            pytest.skip(f"{', '.join(missing)} not installed")

    return need


@pytest.fixture
def tool() -> Callable[..., str]:
    """Run a program of the system that must succeed."""

    def run(*words: str, good: Sequence[int] = (0,)) -> str:
        path = find(words[0]) or shutil.which(words[0])
        assert path is not None
        done = subprocess.run([path, *words[1:]], capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode in good, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    return run


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Return once something holds; it must come to hold."""

    def wait(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    return wait
