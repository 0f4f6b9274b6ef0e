"""Programs that people use: libnbd's, qemu's, fio, nbdkit, nbd-client. Each is skipped where it is not installed."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from zramcore.nbd import server_context
from zramcore.testing.inspection import check_consistent, stat

SIZE = 24 << 20
PATIENCE = 60

CONNECTIONS = 4


def run(*arguments: str | Path, expect: int = 0, **options) -> str:
    """Run a program to its end; returns what it printed."""
    program = str(arguments[0])
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        list(map(str, arguments)), capture_output=True, text=True, timeout=PATIENCE, check=False, **options
    )
    assert done.returncode == expect, f"{program}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture
def name(house):
    """A device of 24 MiB that writes back to memory, beside zram0."""
    return house.add(SIZE, comp_algorithm="lz4", backing_dev=f"faulty:clients,blocks={SIZE >> 12}")


@pytest.fixture
def uri(house, name):
    return house.serve().uri(name)


@pytest.fixture
def picture(tmp_path) -> Path:
    """A sparse file of SIZE bytes: noise, text, zeroes that were written, holes."""
    rng = random.Random(8)
    path = tmp_path / "picture"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for start in (0, 5 << 20, (9 << 20) + 4096, SIZE - (1 << 20)):
            file.seek(start)
            file.write(rng.randbytes(300_000))
            file.write(b"".join(b"line %d of a text\n" % line for line in range(20_000)))
            file.write(bytes(70_000))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# libnbd ---------------------------------------------------------------------------------------------------------------


def test_nbdinfo_sees_every_flag_and_context(house, name, uri):
    (export,) = json.loads(run("nbdinfo", "--json", uri))["exports"]
    assert export["export-name"] == name
    assert export["export-size"] == SIZE
    assert export["description"] == "zram, 24 MiB, lz4, 4 KiB pages"
    assert export["contexts"] == ["base:allocation", "zram:state"]
    assert {key: export[key] for key in export if key.startswith(("is_", "can_", "block_"))} == {
        "is_rotational": False,
        "is_read_only": False,
        "can_cache": True,
        "can_df": True,
        "can_fast_zero": True,
        "can_flush": True,
        "can_fua": True,
        "can_multi_conn": True,
        "can_trim": True,
        "can_zero": True,
        "block_size_minimum": 1,
        "block_size_preferred": 4096,
        "block_size_maximum": 32 << 20,
    }


def test_nbdinfo_lists_every_device(house, uri):
    listed = json.loads(run("nbdinfo", "--json", "--list", house.servers[0].uri()))
    assert [(each["export-name"], each["export-size"]) for each in listed["exports"]] == [
        ("zram0", 1 << 20),
        ("zram1", SIZE),
    ]
    assert listed["structured"] is True


def test_nbdinfo_maps_states(house, name, uri):
    target = house.control.target(name)
    target.device.pwrite(0, random.Random(1).randbytes(8192) + bytes(4096) + b"text" * 100 + bytes(3696))
    target.store("idle", "all")
    target.store("writeback", "page_index=1")
    found = json.loads(run("nbdinfo", "--json", "--map=zram:state", uri))
    assert [(each["offset"], each["length"], each["type"]) for each in found] == [
        (0, 4096, 4 | 8),
        (4096, 4096, 16 | 4),
        (8192, 4096, 1),
        (12288, 4096, 2 | 8),
        (16384, SIZE - 16384, 0),
    ]
    found = json.loads(run("nbdinfo", "--json", "--map", uri))
    assert [(each["offset"], each["length"], each["type"]) for each in found] == [
        (0, 8192, 0),
        (8192, 4096, 2),
        (12288, 4096, 0),
        (16384, SIZE - 16384, 3),
    ]


def test_nbdcopy_in_and_out(house, name, uri, picture, tmp_path):
    run("nbdcopy", picture, uri)
    device = house.control.device(name)
    assert device.pread(0, SIZE) == picture.read_bytes()
    out = tmp_path / "out"
    run("nbdcopy", uri, out)
    assert digest(out) == digest(picture)
    assert out.stat().st_blocks * 512 < 6 << 20, "holes stay holes"
    check_consistent(device)


def test_nbdcopy_with_many_connections_and_big_requests(house, uri, picture, tmp_path):
    flags = ("--connections=4", "--requests=32", "--request-size=2097152", "--destination-is-zero")
    run("nbdcopy", *flags, "--flush", picture, uri)
    out = tmp_path / "out"
    run("nbdcopy", *flags[:-1], uri, out)
    assert digest(out) == digest(picture)


# qemu -----------------------------------------------------------------------------------------------------------------


def test_qemu_img_convert_and_compare(house, name, uri, picture, tmp_path):
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", picture, uri)
    assert house.control.device(name).pread(0, SIZE) == picture.read_bytes()
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", picture, uri)
    house.control.device(name).pwrite(12345, b"!")
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", picture, uri, expect=1)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, tmp_path / "out.qcow2")
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", uri, tmp_path / "out.qcow2")


def test_qemu_img_maps_holes(house, name, uri):
    house.control.device(name).pwrite(1 << 20, random.Random(1).randbytes(1 << 16))
    found = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", uri))
    assert [(each["start"], each["length"], each["zero"], each["data"]) for each in found] == [
        (0, 1 << 20, True, False),
        (1 << 20, 1 << 16, False, True),
        ((1 << 20) + (1 << 16), SIZE - (1 << 20) - (1 << 16), True, False),
    ]


def test_qemu_io_patterns_with_discard_and_zeroes(house, name, uri):
    commands = [
        "write -P 1 0 1M",
        "write -P 2 1M 1M",
        "aio_write -P 3 2M 3M",
        "aio_flush",
        "read -P 1 0 1M",
        "read -P 2 1M 1M",
        "read -P 3 2M 3M",
        "discard 0 512k",
        "read -P 0 0 512k",
        "read -P 1 512k 512k",
        "write -z 1M 64k",
        "write -z -u 1088k 64k",
        "read -P 0 1M 128k",
        "read -P 2 1152k 896k",
        "write -f -P 4 12345 678",
        "read -P 4 12345 678",
        "read -P 0 12032 313",
        "flush",
        f"write -P 5 {SIZE - 512} 512",
        f"read -P 5 {SIZE - 512} 512",
    ]
    output = run("qemu-io", "-f", "raw", *itertools.chain(*(("-c", command) for command in commands)), uri)
    assert "verification failed" not in output
    assert "failed" not in output
    check_consistent(house.control.device(name))


# fio ------------------------------------------------------------------------------------------------------------------


def test_fio_verifies_while_pages_go_idle_and_are_written_back(house, name, uri):
    """Four connections at depth 32, each with its own part of the device; passes run all the while."""
    if "nbd" not in run("fio", "--enghelp").split():
        pytest.skip("this fio has no nbd engine")
    target = house.control.target(name)
    over = threading.Event()
    failures = []

    def passes():
        try:
            while not over.is_set():
                target.store("idle", "all")
                target.store("writeback", "idle")
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=passes)
    thread.start()
    try:
        run("fio", "--name=verify", "--ioengine=nbd", f"--uri={uri}", "--rw=randrw", "--bsrange=4k-64k", "--iodepth=32",
            f"--numjobs={CONNECTIONS}", f"--size={SIZE // CONNECTIONS}", f"--offset_increment={SIZE // CONNECTIONS}",
            "--verify=crc32c", "--verify_fatal=1", "--buffer_compress_percentage=50", "--refill_buffers",
            "--randrepeat=1", "--thread", cwd=house.folder)  # fmt: skip
    finally:
        over.set()
        thread.join()
    assert failures == []
    assert stat(target.device, "bd_stat")[2] > 0, "pages were written back meanwhile"
    check_consistent(target.device)


# Others ---------------------------------------------------------------------------------------------------------------


def test_nbdkit_is_a_proxy_over_tls(house, name, picture, tmp_path, certificates):
    """nbdkit talks TLS to us, with a certificate on both sides, and plain NBD to nbdcopy."""
    tls = server_context(certificates["server-cert"], certificates["server-key"], certificates["ca-cert"])
    server = house.serve("tcp:127.0.0.1:0", tls=tls)
    port = server.address.rpartition(":")[2]
    upstream = ("hostname=localhost", f"port={port}", f"export={name}", "tls=require",
                f"tls-certificates={certificates.folder}")  # fmt: skip
    run("nbdkit", "-U", "-", "nbd", *upstream, "--run", f'nbdcopy {picture} "$uri" && nbdcopy "$uri" {tmp_path}/out')
    assert digest(tmp_path / "out") == digest(picture)
    assert house.control.device(name).pread(0, SIZE) == picture.read_bytes()
    run("nbdkit", "-U", "-", "nbd", *upstream[:-2], "--run", 'nbdinfo "$uri"', expect=1)


def test_nbd_client_lists_devices(house, name):
    server = house.serve("tcp:127.0.0.1:0")
    output = run("nbd-client", "-l", "127.0.0.1", server.address.rpartition(":")[2])
    listed = [line.partition(":")[0] for line in output.splitlines() if line.startswith("zram")]
    assert listed == ["zram0", "zram1"], output


def test_nbdfuse_makes_a_file_of_a_device(house, name, uri, tmp_path):
    if not os.path.exists("/dev/fuse") or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("there is no /dev/fuse that may be used here")
    if shutil.which("nbdfuse") is None:
        pytest.skip("nbdfuse is not installed")
    mountpoint = tmp_path / "disk"
    mountpoint.write_bytes(b"")
    ready = tmp_path / "pid"
    process = subprocess.Popen(["nbdfuse", "-P", str(ready), str(mountpoint), uri])
    try:
        pause = threading.Event()
        for _ in range(PATIENCE * 20):
            if ready.exists() or process.poll() is not None:
                break
            pause.wait(0.05)
        if process.poll() is not None:
            pytest.skip("nbdfuse cannot mount here")
        data = random.Random(2).randbytes(1 << 20)
        with mountpoint.open("r+b") as file:
            file.seek(4096)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        assert house.control.device(name).pread(4096, len(data)) == data
    finally:
        subprocess.run(["fusermount3", "-u", str(mountpoint)], check=False, capture_output=True)
        if process.poll() is None:
            process.terminate()
        process.wait()
