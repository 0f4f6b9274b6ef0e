"""The control socket: its place, its mode, and who has it."""

import errno
import grp
import os
import socket
import stat

import pytest

from zramcore.daemon.sockets import SYSTEM_SOCKET, UnixListener, default_socket
from zramcore.errors import DeviceBusy, InvalidValue, ZramError


@pytest.mark.parametrize(
    ("environment", "uid", "place"),
    [
        ({"ZRAMCORE_SOCKET": "/x/y"}, 0, "/x/y"),
        ({"XDG_RUNTIME_DIR": "/run/user/0"}, 0, SYSTEM_SOCKET),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, 7, "/run/user/7/zramcore/control.sock"),
        ({}, 7, SYSTEM_SOCKET),
    ],
)
def test_where_it_is(environment, uid, place):
    assert default_socket(environment, uid) == place


def test_only_its_owner_may_use_it_and_the_umask_is_as_before(tmp_path):
    before = os.umask(0)
    try:
        listener = UnixListener(str(tmp_path / "new" / "c.sock"))
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(listener.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) == 0o700
    listener.close()
    assert not os.path.exists(listener.path)


def test_a_group_may_use_it(tmp_path):
    group = grp.getgrgid(os.getgid())
    listener = UnixListener(str(tmp_path / "c.sock"), group.gr_name)
    found = os.stat(listener.path)
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, group.gr_gid)
    listener.close()


def test_an_unknown_group_is_refused(tmp_path):
    with pytest.raises(InvalidValue, match="no group 'nosuchgroup'"):
        UnixListener(str(tmp_path / "c.sock"), "nosuchgroup")
    assert os.listdir(tmp_path) == []


def test_a_second_one_is_refused_and_the_first_is_untouched(tmp_path):
    path = str(tmp_path / "c.sock")
    first = UnixListener(path)
    with pytest.raises(DeviceBusy, match="a daemon serves"):
        UnixListener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    first.close()
    UnixListener(path).close()


def test_a_file_that_nobody_answers_on_is_replaced(tmp_path):
    path = str(tmp_path / "c.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    assert os.path.exists(path)
    UnixListener(path).close()


def test_one_that_somebody_without_our_lock_answers_on_is_left_alone(tmp_path):
    path = str(tmp_path / "c.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(DeviceBusy):
            UnixListener(path)
        assert os.path.exists(path)
    UnixListener(path).close()  # the refused one let go of the lock


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "c.sock"
    path.write_text("precious")
    with pytest.raises(DeviceBusy, match="is not a socket"):
        UnixListener(str(path))
    assert path.read_text() == "precious"


def test_closing_leaves_a_file_that_is_not_ours(tmp_path):
    path = tmp_path / "c.sock"
    listener = UnixListener(str(path))
    path.unlink()
    path.write_text("somebody else's")
    listener.close()
    assert path.read_text() == "somebody else's"


def test_a_path_that_is_too_long_and_a_place_that_is_none(tmp_path):
    with pytest.raises(InvalidValue, match="too long"):
        UnixListener("/" + "x" * 120)
    (tmp_path / "file").write_text("")
    with pytest.raises(ZramError) as caught:
        UnixListener(str(tmp_path / "file" / "c.sock"))
    assert caught.value.errno == errno.ENOTDIR or caught.value.errno == errno.EEXIST
