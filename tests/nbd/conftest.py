"""A raw NBD client, and servers for it to talk to."""

from __future__ import annotations

import itertools
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Any

import pytest

from zramcore.control import Control
from zramcore.device import Device
from zramcore.interfaces import Catalogue
from zramcore.nbd import Server, listen
from zramcore.nbd import protocol as p
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import Clock

PATIENCE = 20.0
"""Seconds until a test that waits for a reply fails instead."""
OPTION_HEAD = Struct(">QIII")
PAIR = Struct(">II")


@dataclass
class Reply:
    """Everything that came back for one request."""

    error: int = 0
    message: str = ""
    error_offset: int | None = None
    chunks: list[tuple[str, int, bytes | int]] = field(default_factory=list)
    """("data", offset, bytes) and ("hole", offset, size), in order."""
    status: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """By context: (length, status)."""
    structured: bool = False

    @property
    def data(self) -> bytes:
        """The content chunks, put together."""
        parts = [(at, what if isinstance(what, bytes) else bytes(what)) for _, at, what in self.chunks]
        return b"".join(part for _, part in sorted(parts))


class Client:
    """Speaks NBD one field at a time, right or wrong. `sock` is open to tests that want to be ruder."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.structured = False
        self.cookies = itertools.count(1)
        self.reads: dict[int, tuple[int, int]] = {}

    def exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.sock.recv(length - len(data))
            if not part:
                raise EOFError(f"{len(data)} of {length} bytes")
            data += part
        return data

    def closed(self) -> bool:
        """Whether the server has ended the connection (waits for it)."""
        try:
            return self.sock.recv(1) == b""
        except (ConnectionError, ssl.SSLError):
            return True

    # Negotiation

    def greet(self, flags: int = p.FLAG_FIXED_NEWSTYLE | p.FLAG_NO_ZEROES) -> Client:
        magic, option_magic, offered = p.GREETING.unpack(self.exactly(p.GREETING.size))
        assert (magic, option_magic) == (p.INIT_MAGIC, p.OPTION_MAGIC)
        assert offered == p.FLAG_FIXED_NEWSTYLE | p.FLAG_NO_ZEROES
        self.sock.sendall(p.CLIENT_FLAGS.pack(flags))
        return self

    def send_option(self, option: int, data: bytes = b"", magic: int = p.OPTION_MAGIC, length: int = -1) -> None:
        self.sock.sendall(p.OPTION.pack(magic, option, len(data) if length < 0 else length) + data)

    def option(self, option: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Send an option; returns its replies (type, data), the final one last."""
        self.send_option(option, data)
        replies = []
        while True:
            magic, about, kind, length = OPTION_HEAD.unpack(self.exactly(OPTION_HEAD.size))
            assert (magic, about) == (p.OPTION_REPLY_MAGIC, option)
            replies.append((kind, self.exactly(length)))
            if kind == p.REP_ACK or kind >> 31:
                return replies

    def answer(self, option: int, data: bytes = b"") -> int:
        """The type of the final reply to an option."""
        return self.option(option, data)[-1][0]

    def negotiate_structured(self) -> Client:
        assert self.answer(p.OPT_STRUCTURED_REPLY) == p.REP_ACK
        self.structured = True
        return self

    def contexts(self, *queries: str, name: str = "", option: int = p.OPT_SET_META_CONTEXT) -> dict[str, int]:
        """Set (or list) contexts; returns what was agreed on, by name."""
        *found, last = self.option(option, meta_query(*queries, name=name))
        assert last == (p.REP_ACK, b"")
        assert all(kind == p.REP_META_CONTEXT for kind, _ in found)
        return {data[4:].decode(): int.from_bytes(data[:4], "big") for _, data in found}

    def go(self, name: str = "", *infos: int, option: int = p.OPT_GO) -> dict[int, bytes]:
        """Choose an export; returns the information that came, by type."""
        *found, last = self.option(option, info_query(name, *infos))
        assert last == (p.REP_ACK, b""), last
        assert all(kind == p.REP_INFO for kind, _ in found)
        return {int.from_bytes(data[:2], "big"): data[2:] for _, data in found}

    # Transmission

    def send(self, kind: int, offset: int = 0, length: int = 0, *, flags: int = 0, payload: bytes = b"") -> int:
        """Send a request; returns its cookie."""
        cookie = next(self.cookies)
        self.sock.sendall(self.frame(kind, offset, length or len(payload), flags, cookie) + payload)
        return cookie

    def frame(self, kind: int, offset: int, length: int, flags: int, cookie: int) -> bytes:
        if kind == p.CMD_READ:
            self.reads[cookie] = offset, length
        return p.REQUEST.pack(p.REQUEST_MAGIC, flags, kind, cookie, offset, length)

    def receive(self, count: int = 1) -> dict[int, Reply]:
        """The complete replies to `count` requests, by cookie."""
        done: dict[int, Reply] = {}
        replies: dict[int, Reply] = {}
        while len(done) < count:
            magic = int.from_bytes(self.exactly(4), "big")
            if magic == p.SIMPLE_REPLY_MAGIC:
                error, cookie = Struct(">IQ").unpack(self.exactly(12))
                reply = done[cookie] = Reply(error)
                read = self.reads.pop(cookie, None)
                assert read is None or not self.structured, "a read is answered by structured replies"
                if read is not None and not error and read[1]:
                    reply.chunks.append(("data", read[0], self.exactly(read[1])))
                continue
            assert magic == p.STRUCTURED_REPLY_MAGIC, hex(magic)
            assert self.structured
            flags, kind, cookie, length = Struct(">HHQI").unpack(self.exactly(16))
            reply = replies.setdefault(cookie, Reply(structured=True))
            self._chunk(reply, kind, self.exactly(length))
            if flags & p.REPLY_FLAG_DONE:
                done[cookie] = replies.pop(cookie)
                self.reads.pop(cookie, None)
        assert not replies, "replies are not left half done"
        return done

    def _chunk(self, reply: Reply, kind: int, payload: bytes) -> None:
        if kind == p.REPLY_OFFSET_DATA:
            assert len(payload) > 8
            reply.chunks.append(("data", int.from_bytes(payload[:8], "big"), payload[8:]))
        elif kind == p.REPLY_OFFSET_HOLE:
            offset, size = Struct(">QI").unpack(payload)
            assert size
            reply.chunks.append(("hole", offset, size))
        elif kind == p.REPLY_BLOCK_STATUS:
            reply.status[int.from_bytes(payload[:4], "big")] = list(PAIR.iter_unpack(payload[4:]))
        elif kind in (p.REPLY_ERROR, p.REPLY_ERROR_OFFSET):
            error, length = Struct(">IH").unpack_from(payload)
            assert error
            reply.error, reply.message = error, payload[6 : 6 + length].decode()
            rest = payload[6 + length :]
            if kind == p.REPLY_ERROR_OFFSET:
                (reply.error_offset,) = Struct(">Q").unpack(rest)
            else:
                assert rest == b""
        else:
            assert (kind, payload) == (p.REPLY_NONE, b"")

    def do(self, kind: int, offset: int = 0, length: int = 0, *, flags: int = 0, payload: bytes = b"") -> Reply:
        """Send a request and return its reply."""
        cookie = self.send(kind, offset, length, flags=flags, payload=payload)
        return self.receive()[cookie]

    def read(self, offset: int, length: int, flags: int = 0) -> bytes:
        reply = self.do(p.CMD_READ, offset, length, flags=flags)
        assert not reply.error, reply
        return reply.data

    def write(self, offset: int, payload: bytes, flags: int = 0) -> int:
        """Write; returns the error."""
        return self.do(p.CMD_WRITE, offset, flags=flags, payload=payload).error

    def disconnect(self) -> None:
        """Leave politely, and see the server close."""
        self.send(p.CMD_DISC)
        assert self.closed()
        self.sock.close()


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return len(data).to_bytes(4, "big") + data


def info_query(name: str, *infos: int) -> bytes:
    return string(name) + len(infos).to_bytes(2, "big") + b"".join(info.to_bytes(2, "big") for info in infos)


def meta_query(*queries: str, name: str = "") -> bytes:
    return string(name) + len(queries).to_bytes(4, "big") + b"".join(map(string, queries))


Connect = Callable[..., Client]


class House:
    """A control with one device of `size` bytes, and its servers and clients."""

    def __init__(self, catalogue: Catalogue, folder: Path, size: int = 1 << 20) -> None:
        self.clock = Clock()
        self.control = Control(catalogue, clock=self.clock)
        self.folder = folder
        self.servers: list[Server] = []
        self.clients: list[Client] = []
        self.add(size, comp_algorithm="lz4")

    def add(self, size: int, **settings: str) -> str:
        """One more device; returns its name."""
        name = f"zram{self.control.hot_add()}"
        target = self.control.target(name)
        for attribute, value in settings.items():
            target.store(attribute, value)
        if size:
            target.store("disksize", str(size))
        return name

    def serve(self, spec: str = "", **options: Any) -> Server:
        server = Server(self.control, listen(spec or f"unix:{self.folder}/{len(self.servers)}.sock"), **options)
        self.servers.append(server)
        server.start()
        return server

    def connect(self, server: Server | None = None) -> Client:
        """A client that has said nothing yet."""
        chosen = server or (self.servers[0] if self.servers else self.serve())
        kind, _, rest = chosen.address.partition(":")
        if kind == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            try:
                sock.connect(rest)
            except OSError:
                sock.close()
                raise
        else:
            host, _, port = rest.rpartition(":")
            sock = socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE)
        client = Client(sock)
        self.clients.append(client)
        return client

    def ready(self, name: str = "", *, structured: bool = False, contexts: tuple[str, ...] = ()) -> Client:
        """A client in transmission."""
        client = self.connect().greet()
        if structured or contexts:
            client.negotiate_structured()
        if contexts:
            client.contexts(*contexts, name=name)
        client.go(name)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.sock.close()
        for server in self.servers:
            server.stop()
        for number in list(self.control.devices):
            self.control.hot_remove(number)
        FaultyDriver.reset()


@pytest.fixture
def house(catalogue: Catalogue, tmp_path: Path) -> Iterator[House]:
    """A device of 1 MiB, zram0, and whatever a test wants to serve it with. At the end nothing holds a device."""
    house = House(catalogue, tmp_path)
    yield house
    house.close()


@pytest.fixture
def device(house: House) -> Device:
    """zram0 itself."""
    return house.control.device("zram0")


@pytest.fixture
def disk(house: House) -> FaultyDriver:
    """The FaultyDriver under one more device of 1 MiB, zram1."""
    house.add(1 << 20, comp_algorithm="lz4", backing_dev="faulty:disk,blocks=64")
    return FaultyDriver.named("disk")


@pytest.fixture(params=[False, True], ids=["simple", "structured"])
def client(house: House, request: pytest.FixtureRequest) -> Client:
    """A client of zram0 in transmission, with simple and with structured replies."""
    return house.ready(structured=request.param)


@dataclass(frozen=True)
class Certificates:
    """PEM files, named as libnbd, qemu and nbdkit look for them in a folder."""

    folder: Path

    def __getitem__(self, name: str) -> Path:
        return self.folder / f"{name}.pem"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA (ca-cert), and what it signed for localhost (server-cert, server-key) and for a client (client-cert,
    client-key); stranger-cert and stranger-key are somebody else's."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for authority in ("ca", "stranger"):
        openssl("req", "-x509", *key, "-days", "2", "-subj", f"/CN={authority}", "-keyout", f"{authority}-key.pem",
                "-out", f"{authority}-cert.pem")  # fmt: skip
    for name, usage in (("server", "serverAuth"), ("client", "clientAuth")):
        (folder / "ext").write_text(
            f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n"
            "keyUsage=digitalSignature\n"
        )
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
                "-days", "2", "-extfile", "ext", "-out", f"{name}-cert.pem")  # fmt: skip
    return Certificates(folder)
