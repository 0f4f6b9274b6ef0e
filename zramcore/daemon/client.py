"""Client: the control API from the other end. Only the standard library: looking at devices needs no extra package."""

from __future__ import annotations

import errno
import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..backing_spec import system_error
from ..errors import ZramError


class NoDaemon(ZramError):
    """ECONNREFUSED: nobody answers on the control socket."""

    code = errno.ECONNREFUSED


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


class Client:
    """The daemon on a control socket. Every method raises the ZramError that the daemon answers with, and NoDaemon.

    A request takes as long as it takes: a writeback is answered when it is done. Not thread-safe: one a thread.
    """

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; another request opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """One request; the body of its answer."""
        fresh = self._connection is None
        try:
            response = self._send(method, path, body)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            # an idle connection may have been closed meanwhile; what may have been carried out is not sent again
            if fresh or method != "GET" or path.endswith("hot_add"):
                raise NoDaemon(
                    f"the daemon on {self.socket_path} went away before it answered", hint="see its log"
                ) from error
            return self.request(method, path, body)
        except OSError as error:
            self.close()
            raise self._explain(error) from error
        data = response.read()
        if response.status == 200:
            return data
        raise _error(response.status, data)

    def _send(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = _UnixConnection(self.socket_path)
        self._connection.request(method, path, body)
        return self._connection.getresponse()

    def _explain(self, error: OSError) -> ZramError:
        path = self.socket_path
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
            return NoDaemon(f"no daemon answers on {path}", hint=f"start one: zramcore daemon --socket {path}")
        hint = ""
        if error.errno == errno.EACCES:
            hint = "the socket is its owner's; `zramcore daemon --socket-group GROUP` lets a group use it"
        return system_error(error, f"cannot connect to {path}: {error.strerror or error}", hint)

    # Attributes -------------------------------------------------------------------------------------------------------

    def show(self, name: str, attribute: str) -> str:
        """An attribute's text, as the kernel's file has it."""
        return self._get(f"/sys/block/{quote(name, '')}/{quote(attribute, '')}").decode("utf-8", "surrogateescape")

    def store(self, name: str, attribute: str, text: str) -> None:
        """Write an attribute."""
        body = text.encode("utf-8", "surrogateescape")
        self.request("PUT", f"/sys/block/{quote(name, '')}/{quote(attribute, '')}", body)

    def readable(self, name: str) -> dict[str, str]:
        """Every attribute of a device that can be read, but for block_state."""
        found: dict[str, str] = self._json("GET", f"/devices/{quote(name, '')}/attributes")
        return found

    # Devices ----------------------------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """The daemon: version, pid, config, where it listens."""
        found: dict[str, Any] = self._json("GET", "/")
        return found

    def devices(self) -> list[dict[str, Any]]:
        """Every device: see status.device for the keys."""
        found: list[dict[str, Any]] = self._json("GET", "/devices")
        return found

    def device(self, name: str) -> dict[str, Any]:
        """One device."""
        found: dict[str, Any] = self._json("GET", f"/devices/{quote(name, '')}")
        return found

    def create(self, name: str, device: Mapping[str, object], nbd: Sequence[str], directory: str) -> dict[str, Any]:
        """Make a device of the keys of a config file; all of it or nothing."""
        request = {"name": name, "device": device, "nbd": list(nbd), "directory": directory}
        found: dict[str, Any] = self._json("POST", "/devices", request)
        return found

    def remove(self, name: str, *, save: bool = True, disconnect: bool = False) -> int | None:
        """Take a device down; the bytes that its image stores, None without one."""
        query = f"save={int(save)}&disconnect={int(disconnect)}"
        found: int | None = self._json("DELETE", f"/devices/{quote(name, '')}?{query}")["saved"]
        return found

    def slot_map(self, name: str, cells: int) -> dict[str, Any]:
        """The slot map: see `slot_map.slot_map`."""
        found: dict[str, Any] = self._json("GET", f"/devices/{quote(name, '')}/map?cells={cells}")
        return found

    def policies(self, name: str) -> list[dict[str, Any]]:
        """The policies of a device, and what they did."""
        found: list[dict[str, Any]] = self._json("GET", f"/devices/{quote(name, '')}/policies")
        return found

    def set_policies(self, name: str, policies: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        """Have exactly these policies: ``{"name": ..., "options": {...}}`` each."""
        found: list[dict[str, Any]] = self._json("PUT", f"/devices/{quote(name, '')}/policies", list(policies))
        return found

    # The daemon -------------------------------------------------------------------------------------------------------

    def reload(self, *, dry_run: bool = False) -> list[dict[str, Any]]:
        """Read the config file again: each change, and why it is refused, if it is."""
        found: list[dict[str, Any]] = self._json("GET" if dry_run else "POST", "/reload")
        return found

    def protect(self) -> list[str]:
        """Have the daemon lock its memory, as the device that carries swap needs it; what it cannot do."""
        missing: list[str] = self._json("POST", "/protect")["missing"]
        return missing

    def metrics(self) -> str:
        """The metrics, as Prometheus reads them."""
        return self._get("/metrics").decode()

    def _get(self, path: str) -> bytes:
        return self.request("GET", path)

    def _json(self, method: str, path: str, body: object = None) -> Any:
        return json.loads(self.request(method, path, None if body is None else json.dumps(body).encode()))


def _error(status: int, data: bytes) -> ZramError:
    """The daemon's error as it was raised there."""
    try:
        found = json.loads(data)
        error = ZramError(str(found["message"]), errno=int(found["errno"]), hint=str(found["hint"]))
        attribute, value = found["attribute"], found["value"]
    except (ValueError, KeyError, TypeError):
        return ZramError(f"the daemon answered {status}: {data[:200].decode('utf-8', 'replace')}", errno=errno.EPROTO)
    return error if attribute is None else error.at(attribute, value)
