"""The control socket: where it is, and how a daemon takes its place without taking it from another."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Mapping

from ..backing_spec import system_error
from ..errors import DeviceBusy, InvalidValue, ZramError

VARIABLE = "ZRAMCORE_SOCKET"
SYSTEM_SOCKET = "/run/zramcore/control.sock"
LONGEST = 107
"""Bytes a path may have in sockaddr_un (unix(7)), less the NUL at its end."""


def default_socket(environment: Mapping[str, str] = os.environ, uid: int | None = None) -> str:
    """Where the control socket is: ZRAMCORE_SOCKET; /run/zramcore for root; else the user's runtime directory."""
    chosen = environment.get(VARIABLE)
    if chosen:
        return chosen
    if (os.getuid() if uid is None else uid) == 0 or not environment.get("XDG_RUNTIME_DIR"):
        return SYSTEM_SOCKET
    return os.path.join(environment["XDG_RUNTIME_DIR"], "zramcore", "control.sock")


class UnixListener:
    """A bound and listening unix socket with its file, and a lock beside it that says whose it is."""

    def __init__(self, path: str, group: str | None = None) -> None:
        """Bind; the file's mode is 0600, or 0660 for the members of `group`.

        A file that nobody answers on is replaced. Raises DeviceBusy (EBUSY) when a daemon has the place, InvalidValue
        for a path that is too long or a group that does not exist, ZramError with the errno of what failed.
        """
        self.path = os.path.abspath(path)
        if len(os.fsencode(self.path)) > LONGEST:
            raise InvalidValue(f"{self.path} is too long for a socket", hint=f"at most {LONGEST} bytes")
        gid = _group_id(group)
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o755 if gid is not None else 0o700, exist_ok=True)
            self._lock = self._take_lock()
        except ZramError:
            raise
        except OSError as error:
            raise _explain(error, self.path) from error
        try:
            self.socket = self._bind(gid)
        except BaseException:
            os.close(self._lock)
            raise

    def _take_lock(self) -> int:
        """Two daemons that start at once must not both find the file stale: the lock decides."""
        handle = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise _taken(self.path) from None
        return handle

    def _bind(self, gid: int | None) -> socket.socket:
        _remove_stale(self.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # the file must never be open to more than it will be: nobody can connect before its mode is right
        mask = os.umask(0o177)
        try:
            listener.bind(self.path)
            if gid is not None:
                os.chown(self.path, -1, gid)
                os.chmod(self.path, 0o660)
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise _explain(error, self.path) from error
        finally:
            os.umask(mask)
        self._inode = os.stat(self.path).st_ino
        return listener

    def unlink(self) -> None:
        """Take the file away, if it is still ours; connections that exist go on."""
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(self.path).st_ino == self._inode:
                os.unlink(self.path)

    def close(self) -> None:
        """Unlink and close. The lock's file stays: to remove it would let two daemons lock two files."""
        self.unlink()
        self.socket.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody answers on. Raises DeviceBusy (EBUSY) when somebody does, or it is no socket."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise DeviceBusy(f"{path} exists and is not a socket", hint="choose another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError as error:
            raise _explain(error, path) from error
    raise _taken(path)


def _taken(path: str) -> DeviceBusy:
    return DeviceBusy(f"a daemon serves {path} already", hint="stop it, or choose another --socket")


def _group_id(group: str | None) -> int | None:
    if group is None:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InvalidValue(f"there is no group {group!r}", hint=f"make it: groupadd --system {group}") from None


def _explain(error: OSError, path: str) -> ZramError:
    hint = "choose a place of your own with --socket" if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else ""
    return system_error(error, f"cannot listen on {path}: {error.strerror}", hint)
