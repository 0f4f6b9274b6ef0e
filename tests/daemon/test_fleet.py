"""The fleet in this process: its end, and what happens when taking a device down fails."""

import errno
import socket
from dataclasses import replace

import pytest

from zramcore.config import check, read_device
from zramcore.control import Control
from zramcore.daemon.fleet import Fleet, Stopping
from zramcore.errors import DeviceBusy, NoBackingDevice, ZramError
from zramcore.image import LoadCancelled
from zramcore.nbd import protocol as nbd


def up(fleet, tmp_path, name="disk", cancelled=lambda: False, **table):
    config, problems = read_device(name, {"disksize": "1M", **table}, tmp_path)
    assert problems + check(config, fleet.control.catalogue) == []
    (member,) = fleet.bring_up(config, "create", cancelled)
    return member


def test_nothing_can_be_added_once_it_is_closed(built_in, tmp_path):
    fleet = Fleet(Control(built_in))
    up(fleet, tmp_path)
    assert fleet.close() == []
    with pytest.raises(Stopping):
        fleet.hot_add()
    with pytest.raises(Stopping):
        up(fleet, tmp_path)
    assert list(fleet) == []
    assert fleet.control.devices == {}


def test_a_hot_removed_device_is_served_no_longer(fleet, tmp_path):
    """Neither it nor the next one that gets its number; and the same file can bring it up again."""
    up(fleet, tmp_path, serve="unix:disk.sock")
    fleet.hot_remove(0)
    assert not (tmp_path / "disk.sock").exists()
    member = up(fleet, tmp_path, serve="unix:disk.sock")
    assert member.name == "zram0"


def served(fleet, tmp_path):
    """A device that its config has served, and a client of that server."""
    member = up(fleet, tmp_path, serve="unix:disk.sock")
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(tmp_path / "disk.sock"))
    sock.recv(nbd.GREETING.size, socket.MSG_WAITALL)
    sock.sendall(nbd.CLIENT_FLAGS.pack(nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES))
    sock.sendall(nbd.OPTION.pack(nbd.OPTION_MAGIC, nbd.OPT_EXPORT_NAME, len(member.name)) + member.name.encode())
    sock.recv(nbd.EXPORT_NAME_REPLY.size, socket.MSG_WAITALL)
    return member, sock


def test_a_device_with_clients_of_its_own_server_is_busy_and_served_as_before(fleet, tmp_path):
    member, sock = served(fleet, tmp_path)
    with sock:
        with pytest.raises(DeviceBusy):
            fleet.take_down(member)
        sock.sendall(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.CMD_READ, 7, 0, 512))
        assert len(sock.recv(nbd.SIMPLE_REPLY.size + 512, socket.MSG_WAITALL)) == nbd.SIMPLE_REPLY.size + 512
        assert member.uris
        member.disconnect()
        assert sock.recv(1) == b""
    assert fleet.take_down(member) is None
    assert not (tmp_path / "disk.sock").exists()


def test_a_device_whose_image_cannot_be_saved_stays_and_its_policies_go_on(fleet, tmp_path):
    (tmp_path / "folder").mkdir()
    member = up(fleet, tmp_path, image={"save": "folder/disk.img"}, policy=[{"name": "none"}])
    member.target.device.pwrite(0, b"precious" * 512)
    (tmp_path / "folder").rmdir()
    with pytest.raises(ZramError) as caught:
        fleet.take_down(member)
    assert caught.value.errno == errno.ENOENT
    assert fleet.find("disk") is member
    assert not member.target.device.stop_pass.is_set()
    assert member.target.device.pread(0, 8) == b"precious"
    fleet.set_policies(member, member.runner.configs)
    (tmp_path / "folder").mkdir()
    assert fleet.take_down(member) == 4096
    with pytest.raises(NoBackingDevice, match="gone already"):
        fleet.take_down(member)


def test_a_load_that_is_given_up_leaves_nothing(fleet, tmp_path):
    (tmp_path / "disk.img").write_bytes(b"data" * 4096)
    with pytest.raises(LoadCancelled):
        up(fleet, tmp_path, cancelled=lambda: True, image={"load": "disk.img"}, backing_dev="file:b.img,size=1M")
    assert list(fleet) == []
    assert not (tmp_path / "b.img").exists()


def test_everybody_is_told_of_a_removed_device_once(built_in, tmp_path):
    gone = []
    fleet = Fleet(Control(built_in), on_removed=gone.append)
    member = up(fleet, tmp_path)
    fleet.hot_remove(fleet.hot_add())
    fleet.take_down(member)
    assert gone == ["zram1", "zram0"]


def test_a_device_of_the_file_that_fails_leaves_the_limit_of_the_file_as_it_was(fleet, tmp_path):
    config, problems = read_device("disk", {"disksize": "1M", "image": {"load": "missing.img"}}, tmp_path)
    assert problems == []
    for before in (None, 7):
        fleet.share_writes_per_day(before)
        with pytest.raises(ZramError, match=r"missing\.img"):
            fleet.bring_up(replace(config, writes_per_day=99), "config")
        assert (fleet.writes_per_day and fleet.writes_per_day.limit) == before
    assert fleet.control.devices == {}


def test_one_that_fails_does_not_keep_the_others_from_being_saved(built_in, tmp_path):
    fleet = Fleet(Control(built_in))
    (tmp_path / "folder").mkdir()
    up(fleet, tmp_path, "a", image={"save": "a.img"})
    lost = up(fleet, tmp_path, "b", image={"save": "folder/b.img"})
    up(fleet, tmp_path, "c", image={"save": "c.img"})
    (tmp_path / "folder").rmdir()
    (said,) = fleet.close()
    assert said.startswith("b: ")
    assert {path.name for path in tmp_path.iterdir()} == {"a.img", "c.img"}
    assert list(fleet) == [lost]
    fleet.hot_remove(0 if lost.name == "zram0" else 1)
