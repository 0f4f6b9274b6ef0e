"""Deployments that serve, attach, make, mount and swap: up in order, down in reverse, back completely."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from zramcore.attach import attachment as attachment_module
from zramcore.attach import attachments, tables
from zramcore.attach.programs import MissingProgram
from zramcore.config import check, load_config
from zramcore.control import Control
from zramcore.deployment import Deployment
from zramcore.errors import DeviceBusy, ZramError
from zramcore.nbd import protocol as nbd
from zramcore.testing.daemon import RunningDaemon

FILES = """
[device.files]
disksize = "64M"
attach = "dev/files"
mkfs = "ext4"
serve = ["unix:files.sock", "tcp:127.0.0.1:0"]
image = { load = "saved.img", save = "saved.img", optional = true }
[device.files.mount]
directory = "mnt"
options = "discard,noatime"
"""
PAGER = """
[device.pager]
disksize = "min(ram, 32M)"
swap = { priority = 3 }
"""


@pytest.fixture
def control(catalogue):
    return Control(catalogue)


@pytest.fixture
def up(house, control):
    def bring_up(text: str) -> Deployment:
        file = house.folder / "test.toml"
        file.write_text(text)
        config = load_config(file)
        assert [str(problem) for problem in check(config, control.catalogue)] == []
        return Deployment.bring_up(config, control)

    return bring_up


def test_up_and_down_and_up_again(up, house, control):
    mounted = house.folder / "mnt"
    first = up(FILES)
    (hosted,) = [deployed.hosting for deployed in first.devices]
    assert len(hosted.uris) == 2
    assert list(hosted.lines())[-1] == f"{house.folder}/dev/files on {mounted}"
    assert any(each.directory == str(mounted) for each in tables.mounts_of(house.node("files")))
    options = [line for line in Path("/proc/mounts").read_text().splitlines() if f" {mounted} " in line]
    assert "noatime" in options[0]
    (mounted / "note").write_text("kept in the image")
    first.take_down()
    assert control.devices == {}
    assert house.leftovers() == []
    second = up(FILES)
    assert (mounted / "note").read_text() == "kept in the image"
    second.take_down()


def test_serving_alone(up, house):
    deployment = up('[device.zram0]\ndisksize = "8M"\nserve = "unix:only.sock"\n')
    assert deployment.devices[0].hosting.uris == [f"nbd+unix:///zram0?socket={house.folder}/only.sock"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(house.folder / "only.sock"))
        assert client.recv(8) == b"NBDMAGIC"
    deployment.take_down()
    assert not (house.folder / "only.sock").exists()


def test_a_mount_that_fails_takes_everything_back(up, house, control):
    bad = FILES.replace("discard,noatime", "nosuchoption")
    with pytest.raises(ZramError, match="mount -o nosuchoption"):
        up('[device.first]\ndisksize = "8M"\nserve = "unix:first.sock"\n' + bad)
    assert control.devices == {}
    assert house.leftovers() == []
    assert not (house.folder / "first.sock").exists()
    assert not (house.folder / "mnt").exists()


def test_nothing_is_made_without_the_programs(up, house, control, monkeypatch):
    def missing(names):
        raise MissingProgram(next(name for name in names if name.startswith("mkfs")))

    monkeypatch.setattr(attachment_module, "require", missing)
    with pytest.raises(MissingProgram) as raised:
        up(FILES)
    assert "e2fsprogs" in str(raised.value)
    assert control.devices == {}
    assert not house.records.exists()


def test_a_mount_in_use_stays_and_its_image_is_saved(up, house, control):
    deployment = up(FILES)
    mounted = house.folder / "mnt"
    with (mounted / "note").open("w") as file:
        file.write("not closed yet")
        file.flush()
        with pytest.raises(DeviceBusy, match=r"mnt is in use by .*pid"):
            deployment.take_down()
        assert list(control.devices) == [0]
        assert b"not closed yet" in (house.folder / "saved.img").read_bytes()
        assert (mounted / "note").read_text() == "not closed yet"
    deployment.take_down()
    assert control.devices == {}


RUN = [sys.executable, "-m", "zramcore", "run"]


def test_run(house):
    """The whole of it as a command, swap too, until SIGTERM."""
    (house.folder / "all.toml").write_text(FILES.replace(", optional", ", optional") + PAGER)
    with subprocess.Popen([*RUN, "all.toml"], cwd=house.folder, stdout=-1, stderr=subprocess.STDOUT, text=True) as run:
        try:
            lines = []
            while not lines or not lines[-1].startswith("ready"):
                lines.append(run.stdout.readline())
                assert lines[-1], lines
            nodes = {record.name: record for record in attachments(house.records)}
            assert tables.is_swap(nodes["pager"].node)
            assert any(line == f"pager (zram1): {nodes['pager'].node}, swap\n" for line in lines)
            (house.folder / "mnt" / "big").write_bytes(os.urandom(4 << 20))
        finally:
            run.send_signal(signal.SIGTERM)
            rest, _ = run.communicate(timeout=60)
    assert run.returncode == 0, rest
    assert rest.endswith("stopped\n")
    assert house.leftovers() == []
    assert not tables.is_swap(nodes["pager"].node)


def test_the_daemon_and_reload(house):
    """The same in the daemon; what is attached cannot change live, and is told."""
    file = house.folder / "all.toml"
    file.write_text(FILES)
    running = RunningDaemon(house.folder, "--config", str(file))
    house.daemons.append(running)
    with running.client() as client:
        assert any("files.sock" in uri for uri in client.device("files")["nbd"])
        file.write_text(FILES.replace("noatime", "relatime"))
        (change,) = client.reload(dry_run=True)
        assert (change["kind"], change["key"]) == ("use", "attach")
        assert "noatime" in change["before"]
        assert change["refused"]
    (house.folder / "mnt" / "note").write_text("kept")
    result = house.cli("remove", "files")
    assert result.exit_code == 0, result.output
    assert house.leftovers() == []
    assert running.stop() == 0
    assert b"kept" in (house.folder / "saved.img").read_bytes()


def test_an_attached_device_that_is_taken_out_of_the_file(house):
    """Its node does not keep it; somebody else who has it open does, and then nothing of it is undone."""
    file = house.folder / "all.toml"
    file.write_text(FILES)
    running = RunningDaemon(house.folder, "--config", str(file))
    house.daemons.append(running)
    (house.folder / "mnt" / "note").write_text("kept")
    file.write_text("[device.another]\ndisksize = '1M'\n")
    with running.client() as client, socket.socket(socket.AF_UNIX) as other:
        other.connect(str(house.folder / "files.sock"))
        other.sendall(nbd.CLIENT_FLAGS.pack(nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES))
        other.sendall(nbd.OPTION.pack(nbd.OPTION_MAGIC, nbd.OPT_EXPORT_NAME, 5) + b"zram0")
        size = nbd.GREETING.size + nbd.EXPORT_NAME_REPLY.size
        assert len(other.recv(size, socket.MSG_WAITALL)) == size
        added, gone = client.reload()
        assert added["refused"] == ""
        assert "it is open 1 times" in gone["refused"]
        assert house.cli("remove", "files").exit_code == 1
        assert (house.folder / "mnt" / "note").read_text() == "kept"
        other.sendall(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.CMD_DISC, 0, 0, 0))
        assert other.recv(1) == b""
        (gone,) = client.reload()
        assert gone["refused"] == ""
    assert house.leftovers() == []
    assert b"kept" in (house.folder / "saved.img").read_bytes()
    assert running.stop() == 0


def test_a_file_system_larger_than_its_memory(house):
    """What the kernel still has to write when the daemon is told to stop finds room, as before; and again when the
    image is loaded."""
    file = house.folder / "all.toml"
    limits = "mem_limit = '8M'\nmem_limit_wait = 20000\nbacking_dev = 'file:b.img,size=64M'\n"
    file.write_text(FILES.replace("attach =", f"{limits}attach =") + "[[device.files.policy]]\nname = 'watermark'\n")
    content = os.urandom(40 << 20)
    running = RunningDaemon(house.folder, "--config", str(file))
    house.daemons.append(running)
    (house.folder / "mnt" / "big").write_bytes(content)
    assert running.stop() == 0
    assert house.leftovers() == []
    assert running.events("nbd_request_failed") == []
    again = RunningDaemon(house.folder, "--config", str(file))
    house.daemons.append(again)
    assert (house.folder / "mnt" / "big").read_bytes() == content
    with again.client() as client:
        figures = client.device("files")["mm_stat"]
        assert figures["mem_used_max"] <= (8 << 20) + 8 * 4096  # an object that does not fit counts, as in the kernel
        assert figures["orig_data_size"] > 40 << 20
    assert again.stop() == 0
