"""The parts of attaching, without a device: programs, processes, what the kernel says, records, protection."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zramcore.attach import Export, Mount, Record, Swap, Use, attach, conflicts, node, programs, protect, state, tables
from zramcore.attach import attachment as attachment_module
from zramcore.attach.processes import Process
from zramcore.attach.programs import MissingProgram, ProgramFailed
from zramcore.attach.state import Place
from zramcore.errors import DeviceBusy, InvalidValue, NoBackingDevice, NotPermitted

# Programs ---------------------------------------------------------------------------------------------------------


def test_a_program_that_fails_is_quoted():
    with pytest.raises(ProgramFailed, match=r"cat /no/such/file: cat: /no/such/file: No such file") as raised:
        programs.run("cat", "/no/such/file")
    assert raised.value.errno == errno.EIO
    assert programs.run("cat", "/no/such/file", good=(0, 1)) == ""


def test_a_program_that_takes_too_long_is_ended():
    with pytest.raises(ProgramFailed, match=r"sleep 60 took longer than 0\.1 s"):
        programs.run("sleep", "60", seconds=0.1)


@pytest.mark.parametrize(("program", "package"), programs.PACKAGES.items())
def test_a_missing_program_names_its_package(monkeypatch, program, package):
    monkeypatch.setattr(programs, "find", lambda name: None if name == program else f"/bin/{name}")
    for call in (lambda: programs.require(["cat", program]), lambda: programs.run(program)):
        with pytest.raises(MissingProgram, match=f"{program} is not installed") as raised:
            call()
        assert raised.value.hint == f"apt install {package}"


def test_every_needed_program_has_a_package():
    for via in ("nbdfuse", "nbd-client"):
        for kind in ("ext2", "ext4", "xfs", "btrfs"):
            wanted = attachment_module.needed_programs(Use(mkfs=kind, mount=Mount("/mnt"), swap=Swap()), via)
            assert set(wanted) <= set(programs.PACKAGES)


def test_nothing_is_made_when_a_program_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(programs, "find", lambda name: None if name == "mkfs.xfs" else f"/bin/{name}")
    with pytest.raises(MissingProgram, match=r"mkfs\.xfs is not installed"):
        attach(Export("disk", "zram0", "nbd+unix:///zram0?socket=/x"), Use(mkfs="xfs"), tmp_path, via="nbdfuse")
    assert list(tmp_path.glob("disk*")) == [tmp_path / "disk.lock"]


def test_only_root_attaches(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotPermitted, match="needs root"):
        attach(Export("disk", "zram0", "nbd+unix:///zram0?socket=/x"), Use(), tmp_path)


# Processes --------------------------------------------------------------------------------------------------------


def test_a_process_is_more_than_its_pid():
    child = subprocess.Popen(["sleep", "60"])
    process = Process.of(child.pid)
    assert process is not None
    assert process.alive
    assert not Process(process.pid, process.started - 1).alive
    assert not process.wait(0)
    Process(process.pid, process.started - 1).end(signal.SIGKILL)
    assert process.alive
    process.end(signal.SIGKILL)
    assert process.wait(10)
    assert not process.alive
    child.returncode = -9  # reaped by wait
    assert Process.of(child.pid) is None
    assert process.wait(0)
    assert Process.self().pid == os.getpid()


# The kernel's tables ----------------------------------------------------------------------------------------------


def test_mounts_are_those_of_this_namespace():
    rooted = tables.mounted_at("/")
    assert rooted is not None
    assert rooted.directory == "/"
    assert tables.mounted_at("/no/such/place") is None
    assert not tables.is_swap("/dev/null")


def test_loop_devices_by_their_file(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "SYS_BLOCK", tmp_path)
    for name, backing in (
        ("loop0", "/run/a\\040b/disk\n"),
        ("loop1", "/run/other\n"),
        ("loop2", "/run/a\\040b/disk (deleted)\n"),
    ):
        (tmp_path / name / "loop").mkdir(parents=True)
        (tmp_path / name / "loop" / "backing_file").write_text(backing)
    (tmp_path / "loop3").mkdir()
    assert tables.loops_of("/run/a b/disk") == ["/dev/loop0", "/dev/loop2"]


def test_users_are_named(tmp_path):
    with (tmp_path / "file").open("w"):
        assert any(f"(pid {os.getpid()})" in user for user in tables.users(str(tmp_path)))
    assert tables.users(str(tmp_path)) == []


# Records ----------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(tmp_path):
    place = Place(tmp_path, "swap")
    record = Record("swap", "zram3", "nbd://x", Process(1, 2), "nbdfuse", Process(3, 4), "/dev/loop7", notes=["a"])
    place.save(record)
    assert place.load() == record
    assert state.attachments(tmp_path) == [record]
    assert state.place_of(tmp_path, "zram3") == place
    assert place.folder.stat().st_mode & 0o777 == 0o700
    assert attachment_module.find("zram3", tmp_path) == record
    with pytest.raises(NoBackingDevice, match="swop is not attached"):
        attachment_module.find("swop", tmp_path)
    place.remove()
    assert state.attachments(tmp_path) == []
    place.remove()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "x" * 201])
def test_names_stay_in_their_directory(tmp_path, name):
    with pytest.raises(InvalidValue):
        Place(tmp_path, name)


def test_the_directory_of_the_records():
    assert state.default_directory({}) == Path("/run/zramcore-attach")
    assert state.default_directory({"ZRAMCORE_ATTACH_DIR": "/x"}) == Path("/x")


def test_what_excludes_what():
    def keys(use: Use, *, has_contents: bool = False) -> list[str]:
        return [conflict.key for conflict in conflicts(use, has_contents=has_contents)]

    assert keys(Use()) == keys(Use(mkfs="xfs", mount=Mount("/m"))) == keys(Use(swap=Swap())) == []
    assert keys(Use(mount=Mount("/m"))) == ["mount"]
    assert keys(Use(mount=Mount("/m")), has_contents=True) == []
    assert keys(Use(mkfs="xfs", mount=Mount("/m"), swap=Swap())) == ["mkfs", "mount"]


# Protection -------------------------------------------------------------------------------------------------------

LOCKED = """
import os
from zramcore.attach.protect import protect_self
from zramcore.control import Control
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) >> 10

print([text for text in protect_self() if "locked" in text])
control = Control(build_catalogue(load_plugins()))
control.hot_add()
target = control.target("zram0")
target.store("disksize", "64G")
before = resident()
data = os.urandom(1 << 20)
for place in range(48):
    target.device.pwrite(place << 20, data)
full = resident()
target.device.discard(0, 48 << 20)
print(before < 200, full - before > 40, resident() - before < 24)
target.device.pwrite(0, data)
print(target.device.pread(0, 1 << 20) == data)
target.store("reset", "1")
target.store("disksize", "64M")
target.device.pwrite(0, data)
print(target.device.pread(0, 1 << 20) == data)
"""


def test_a_locked_daemon_takes_and_gives_memory_as_before():
    """mlockall must not fill what is reserved, nor keep what is freed (MADV_DONTNEED is refused for locked pages)."""
    run = subprocess.run([sys.executable, "-c", LOCKED], capture_output=True, text=True, timeout=60, check=False)
    lines = run.stdout.splitlines()
    assert run.returncode == 0, run.stderr
    if lines[0] != "[]":
        pytest.skip(lines[0])
    assert lines[1:] == ["True True True", "True", "True"]


def test_a_cgroup_without_swap(tmp_path):
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory\n")
    assert protect.keep_out_of_swap(42, tmp_path) == []
    group = tmp_path / protect.CGROUP_NAME
    assert (group / "memory.swap.max").read_text() == "0\n"
    assert (group / "cgroup.procs").read_text() == "42\n"
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    assert "may be swapped out" in protect.keep_out_of_swap(42, tmp_path)[0]
    assert "may be swapped out" in protect.keep_out_of_swap(42, tmp_path / "absent")[0]


def test_the_oom_killer_spares_a_child_or_says_why_not():
    with subprocess.Popen(["sleep", "60"]) as child:
        said = protect.spare(child.pid)
        score = int(Path(f"/proc/{child.pid}/oom_score_adj").read_text())
        child.kill()
    assert (score == protect.SPARED) == (said == [])
    assert "No such file" in protect.spare(1 << 22)[0]


# nbd-client -------------------------------------------------------------------------------------------------------


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """A kernel with nbd, as far as /sys tells, and an nbd-client that notes what it is given."""
    monkeypatch.setattr(tables, "SYS_BLOCK", tmp_path / "block")
    monkeypatch.setattr(node, "_MODULE", tmp_path / "block")
    for number in (0, 1, 10):
        (tmp_path / "block" / f"nbd{number}").mkdir(parents=True)
    (tmp_path / "block" / "nbd0" / "pid").write_text("77\n")
    commands = tmp_path / "bin"
    commands.mkdir()
    client = commands / "nbd-client"
    client.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
if [ "$1" = -d ]; then rm {tmp_path}/block/nbd1/pid; else echo 4242 > {tmp_path}/block/nbd1/pid; fi
"""
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return tmp_path


def test_the_kernels_own_client(kernel, tmp_path):
    assert node.choose_via() == "nbd-client"
    assert node.choose_via("nbdfuse") == "nbdfuse"
    place = Place(tmp_path / "run", "disk")
    record = Record("disk", "zram0", "nbd+unix:///zram0?socket=/run/n%20bd.sock", None, "nbd-client", swap=True)
    made = node.make_node(record, place, None, place.save)
    assert made == record.node == "/dev/nbd1"
    assert record.nbd_pid == 4242
    assert place.load() == record
    assert node.nodes_of(record, place) == ["/dev/nbd1"]
    node.remove_node("/dev/nbd1")
    assert node.nodes_of(record, place) == []
    calls = (kernel / "calls").read_text().splitlines()
    assert calls == ["-unix /run/n bd.sock /dev/nbd1 -name zram0 -block-size 4096 -swap", "-d /dev/nbd1"]


def test_an_nbd_device_of_somebody_else_is_left_alone(kernel, tmp_path):
    place = Place(tmp_path / "run", "disk")
    record = Record("disk", "zram0", "nbd://[::1]:10810/zram0", None, "nbd-client")
    node.make_node(record, place, None, place.save)
    (kernel / "block" / "nbd1" / "pid").write_text("5\n")
    assert node.nodes_of(record, place) == []
    assert (kernel / "calls").read_text() == "::1 10810 /dev/nbd1 -name zram0 -block-size 4096\n"
    with pytest.raises(DeviceBusy, match="/dev/nbd0 is in use"):
        node.make_node(record, place, "/dev/nbd0", place.save)
    (kernel / "block" / "nbd10" / "pid").write_text("6\n")
    with pytest.raises(DeviceBusy, match="all 3 nbd devices are in use"):
        node.make_node(record, place, None, place.save)


def test_a_kernel_without_nbd(monkeypatch, tmp_path):
    monkeypatch.setattr(node, "_MODULE", tmp_path / "absent")
    monkeypatch.setattr(node, "find", lambda name: None if name == "modprobe" else f"/bin/{name}")
    assert node.choose_via() == "nbdfuse"
    with pytest.raises(InvalidValue, match="this kernel has no nbd"):
        node.choose_via("nbd-client")


def test_without_nbd_client_nbdfuse_does_it(monkeypatch, tmp_path):
    monkeypatch.setattr(node, "_MODULE", tmp_path)
    monkeypatch.setattr(node, "find", lambda name: None if name == "nbd-client" else f"/bin/{name}")
    assert node.choose_via() == "nbdfuse"
    monkeypatch.setattr(node, "find", lambda name: None)
    with pytest.raises(MissingProgram, match="nbd-client is not installed"):
        node.choose_via()


@pytest.mark.parametrize("uri", ["nbds://host/x", "nbds+unix:///x?socket=/y", "http://x"])
def test_exports_that_cannot_be_attached(uri):
    with pytest.raises(InvalidValue, match="cannot be attached"):
        node.check_uri(uri, "nbdfuse")
