"""File systems and swap on devices of a real daemon, through nbdfuse and a loop device or the kernel's nbd."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import pytest

from zramcore.attach import tables

CHECKS = {
    "ext4": ("e2fsck", "-f", "-n"),
    "ext2": ("e2fsck", "-f", "-n"),
    "xfs": ("xfs_repair", "-n"),
    "btrfs": ("btrfs", "check", "--readonly"),
}
"""Kind -> the check that changes nothing and fails for anything wrong."""
TREES = ("json", "email", "unittest", "multiprocessing", "encodings", "lib-dynload", "asyncio")
"""Packages of the standard library: some 900 files of text, bytecode and machine code."""


def checksums(folder: Path) -> dict[str, str]:
    """Each file of a tree and what is in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): checksum(path) for path in files}


def checksum(path: Path) -> str:
    """What is in a file. To read a hole of 1 GiB takes minutes in the machine of in_vm.py: there its size will do."""
    status = path.stat()
    if "ZRAMCORE_IN_VM" in os.environ and status.st_size and not status.st_blocks:
        return f"a hole of {status.st_size} bytes"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copy_trees(target: Path) -> None:
    """Copy the trees, and random data that does not compress."""
    library = Path(sysconfig.get_path("stdlib"))
    for name in TREES:
        if (library / name).is_dir():
            shutil.copytree(library / name, target / name, symlinks=True)
    for number in range(4):
        (target / f"random{number}").write_bytes(os.urandom(1 << 20))
    (target / "sparse").touch()
    os.truncate(target / "sparse", 1 << 30)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_file_system(house, needs, tool, kind):
    """Made, mounted, filled while pages are written back under it, unmounted, checked, mounted again: all is there."""
    needs(f"mkfs.{kind}", CHECKS[kind][0])
    (house.folder / "back.img").touch()
    house.daemon(
        {"name": "disk", "disksize": "512M", "comp_algorithm": "zstd", "backing_dev": "file:back.img,size=256M"}
    )
    mounted = house.folder / "mnt"
    assert "disk: /dev/" in house.ok("attach", "disk", "--mkfs", kind, "--mount", str(mounted))
    stop = threading.Event()
    passes = []

    def write_back() -> None:
        while not stop.is_set():
            for words in (("set", "disk", "idle", "all"), ("set", "disk", "writeback", "idle")):
                result = house.cli(*words)
                passes.append((words[2], result.exit_code, result.output))
            stop.wait(0.1)

    writer = threading.Thread(target=write_back)
    writer.start()
    try:
        copy_trees(mounted)
        wanted = checksums(mounted)
        assert len(wanted) > 200
        os.sync()
    finally:
        stop.set()
        writer.join()
    assert [each for each in passes if each[1] != 0] == []
    house.ok("set", "disk", "idle", "all")
    house.ok("set", "disk", "writeback", "idle")
    written = int(house.ok("get", "disk", "bd_stat").split()[2])
    assert written > 500
    shutil.rmtree(mounted / "encodings")
    wanted = {name: digest for name, digest in wanted.items() if not name.startswith("encodings")}

    assert f"unmounted {mounted}" in house.ok("detach", "disk")
    assert not mounted.exists()
    house.ok("attach", "disk")
    tool(*CHECKS[kind], house.node("disk"))
    house.ok("detach", "disk")

    house.ok("attach", "disk", "--mkfs", kind, "--mount", str(mounted))
    assert checksums(mounted) == wanted
    house.ok("detach", "disk")
    failed = [int(word) for word in house.ok("get", "disk", "io_stat").split()[:2]]
    assert failed == [0, 0]


def test_deleted_files_give_their_memory_back(house, until):
    house.daemon({"name": "disk", "disksize": "256M"})
    mounted = house.folder / "mnt"
    house.ok("attach", "disk", "--mkfs", "ext4", "--mount", str(mounted))

    def stored() -> int:
        """Without same-filled pages: mkfs writes zeroes where the kernel's nbd has no request for that (6.1)."""
        columns = [int(word) for word in house.ok("get", "disk", "mm_stat").split()]
        return columns[0] - columns[5] * 4096

    (mounted / "random").write_bytes(os.urandom(32 << 20))
    os.sync()
    assert stored() > 32 << 20
    (mounted / "random").unlink()
    os.sync()
    until(lambda: stored() < 4 << 20)
    house.ok("detach", "disk")


def test_the_node_keeps_what_it_promises(house, tool):
    """Sectors of 4 KiB, direct I/O, zeroes and discards that reach the device."""
    house.daemon({"name": "disk", "disksize": "64M"})
    house.ok("attach", "disk", "--via", "nbdfuse")
    node = house.node("disk")
    name = os.path.basename(node)
    assert Path(f"/sys/block/{name}/queue/logical_block_size").read_text() == "4096\n"
    assert Path(f"/sys/block/{name}/loop/dio").read_text() == "1\n"
    assert int(Path(f"/sys/block/{name}/size").read_text()) * 512 == 64 << 20
    with open(node, "r+b", buffering=0) as file:
        file.write(b"\xa5" * (1 << 20))
        os.fsync(file.fileno())
        tool("blkdiscard", "--zeroout", "--offset", "4096", "--length", "8192", node)
        tool("blkdiscard", "--offset", "65536", "--length", "65536", node)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        data = file.read(1 << 20)
    expected = bytearray(b"\xa5" * (1 << 20))
    expected[4096:12288] = bytes(8192)
    expected[65536:131072] = bytes(65536)
    assert data == expected
    house.ok("detach", "disk")


PAGE_OUT = """
import mmap, os, sys
size = 16 << 20
data = os.urandom(size // 2) + b"words and more words " * (size // 42 + 1)
data = data[:size]
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory[:] = data
memory.madvise(21)  # MADV_PAGEOUT
print(os.getpid(), flush=True)
sys.stdin.readline()
print("same" if memory[:] == data else "other", flush=True)
"""


def test_swap(house, until):
    """Pages of a process go to the device and come back; the daemon has its memory locked meanwhile."""
    running = house.daemon({"name": "pager", "disksize": "128M", "comp_algorithm": "lz4"})
    house.ok("attach", "pager", "--swap", "--priority", "32000")
    node = house.node("pager")
    assert tables.is_swap(node)
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    locked = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmLck")]
    assert locked[0] > 0
    with subprocess.Popen([sys.executable, "-c", PAGE_OUT], stdin=-1, stdout=-1, text=True) as process:
        process.stdout.readline()
        used = [line.split() for line in Path("/proc/swaps").read_text().splitlines() if line.startswith(node)]
        assert int(used[0][4]) == 32000
        swapped = int(used[0][3])
        if swapped:
            # paging out is asynchronous: the pages are on their way through the loop device when madvise returns
            until(lambda: int(house.ok("get", "pager", "mm_stat").split()[0]) > 8 << 20)
        process.stdin.write("\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert process.wait(30) == 0
    assert answer == "same\n"
    if swapped == 0:
        house.ok("detach", "pager")
        pytest.skip("this kernel pages nothing out on request")
    assert "stopped swapping to" in house.ok("detach", "pager")
    assert not tables.is_swap(node)


def test_json_and_lists(house):
    house.daemon({"name": "disk", "disksize": "64M"})
    link = house.folder / "dev" / "disk"
    record = json.loads(house.ok("attach", "disk", "--path", str(link), "--json"))
    assert record["node"] == os.readlink(link) == house.node("disk")
    assert house.ok("detach") == f"disk: {record['node']}\n"
    assert house.ok("detach", "--all").startswith(f"disk: removed {link}; removed {record['node']}")
    assert house.ok("detach") == ""
    assert house.ok("detach", "disk") == "disk: not attached\n"
    assert not link.is_symlink()
