"""The control API: a WSGI application whose tree mirrors sysfs, with what sysfs has no place for beside it.

`/sys/block/NAME/ATTRIBUTE` is GET to show and PUT to store, as text. `/devices`, `/reload` and `/metrics` are ours.
Errors are JSON with the kernel's errno. docs/daemon.md lists every resource.
"""

from __future__ import annotations

import errno
import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

from ..attach.protect import protect_self
from ..errors import InvalidValue, NoSuchAttribute, NotPermitted, NotSupported, TooLong, ZramError, did_you_mean
from ..parse import kstrtoint
from . import status
from .creation import parse_policies
from .fleet import Fleet, Member
from .logs import log
from .slot_map import slot_map

MOST_CHANGES = 10
"""Changes served at once (a writeback takes a thread as long as it runs); one more is told to come back (503)."""
LONGEST_BODY = 1 << 16
"""Bytes of a request body: writes to attributes have at most 4096, a device with many policies some more."""

_STATUS = {
    errno.ENOENT: "404 Not Found",
    errno.ENODEV: "404 Not Found",
    errno.EACCES: "403 Forbidden",
    errno.EPERM: "403 Forbidden",
    errno.EBUSY: "409 Conflict",
    errno.EEXIST: "409 Conflict",
    errno.EOPNOTSUPP: "422 Unprocessable Content",
    errno.EINVAL: "400 Bad Request",
    errno.ERANGE: "400 Bad Request",
    errno.E2BIG: "413 Content Too Large",
    errno.EISDIR: "400 Bad Request",
    errno.ENOTBLK: "400 Bad Request",
    errno.ENOSPC: "507 Insufficient Storage",
    errno.ENOMEM: "507 Insufficient Storage",
    errno.EAGAIN: "503 Service Unavailable",
    errno.EINTR: "503 Service Unavailable",
    errno.ESHUTDOWN: "503 Service Unavailable",
}
"""The status for an errno; anything else is 500."""

TEXT, JSON = "text/plain; charset=utf-8", "application/json"


class Daemon(Protocol):
    """What the API needs of the daemon besides its devices."""

    def info(self) -> dict[str, Any]:
        """What the daemon is: version, pid, where it listens."""
        ...

    def create(self, request: object) -> Member:
        """Make a device of a request's JSON. Raises ZramError, and then nothing is left behind."""
        ...

    def remove(self, name: str, *, save: bool, disconnect: bool) -> int | None:
        """Take a device down, its NBD clients disconnected first if asked for; the bytes its image stores."""
        ...

    def reload(self, dry_run: bool) -> list[dict[str, Any]]:
        """Read the config file again; each change with why it is refused, if it is. Raises ZramError."""
        ...

    def nbd(self, member: Member) -> list[str]:
        """The NBD URIs of a device."""
        ...


class _WrongMethod(ZramError):
    """EOPNOTSUPP: the resource is there and does not do this."""

    code = errno.EOPNOTSUPP

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"this resource takes no {method}", hint=f"it takes {self.allowed}")


@dataclass(frozen=True)
class Request:
    """One request: its method, the parts of its path, its query and its body."""

    method: str
    parts: tuple[str, ...]
    query: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as an attribute takes it; bytes that are not UTF-8 survive as surrogates."""
        return self.body.decode("utf-8", "surrogateescape")

    def json(self) -> object:
        """The body as JSON. Raises InvalidValue (EINVAL)."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise InvalidValue(f"the body is not JSON: {error}") from error


Answer = tuple[str, bytes]
"""Content type and body."""
Handler = Callable[..., Answer]


class Api:
    """The WSGI application."""

    def __init__(self, fleet: Fleet, daemon: Daemon) -> None:
        self.fleet = fleet
        self.daemon = daemon
        self._changes = threading.BoundedSemaphore(MOST_CHANGES)
        self._routes: list[tuple[re.Pattern[str], dict[str, Handler]]] = [
            (re.compile(pattern), handlers)
            for pattern, handlers in (
                ("", {"GET": self._root}),
                ("sys/block", {"GET": self._list}),
                ("sys/block/([^/]+)", {"GET": self._list_attributes}),
                ("sys/block/([^/]+)/([^/]+)", {"GET": self._show, "PUT": self._store}),
                ("sys/class/zram-control", {"GET": self._list_control}),
                ("sys/class/zram-control/hot_add", {"GET": self._hot_add, "POST": self._hot_add, "PUT": self._no_add}),
                ("sys/class/zram-control/hot_remove", {"PUT": self._hot_remove, "GET": self._no_remove}),
                ("devices", {"GET": self._devices, "POST": self._create}),
                ("devices/([^/]+)", {"GET": self._device, "DELETE": self._remove}),
                ("devices/([^/]+)/attributes", {"GET": self._readable}),
                ("devices/([^/]+)/map", {"GET": self._map}),
                (
                    "devices/([^/]+)/policies",
                    {"GET": self._policies, "PUT": self._set_policies, "DELETE": self._no_policies},
                ),
                ("reload", {"GET": self._planned, "POST": self._reload}),
                ("protect", {"POST": self._protect}),
                ("metrics", {"GET": self._metrics}),
            )
        ]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers: list[tuple[str, str]] = []
        try:
            kind, body = self._serve(_request(environ))
            line = "200 OK"
        except Exception as error:
            line, kind, body = _error(error, headers)
        start_response(line, [("Content-Type", kind), ("Content-Length", str(len(body))), *headers])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    def _serve(self, request: Request) -> Answer:
        path = "/".join(request.parts)
        for pattern, handlers in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            # a HEAD of hot_add would make a device and not say which
            method = "GET" if request.method == "HEAD" and not path.endswith("hot_add") else request.method
            handler = handlers.get(method)
            if handler is None:
                raise _WrongMethod(request.method, handlers)
            if method == "GET":
                return handler(request, *match.groups())
            return self._change(handler, request, *match.groups())
        known = sorted({route.pattern.partition("/")[0] for route, _ in self._routes} - {""})
        raise NoSuchAttribute(f"there is no /{path}", hint=did_you_mean(request.parts[0], known))

    def _change(self, handler: Handler, request: Request, *names: str) -> Answer:
        if not self._changes.acquire(blocking=False):
            raise ZramError(
                f"{MOST_CHANGES} changes are under way already", errno=errno.EAGAIN, hint="try again when one has ended"
            )
        try:
            return handler(request, *names)
        finally:
            self._changes.release()

    # As sysfs has it --------------------------------------------------------------------------------------------------

    def _list(self, request: Request) -> Answer:
        return _lines(member.name for member in self.fleet)

    def _list_attributes(self, request: Request, name: str) -> Answer:
        return _lines(self.fleet.find(name).target.attributes())

    def _show(self, request: Request, name: str, attribute: str) -> Answer:
        return TEXT, self.fleet.find(name).target.show(attribute).encode("utf-8", "surrogateescape")

    def _store(self, request: Request, name: str, attribute: str) -> Answer:
        self.fleet.find(name).store(attribute, request.text)
        return TEXT, b""

    def _list_control(self, request: Request) -> Answer:
        return _lines(("hot_add", "hot_remove"))

    def _hot_add(self, request: Request) -> Answer:
        return TEXT, f"{self.fleet.hot_add()}\n".encode()

    def _no_add(self, request: Request) -> Answer:
        raise NotPermitted("hot_add cannot be written", attribute="hot_add", hint="read it: that adds a device")

    def _hot_remove(self, request: Request) -> Answer:
        try:
            self.fleet.hot_remove(kstrtoint(request.text))
        except ZramError as error:
            raise error.at("hot_remove", request.text.removesuffix("\n")) from None
        return TEXT, b""

    def _no_remove(self, request: Request) -> Answer:
        raise NotPermitted("hot_remove cannot be read", attribute="hot_remove", hint="write the id of a device to it")

    # What sysfs has no place for --------------------------------------------------------------------------------------

    def _root(self, request: Request) -> Answer:
        return _json(self.daemon.info())

    def _devices(self, request: Request) -> Answer:
        return _json([self._describe(member) for member in self.fleet])

    def _device(self, request: Request, name: str) -> Answer:
        return _json(self._describe(self.fleet.find(name)))

    def _create(self, request: Request) -> Answer:
        return _json(self._describe(self.daemon.create(request.json())))

    def _remove(self, request: Request, name: str) -> Answer:
        save, disconnect = (
            request.query.get(key, default) != "0" for key, default in (("save", "1"), ("disconnect", "0"))
        )
        return _json({"saved": self.daemon.remove(name, save=save, disconnect=disconnect)})

    def _readable(self, request: Request, name: str) -> Answer:
        return _json(status.readable(self.fleet.find(name)))

    def _map(self, request: Request, name: str) -> Answer:
        device = self.fleet.find(name).device
        if device is None:
            raise NotSupported(f"{name} is the kernel's zram, which has no map", hint="block_state in debugfs")
        return _json(slot_map(device, kstrtoint(request.query.get("cells", "1024"))))

    def _policies(self, request: Request, name: str) -> Answer:
        return _json(status.policies(self.fleet.find(name)))

    def _set_policies(self, request: Request, name: str) -> Answer:
        member = self.fleet.find(name)
        self.fleet.set_policies(member, parse_policies(request.json()))
        return _json(status.policies(member))

    def _no_policies(self, request: Request, name: str) -> Answer:
        self.fleet.set_policies(self.fleet.find(name), [])
        return _json([])

    def _planned(self, request: Request) -> Answer:
        return _json(self.daemon.reload(dry_run=True))

    def _reload(self, request: Request) -> Answer:
        return _json(self.daemon.reload(dry_run=False))

    def _protect(self, request: Request) -> Answer:
        return _json({"missing": protect_self()})

    def _metrics(self, request: Request) -> Answer:
        from . import metrics  # here, for prometheus_client is 6 MiB that a daemon nobody asks need not have

        return metrics.CONTENT_TYPE, metrics.prometheus_text(self.fleet)

    def _describe(self, member: Member) -> dict[str, Any]:
        return {**status.device(member), "nbd": self.daemon.nbd(member)}


def _request(environ: dict[str, Any]) -> Request:
    path = environ.get("PATH_INFO", "/").encode("latin-1").decode("utf-8", "surrogateescape")
    query = {key: values[-1] for key, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
    parts = tuple(part for part in path.split("/") if part)
    body = environ["wsgi.input"].read(LONGEST_BODY + 1)
    if len(body) > LONGEST_BODY:
        raise TooLong(f"a request's body has at most {LONGEST_BODY} bytes")
    return Request(environ["REQUEST_METHOD"], parts, query, body)


def _lines(names: Iterable[str]) -> Answer:
    return TEXT, "".join(f"{name}\n" for name in names).encode()


def _json(value: object) -> Answer:
    return JSON, json.dumps(value, indent=2).encode() + b"\n"


def _error(error: Exception, headers: list[tuple[str, str]]) -> tuple[str, str, bytes]:
    """Status, content type and body of an error. What is not a ZramError is a fault of ours, and is logged."""
    if not isinstance(error, ZramError):
        log.exception("a request failed")
        error = ZramError(f"internal error: {type(error).__name__}: {error}")
    line = _STATUS.get(error.errno or 0, "500 Internal Server Error")
    if isinstance(error, _WrongMethod):
        line = "405 Method Not Allowed"
        headers.append(("Allow", error.allowed))
    body = {
        "errno": error.errno,
        "name": error.errno_name,
        "message": error.reason,
        "attribute": error.attribute,
        "value": None if error.value is None else str(error.value),
        "hint": error.hint,
    }
    return line, JSON, json.dumps(body).encode() + b"\n"
