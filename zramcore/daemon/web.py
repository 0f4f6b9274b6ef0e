"""Serving the control API: waitress on a socket that is bound already, on a thread of its own; the bearer token."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import waitress
from waitress import wasyncore

from ..backing_spec import system_error
from ..errors import InvalidValue, NotPermitted

THREADS = 16
"""Requests served at once. api.MOST_CHANGES of them may be changes, so that some are always left for looking."""
LONGEST_BODY = 1 << 24
"""Bytes of a request body that are received at all: one that is longer costs the connection. See api.LONGEST_BODY."""
SHORTEST_TOKEN = 16

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class WebServer:
    """An HTTP server over a listening socket, from the start of the object until `close`."""

    def __init__(self, application: Application, listener: socket.socket) -> None:
        self._server = waitress.create_server(
            application,
            sockets=[listener],
            threads=THREADS,
            ident=None,
            connection_limit=256,
            channel_timeout=60,
            max_request_body_size=LONGEST_BODY,
        )
        self._thread = threading.Thread(target=self._server.run, name="zramcore-http", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive()

    def close(self, grace: float = 5.0) -> None:
        """Let requests in progress end within `grace` seconds, then close every connection and the socket."""
        self._server.task_dispatcher.shutdown(timeout=grace)
        # in the server's own thread: nothing else may touch its connections
        with contextlib.suppress(OSError):  # a request that ends just now has woken it before us: all is closed then
            self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._server._map, ignore_all=True))
        self._thread.join(grace)


class BearerToken:
    """Lets only requests through that carry the token (RFC 6750)."""

    def __init__(self, application: Application, token: str) -> None:
        from hmac import compare_digest  # here, for it loads libcrypto, 3 MiB that a daemon without TCP need not have

        self._application = application
        self._token = token.encode()
        self._same = compare_digest

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer" and self._same(given.strip().encode("latin-1"), self._token):
            return self._application(environ, start_response)
        body = (
            b'{"errno": 13, "name": "EACCES", "message": "a bearer token is needed", "attribute": null, "value": null, '
            b'"hint": "give the one in the daemon\'s --token-file"}\n'
        )
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("WWW-Authenticate", 'Bearer realm="zramcore"'),
        ]
        start_response("401 Unauthorized", headers)
        return [body]


def read_token(path: Path) -> str:
    """The token in a file. Raises NotPermitted (EACCES) when others may read it too, InvalidValue for a short one."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4096).decode("ascii", "replace").strip()
    except OSError as error:
        raise system_error(error, f"cannot read the token in {path}: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise NotPermitted(f"{path} is open to others than its owner", hint=f"chmod 600 {path}")
    if len(text) < SHORTEST_TOKEN or not (text.isascii() and text.isprintable()) or " " in text:
        raise InvalidValue(
            f"{path} holds no token", hint=f"one word of at least {SHORTEST_TOKEN} ASCII letters: openssl rand -hex 32"
        )
    return text


def listen_tcp(spec: str) -> socket.socket:
    """Listen on ``tcp:HOST:PORT`` (IPv6 in brackets, port 0: any free one). Raises InvalidValue, ZramError."""
    kind, _, rest = spec.partition(":")
    host, _, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if kind != "tcp" or not host or not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise InvalidValue(f"cannot serve HTTP on {spec!r}", hint="say tcp:HOST:PORT")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        return socket.create_server((str(address[0]), int(address[1])), family=family, backlog=128)
    except OSError as error:
        raise system_error(error, f"cannot listen on {spec}: {error.strerror}") from error
