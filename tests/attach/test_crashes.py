"""Detaching after something broke, attaching over what is left, and refusals that leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from zramcore.attach import Export, Swap, Use, attach, attachments, detach, tables
from zramcore.attach import attachment as attachment_module
from zramcore.attach.processes import Process
from zramcore.attach.programs import run
from zramcore.attach.state import Place
from zramcore.errors import DeviceBusy, ZramError


def attached(house, *words: str, name: str = "disk") -> Path:
    """A daemon with one device, attached and mounted; the mount point."""
    house.daemon({"name": name, "disksize": "64M"})
    mounted = house.folder / "mnt"
    house.ok("attach", name, "--mkfs", "ext4", "--mount", str(mounted), *words)
    (mounted / "file").write_text("contents")
    return mounted


def record_of(house):
    (record,) = attachments(house.records)
    return record


def test_nbdfuse_dies(house):
    mounted = attached(house, "--via", "nbdfuse")
    record = record_of(house)
    record.process.end(signal.SIGKILL)
    assert record.process.wait(10)
    assert not record.alive
    assert "what served it has ended" in house.ok("detach")
    done = house.ok("detach", "disk")
    assert f"unmounted {mounted}" in done
    assert f"removed {record.node}" in done


def test_the_daemon_dies(house):
    attached(house)
    running = house.daemons[0]
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait(30)
    assert "unmounted" in house.ok("detach", "disk")


def test_the_daemon_does_not_answer(house):
    """A server that hangs: by force, nothing waits for it."""
    mounted = attached(house, "--via", "nbdfuse")
    (mounted / "more").write_bytes(os.urandom(1 << 20))
    pid = house.daemons[0].process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        done = house.ok("detach", "disk", "--force")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "ended nbdfuse" in done
    assert house.leftovers() == []


@pytest.mark.parametrize("damage", ["lost", "no JSON", "other version", "no record"])
def test_the_record_is_damaged(house, damage):
    """Without a record the kernel still knows enough."""
    mounted = attached(house, "--via", "nbdfuse")
    process = record_of(house).process
    state = Place(house.records, "disk").state
    if damage == "lost":
        state.unlink()
    elif damage == "no JSON":
        state.write_text('{"version": 1,')
    else:
        found = json.loads(state.read_text())
        found |= {"version": 99} if damage == "other version" else {"unknown": 1}
        state.write_text(json.dumps(found))
    assert f"unmounted {mounted}" in house.ok("detach", "disk")
    assert not process.alive


def test_somebody_undid_a_part(house):
    mounted = attached(house, "--via", "nbdfuse")
    record = record_of(house)
    run("umount", str(mounted))
    run("losetup", "--detach", record.node)
    done = house.ok("detach", "disk")
    assert f"unmounted {Place(house.records, 'disk').mount_point}" in done
    assert record.node not in done


def test_the_command_dies_between_steps(house, monkeypatch):
    """Every record that was saved on the way is enough to undo what was there at that moment."""
    house.daemon({"name": "disk", "disksize": "64M"})
    with house.daemons[0].client() as client:
        export = Export("disk", "zram0", client.device("disk")["nbd"][0], Process.of(house.daemons[0].process.pid))
    saves = stop_after = 0
    real, undo = Place.save, attachment_module._undo

    class Died(BaseException):
        pass

    def dying(self, record):
        nonlocal saves
        real(self, record)
        saves += 1
        if saves == stop_after:
            raise Died

    monkeypatch.setattr(Place, "save", dying)
    # a dead process does not roll back either
    monkeypatch.setattr(attachment_module, "_undo", lambda *arguments, **options: [])
    for step in range(1, 20):
        stop_after, saves = step, 0
        try:
            attach(export, Use(swap=Swap()), house.records)
        except Died:
            with monkeypatch.context() as living:
                living.setattr(attachment_module, "_undo", undo)
                detach("disk", house.records)
            assert house.leftovers() == []
        else:
            break
    assert stop_after > 4
    monkeypatch.undo()
    monkeypatch.setenv("ZRAMCORE_ATTACH_DIR", str(house.records))
    assert tables.is_swap(house.node("disk"))
    house.ok("detach", "disk")


def test_attaching_again_after_a_crash(house):
    attached(house, "--via", "nbdfuse")
    record_of(house).process.end(signal.SIGKILL)
    record_of(house).process.wait(10)
    mounted = house.folder / "other"
    house.ok("attach", "disk", "--mkfs", "ext4", "--mount", str(mounted))
    assert (mounted / "lost+found").is_dir()
    house.ok("detach", "disk")


def test_the_daemon_stops_and_detaches(house):
    """SIGTERM: what it serves is unmounted before its NBD server goes."""
    mounted = attached(house)
    assert house.daemons[0].stop() == 0
    assert not mounted.exists()
    assert house.leftovers() == []


# Refusals ---------------------------------------------------------------------------------------------------------


def test_twice(house):
    attached(house)
    again = house.cli("attach", "disk")
    assert again.exit_code == 1
    assert isinstance(again.exception, DeviceBusy)
    assert f"disk is attached as {house.node('disk')}" in str(again.exception)
    house.ok("detach", "zram0")


def test_an_open_file_keeps_it(house):
    mounted = attached(house)
    with (mounted / "file").open():
        result = house.cli("detach", "disk")
        assert isinstance(result.exception, DeviceBusy)
        assert f"(pid {os.getpid()})" in str(result.exception)
        assert (mounted / "file").read_text() == "contents"
    house.ok("detach", "disk")


def test_a_node_that_something_holds(house):
    house.daemon({"name": "disk", "disksize": "64M"})
    house.ok("attach", "disk")
    handle = os.open(house.node("disk"), os.O_RDONLY | os.O_EXCL)
    try:
        result = house.cli("detach", "disk")
        assert isinstance(result.exception, DeviceBusy)
    finally:
        os.close(handle)
    house.ok("detach", "disk")


def test_what_is_on_a_device_is_never_overwritten(house):
    mounted = attached(house)
    house.ok("detach", "disk")
    for words in (("--swap",), ("--mkfs", "xfs", "--mount", str(mounted))):
        result = house.cli("attach", "disk", *words)
        assert result.exit_code == 1
        assert "has ext4 on it, not" in str(result.exception)
        assert house.leftovers() == []
    house.ok("attach", "disk", "--mkfs", "ext4", "--mount", str(mounted))
    assert (mounted / "file").read_text() == "contents"
    house.ok("detach", "disk")


def test_a_mount_that_fails_leaves_nothing(house):
    house.daemon({"name": "disk", "disksize": "64M"})
    mounted = house.folder / "mnt"
    result = house.cli("attach", "disk", "--mkfs", "ext4", "--mount", str(mounted), "--options", "nosuchoption")
    assert result.exit_code == 1
    assert "mount -o nosuchoption" in str(result.exception)
    assert house.leftovers() == []
    assert not mounted.exists()


def test_a_path_that_is_taken(house):
    house.daemon({"name": "disk", "disksize": "64M"})
    (house.folder / "taken").touch()
    result = house.cli("attach", "disk", "--path", str(house.folder / "taken"))
    assert isinstance(result.exception, DeviceBusy)
    assert house.leftovers() == []


def test_a_loop_device_by_name(house):
    house.daemon({"name": "one", "disksize": "64M"}, {"name": "two", "disksize": "64M"})
    house.ok("attach", "one", "--via", "nbdfuse")
    node = house.node("one")
    result = house.cli("attach", "two", "--via", "nbdfuse", "--path", node)
    assert isinstance(result.exception, ZramError)
    assert [record.name for record in attachments(house.records)] == ["one"]
    house.ok("detach", "one")
    house.ok("attach", "two", "--via", "nbdfuse", "--path", node)
    assert house.node("two") == node
    house.ok("detach", "two")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--swap", "--mkfs", "ext4"), "--mkfs excludes swap"),
        (("--mount", "/mnt"), "--mount finds no file system"),
        (("--options", "ro"), "--options are those of --mount"),
        (("--priority", "3"), "--priority is that of --swap"),
    ],
)
def test_wrong_usage(house, words, reason):
    house.daemon({"name": "disk", "disksize": "64M"})
    result = house.cli("attach", "disk", *words)
    assert result.exit_code == 2
    assert reason in result.output


def test_a_device_that_is_not_served(house):
    running = house.daemon({"name": "disk", "disksize": "64M"})
    with running.client() as client:
        client.request("GET", "/sys/class/zram-control/hot_add")
    result = house.cli("attach", "zram1")
    assert "zram1 has no disksize" in str(result.exception)
