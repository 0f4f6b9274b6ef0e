"""A running device by its name: the daemon's first, the kernel's where it may be that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zramcore.cli.targets import DaemonTarget, find_target
from zramcore.daemon.client import Client, NoDaemon
from zramcore.errors import NoBackingDevice
from zramcore.kernel import KernelDevice
from zramcore.testing.sysfs import make_sysfs


class Daemon(Client):
    """A daemon that has a device of its own, zram0, called disk, and the kernel's zram1, called swap."""

    def __init__(self, *, running: bool = True) -> None:
        super().__init__("nowhere")
        self.running = running

    def device(self, name: str) -> dict[str, Any]:
        if not self.running:
            raise NoDaemon("no daemon answers")
        if name in ("zram0", "disk"):
            return {"name": "zram0", "label": "disk", "page_size": 16384, "target": "zramcore"}
        if name == "swap":
            return {"name": "kernel:zram1", "label": "swap", "page_size": 4096, "target": "kernel"}
        raise NoBackingDevice(f"there is no device {name!r}")


@pytest.fixture(autouse=True)
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with zram0 and zram1."""
    monkeypatch.setenv("ZRAMCORE_SYSFS", str(make_sysfs(tmp_path, ["zram0", "zram1"])))


@pytest.mark.parametrize("name", ["zram0", "disk"])
def test_the_daemons_device_comes_first(name: str) -> None:
    target = find_target(Daemon(), name)
    assert isinstance(target, DaemonTarget)
    assert (target.name, target.label, target.page_size) == ("zram0", "disk", 16384)


@pytest.mark.parametrize(("name", "running"), [("kernel:zram1", True), ("/dev/zram1", True), ("swap", True),
                                               ("zram1", True), ("zram1", False)])  # fmt: skip
def test_the_kernels_device_by_all_its_names(name: str, running: bool) -> None:
    target = find_target(Daemon(running=running), name)
    assert isinstance(target, KernelDevice)
    assert target.name == "zram1"


def test_only_a_device_that_was_asked_for_by_name_is_the_kernels() -> None:
    with pytest.raises(NoDaemon):
        find_target(Daemon(running=False), "zram0", kernel=False)
    with pytest.raises(NoBackingDevice, match="no device 'zram1'"):
        find_target(Daemon(), "zram1", kernel=False)


def test_a_device_that_nobody_has_says_so() -> None:
    with pytest.raises(NoBackingDevice, match=r"'zram7'.*no daemon answers.*there is no "):
        find_target(Daemon(running=False), "zram7")
    with pytest.raises(NoBackingDevice, match="no device 'other'"):
        find_target(Daemon(), "other")
