"""Where an NBD server listens: a unix socket, a TCP port, or a socket that systemd opened for it."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from ..errors import DeviceBusy, InvalidValue, ZramError

BACKLOG = 128
FIRST_ACTIVATED = 3
"""The first descriptor that systemd passes (sd_listen_fds)."""
FORMS = "say unix:/path/to/socket or tcp:HOST:PORT"


class Listener:
    """A listening stream socket and its name."""

    def __init__(self, sock: socket.socket, *, path: Path | None = None) -> None:
        """`path`: the socket's file, which `close` removes; None leaves whatever there is.

        Raises InvalidValue (EINVAL) for a socket that is not a listening unix or TCP one.
        """
        if sock.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            raise InvalidValue("an NBD server listens on a unix or TCP stream socket", attribute="nbd")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise InvalidValue("the socket does not listen", attribute="nbd", hint="in systemd: Accept=no")
        self.socket = sock
        self._path = path
        self._file = None if path is None else _identity(path)
        name = sock.getsockname()
        unix = sock.family == socket.AF_UNIX
        self._place = quote(os.fsdecode(name)) if unix else f"{_bracketed(name[0])}:{name[1]}"
        self.address = f"unix:{os.fsdecode(name)}" if unix else f"tcp:{self._place}"
        """``unix:/run/zram.sock`` or ``tcp:127.0.0.1:10809``, as `listen` takes it, with the port really used."""
        self.local = unix or _is_loopback(name[0])
        """Whether only this machine can connect."""

    def uri(self, export: str = "", *, tls: bool = False) -> str:
        """The NBD URI that clients take."""
        scheme = "nbds" if tls else "nbd"
        if self.socket.family == socket.AF_UNIX:
            return f"{scheme}+unix:///{quote(export)}?socket={self._place}"
        return f"{scheme}://{self._place}/{quote(export)}"

    def close(self) -> None:
        """Stop listening, and remove the socket's file if it is still ours."""
        self.socket.close()
        if self._path is not None:
            with suppress(FileNotFoundError):
                if _identity(self._path) == self._file:
                    self._path.unlink()


def listen(spec: str, *, mode: int = 0o600) -> Listener:
    """Listen on ``unix:PATH`` (the file has `mode`) or ``tcp:HOST:PORT`` (IPv6 in brackets; port 0: any).

    A socket file that nobody listens on any more is replaced. Raises InvalidValue (EINVAL) for another form, DeviceBusy
    (EBUSY) when somebody listens there, ZramError with the system's errno for the rest.
    """
    kind, _, rest = spec.partition(":")
    try:
        if kind == "unix" and rest:
            return _listen_unix(Path(rest), mode)
        if kind == "tcp":
            host, _, port = rest.rpartition(":")
            host = host.removeprefix("[").removesuffix("]")
            if host and port.isascii() and port.isdigit() and int(port) < 1 << 16:
                return _listen_tcp(host, int(port))
    except ZramError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ZramError(f"cannot listen: {reason}", attribute="nbd", value=spec, errno=error.errno) from error
    raise InvalidValue("cannot listen there", attribute="nbd", value=spec, hint=FORMS)


def _listen_unix(path: Path, mode: int) -> Listener:
    if len(os.fsencode(path)) > 107:
        raise InvalidValue("a unix socket's path has at most 107 bytes", attribute="nbd", value=str(path))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        # The mode of an unbound socket becomes its file's: there is no moment in which others could connect.
        os.fchmod(sock.fileno(), mode)
        sock.bind(os.fspath(path))
        sock.listen(BACKLOG)
        return Listener(sock, path=path)
    except BaseException:
        sock.close()
        raise


def _clear(path: Path) -> None:
    """Remove a socket file that was left behind. Raises DeviceBusy when it is in use, InvalidValue for another file."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise InvalidValue("there is a file that is not a socket", attribute="nbd", value=str(path))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:  # its backlog is full: somebody does listen
            probe.close()
    raise DeviceBusy(f"somebody listens on {path}", attribute="nbd", hint="stop the other server, or choose a path")


def _listen_tcp(host: str, port: int) -> Listener:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        return Listener(sock)
    except BaseException:
        sock.close()
        raise


def activated(environ: MutableMapping[str, str] = os.environ) -> dict[str, Listener]:
    """The sockets that systemd passed to this process, by their names (``FileDescriptorName=``, else the unit's; a
    name that comes again gets its number appended). None is inherited by children, and the variables are removed.

    Raises InvalidValue (EINVAL) for a descriptor that is not a listening socket.
    """
    pid, count, names = (environ.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    listeners: dict[str, Listener] = {}
    listed = names.split(":") if names else []
    for index in range(int(count)):
        name = listed[index] if index < len(listed) else "unknown"
        if name in listeners:
            name += str(index)
        try:
            os.set_inheritable(FIRST_ACTIVATED + index, False)
            listeners[name] = Listener(socket.socket(fileno=FIRST_ACTIVATED + index))
        except OSError as error:
            if isinstance(error, ZramError):
                raise
            raise InvalidValue(
                f"descriptor {FIRST_ACTIVATED + index} ({name}) is not a socket: {error.strerror}", attribute="nbd"
            ) from error
    return listeners


def _identity(path: Path) -> tuple[int, int, int]:
    """Tells a socket's file from one that took its place, perhaps with its inode number."""
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
