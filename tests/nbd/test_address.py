"""Where a server listens."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys

import pytest

from zramcore.errors import DeviceBusy, InvalidValue, ZramError
from zramcore.nbd import Listener, activated, listen


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_unix_socket_is_private(tmp_path, umask):
    before = os.umask(umask)
    try:
        listener = listen(f"unix:{tmp_path}/s")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    assert listener.address == f"unix:{tmp_path}/s"
    assert listener.uri("zram0") == f"nbd+unix:///zram0?socket={tmp_path}/s"
    assert listener.uri(tls=True) == f"nbds+unix:///?socket={tmp_path}/s"
    assert listener.local
    listener.close()
    assert not (tmp_path / "s").exists()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path):
    first = listen(f"unix:{tmp_path}/s")
    with pytest.raises(DeviceBusy, match="somebody listens") as caught:
        listen(f"unix:{tmp_path}/s")
    assert caught.value.errno == errno.EBUSY
    first.socket.close()
    assert (tmp_path / "s").exists()
    second = listen(f"unix:{tmp_path}/s")
    first.close()
    assert (tmp_path / "s").exists(), "it is somebody else's now"
    second.close()
    assert not (tmp_path / "s").exists()


def test_another_file_is_left_alone(tmp_path):
    (tmp_path / "data").write_text("precious")
    with pytest.raises(InvalidValue, match="not a socket"):
        listen(f"unix:{tmp_path}/data")
    assert (tmp_path / "data").read_text() == "precious"


def test_tcp_ports_are_chosen_or_found():
    listener = listen("tcp:127.0.0.1:0")
    kind, host, port = listener.address.split(":")
    assert (kind, host) == ("tcp", "127.0.0.1")
    assert int(port) > 0
    assert listener.uri("a b") == f"nbd://127.0.0.1:{port}/a%20b"
    assert listener.local
    with pytest.raises(ZramError) as caught:
        listen(listener.address)
    assert caught.value.errno == errno.EADDRINUSE
    listener.close()
    anywhere = listen("tcp:0.0.0.0:0")
    assert not anywhere.local
    anywhere.close()


@pytest.mark.parametrize(
    "spec", ["", "unix:", "unix", "tcp:", "tcp:10809", "tcp::10809", "tcp:localhost:", "tcp:localhost:x",
             "tcp:localhost:-1", "tcp:localhost:65536", "tcp:localhost:٣", "udp:localhost:1", "/tmp/s",
             "unix:/" + "x" * 107],
)  # fmt: skip
def test_other_forms_are_refused(spec):
    with pytest.raises(InvalidValue) as caught:
        listen(spec)
    assert caught.value.attribute == "nbd"


def test_what_the_system_refuses_keeps_its_errno(tmp_path):
    with pytest.raises(ZramError) as caught:
        listen(f"unix:{tmp_path}/missing/s")
    assert caught.value.errno == errno.ENOENT


def test_only_listening_stream_sockets_are_taken():
    for sock, reason in (
        (socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "stream"),
        (socket.socket(socket.AF_INET, socket.SOCK_STREAM), "does not listen"),
    ):
        with sock, pytest.raises(InvalidValue, match=reason):
            Listener(sock)


ACTIVATED = """
import os, socket, sys
from zramcore.nbd import activated
os.environ["LISTEN_PID"] = str(os.getpid())
found = activated()
print(sorted(found), [os.get_inheritable(each.socket.fileno()) for each in found.values()])
print(*(each.address.partition(":")[0] for each in found.values()))
print(any(key.startswith("LISTEN_") for key in os.environ), activated())
"""


def test_sockets_from_systemd(tmp_path):
    unix, tcp = listen(f"unix:{tmp_path}/s"), listen("tcp:127.0.0.1:0")
    names = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "zram:zram"}

    # The child gets the sockets as 3 and 4, as systemd numbers them.
    ours = unix.socket.fileno(), tcp.socket.fileno()
    launcher = (
        "import fcntl, os, sys\n"
        f"first, second = (fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in {ours})\n"
        "for source, target in ((first, 3), (second, 4)):\n"
        "    os.dup2(source, target)\n"
        f"os.execv(sys.executable, [sys.executable, '-c', {ACTIVATED!r}])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", launcher],
        pass_fds=ours,
        env={**os.environ, **names},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == ["['zram', 'zram1'] [False, False]", "unix tcp", "False {}"]
    unix.close()
    tcp.close()


def test_sockets_meant_for_another_process_are_not_taken():
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "OTHER": "stays"}
    assert activated(environ) == {}
    assert environ == {"OTHER": "stays"}
    assert activated({}) == {}
