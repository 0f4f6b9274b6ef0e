"""Opening, locking and sizing: the same for all three drivers, and nothing left behind by a failure."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from zramcore.errors import DeviceBusy, InvalidValue, ZramError
from zramcore.interfaces import BackingSpec
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue
from zramcore.testing.backing import closing, page
from zramcore_plugins.backing import DirectDriver, FileDriver, MmapDriver
from zramcore_plugins.backing.driver import MediumDriver
from zramcore_plugins.backing.medium import Medium

DRIVERS: dict[str, type[MediumDriver]] = {"file": FileDriver, "direct": DirectDriver, "mmap": MmapDriver}
every_driver = pytest.mark.parametrize("kind", DRIVERS.values(), ids=DRIVERS)


def size_of(path: Path) -> int:
    return path.stat().st_size


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_built_ins_are_registered() -> None:
    catalogue = build_catalogue(load_plugins())
    assert {name: catalogue.backing_drivers[name] for name in DRIVERS} == DRIVERS


# What is opened ---------------------------------------------------------------------------------------------------


@every_driver
def test_paths_that_cannot_be_opened(kind: type[MediumDriver], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    cases = [
        ("missing", {}, errno.ENOENT),
        ("no/such/folder", {"size": "1M"}, errno.ENOENT),
        ("", {}, errno.EISDIR),
        ("", {"size": "1M"}, errno.EISDIR),
        ("fifo", {}, errno.ENOTBLK),
        ("/dev/null", {}, errno.ENOTBLK),
    ]
    for name, options, number in cases:
        with pytest.raises(ZramError) as caught:
            kind(BackingSpec(str(tmp_path / name), options))
        assert (name, caught.value.errno) == (name, number)
    assert os.listdir(tmp_path) == ["fifo"]


def test_missing_file_hints_at_size(tmp_path: Path) -> None:
    with pytest.raises(ZramError) as caught:
        FileDriver(BackingSpec(str(tmp_path / "missing")))
    assert "size=" in caught.value.hint


@every_driver
def test_dangling_link_is_not_followed_to_create(kind: type[MediumDriver], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(ZramError) as caught:
        kind(BackingSpec(str(tmp_path / "link"), {"size": "1M"}))
    assert caught.value.errno == errno.EEXIST
    assert os.listdir(tmp_path) == ["link"]


@contextmanager
def unprivileged() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@every_driver
def test_read_only_file(kind: type[MediumDriver]) -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path cannot be searched by others
        os.chmod(name, 0o755)
        path = Path(name) / "disk"
        path.write_bytes(page(1, 4096))
        path.chmod(0o444)
        with unprivileged(), pytest.raises(ZramError) as caught:
            kind(BackingSpec(str(path)))
        assert caught.value.errno == errno.EACCES
        assert path.read_bytes() == page(1, 4096)


# How long it is ---------------------------------------------------------------------------------------------------


@every_driver
def test_smaller_than_a_block(kind: type[MediumDriver], tmp_path: Path) -> None:
    (tmp_path / "tiny").write_bytes(bytes(4095))
    (tmp_path / "empty").touch()
    for name, options in [("tiny", {}), ("empty", {}), ("tiny", {"size": "4095"}), ("new", {"size": "4095"})]:
        with pytest.raises(InvalidValue, match="less than one block"):
            kind(BackingSpec(str(tmp_path / name), options))
    assert sorted(os.listdir(tmp_path)) == ["empty", "tiny"]
    assert size_of(tmp_path / "tiny") == 4095
    assert size_of(tmp_path / "empty") == 0


@every_driver
def test_odd_length_is_rounded_down(kind: type[MediumDriver], tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(bytes(3 * 4096 - 1))
    with closing(kind(BackingSpec(str(path)))) as driver:
        assert driver.nr_blocks == 2
        driver.write_blocks(0, [page(0, 4096), page(1, 4096)])
    assert size_of(path) == 3 * 4096 - 1


@every_driver
@pytest.mark.parametrize("size", ["", "0", "-1", "many", "1.5M", "1M ", "64MB", str(1 << 63)])
def test_bad_size(kind: type[MediumDriver], tmp_path: Path, size: str) -> None:
    with pytest.raises(InvalidValue, match="size="):
        kind(BackingSpec(str(tmp_path / "disk"), {"size": size}))
    assert os.listdir(tmp_path) == []


@every_driver
@pytest.mark.parametrize(("text", "blocks"), [("64K", 16), ("65536", 16), ("0x10000", 16), ("1m", 256)])
def test_size(kind: type[MediumDriver], tmp_path: Path, text: str, blocks: int) -> None:
    path = tmp_path / "disk"
    with closing(kind(BackingSpec(str(path), {"size": text}))) as driver:
        assert driver.nr_blocks == blocks
    assert size_of(path) == blocks * 4096
    assert path.stat().st_mode & 0o777 == 0o600


@every_driver
def test_existing_file_keeps_what_it_holds(kind: type[MediumDriver], tmp_path: Path) -> None:
    """A longer size= lengthens it, a shorter one uses its beginning."""
    path = tmp_path / "disk"
    path.write_bytes(page(1, 8192))
    with closing(kind(BackingSpec(str(path), {"size": "64K"}))) as driver:
        assert driver.nr_blocks == 16
        assert bytes(driver.read_blocks(0, 2)) == page(1, 8192)
    assert size_of(path) == 1 << 16
    with closing(kind(BackingSpec(str(path), {"size": "4K"}))) as driver:
        assert driver.nr_blocks == 1
    assert size_of(path) == 1 << 16
    with closing(kind(BackingSpec(str(path)))) as driver:
        assert driver.nr_blocks == 16


@pytest.mark.parametrize("kind", [FileDriver, DirectDriver])
def test_sparse(kind: type[MediumDriver], tmp_path: Path) -> None:
    with closing(kind(BackingSpec(str(tmp_path / "sparse"), {"size": "1M"}))):
        assert allocated(tmp_path / "sparse") < 1 << 20
    with closing(kind(BackingSpec(str(tmp_path / "full"), {"size": "1M", "sparse": "0"}))):
        assert allocated(tmp_path / "full") >= 1 << 20


@pytest.mark.parametrize("kind", [FileDriver, DirectDriver])
def test_discard_gives_space_back(kind: type[MediumDriver], tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with closing(kind(BackingSpec(str(path), {"size": "1M", "discard": "1"}))) as driver:
        assert driver.discard_on_release
        driver.write_blocks(0, [page(number, 4096) for number in range(256)])
        driver.flush()
        full = allocated(path)
        assert full >= 1 << 20
        driver.discard_blocks(16, 128)
        assert allocated(path) <= full - 127 * 4096
        assert size_of(path) == 1 << 20
        assert bytes(driver.read_blocks(16, 128)) == bytes(128 * 4096)


# One holder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", DRIVERS.values(), ids=DRIVERS)
@pytest.mark.parametrize("first", DRIVERS.values(), ids=DRIVERS)
def test_busy_in_one_process(first: type[MediumDriver], second: type[MediumDriver], tmp_path: Path) -> None:
    """Any driver against any other, also through a link; a refused open with size= changes nothing."""
    path = tmp_path / "disk"
    os.symlink(path, tmp_path / "soft")
    with closing(first(BackingSpec(str(path), {"size": "64K"}))):
        os.link(path, tmp_path / "hard")
        for name in ("disk", "soft", "hard"):
            with pytest.raises(DeviceBusy) as caught:
                second(BackingSpec(str(tmp_path / name), {"size": "1M"}))
            assert caught.value.errno == errno.EBUSY
        assert size_of(path) == 1 << 16
    second(BackingSpec(str(path))).close()


HOLDER = """
import sys
from zramcore.interfaces import BackingSpec
from zramcore_plugins.backing import FileDriver
driver = FileDriver(BackingSpec(sys.argv[1], {"size": "64K"}))
print("open", flush=True)
sys.stdin.read()
"""


@every_driver
def test_busy_across_processes(kind: type[MediumDriver], tmp_path: Path) -> None:
    """The other process ends without closing: the lock goes with it."""
    path = tmp_path / "disk"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(DeviceBusy):
            kind(BackingSpec(str(path)))
    assert holder.returncode == 0
    kind(BackingSpec(str(path))).close()


def test_file_created_while_somebody_else_locks_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our creation and our lock another device opens and locks the file: it is theirs now."""
    path = tmp_path / "disk"
    real = Medium._lock
    others: list[FileDriver] = []

    def late(self: Medium) -> None:
        monkeypatch.setattr(Medium, "_lock", real)
        others.append(FileDriver(BackingSpec(str(path), {"size": "64K"})))
        real(self)

    monkeypatch.setattr(Medium, "_lock", late)
    with pytest.raises(DeviceBusy):
        FileDriver(BackingSpec(str(path), {"size": "1M"}))
    with closing(others[0]) as other:
        other.write_blocks(0, [page(0, 4096)])
    assert size_of(path) == 1 << 16


def test_file_removed_between_open_and_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(8192))
    real = Medium._lock

    def late(self: Medium) -> None:
        path.unlink()
        real(self)

    monkeypatch.setattr(Medium, "_lock", late)
    with pytest.raises(DeviceBusy, match="removed"):
        FileDriver(BackingSpec(str(path)))


# Nothing left behind ----------------------------------------------------------------------------------------------


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@every_driver
@pytest.mark.parametrize(
    "failure", [OSError(errno.EIO, "start failed"), RuntimeError("start failed"), KeyboardInterrupt()]
)
def test_failed_start_undoes_everything(
    kind: type[MediumDriver], failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: MediumDriver) -> None:
        raise failure

    monkeypatch.setattr(kind, "start", start)
    old = tmp_path / "old"
    old.write_bytes(page(1, 8192))
    before = open_files()
    for name in ("new", "old"):
        with pytest.raises(type(failure)):
            kind(BackingSpec(str(tmp_path / name), {"size": "1M"}))
    assert os.listdir(tmp_path) == ["old"]
    assert old.read_bytes() == page(1, 8192)
    assert open_files() == before
    monkeypatch.undo()
    kind(BackingSpec(str(old))).close()


def test_failed_sizing_removes_the_file(tmp_path: Path) -> None:
    """No file system takes 2^63 - 1 bytes: EFBIG on some, EINVAL on others."""
    before = open_files()
    with pytest.raises(ZramError) as caught:
        FileDriver(BackingSpec(str(tmp_path / "disk"), {"size": str((1 << 63) - 1)}))
    assert caught.value.errno in (errno.EFBIG, errno.EINVAL)
    assert os.listdir(tmp_path) == []
    assert open_files() == before


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = open_files()
    for kind in DRIVERS.values():
        kind(BackingSpec(str(tmp_path / "disk"), {"size": "64K"})).close()
    assert open_files() == before
