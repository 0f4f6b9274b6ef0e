"""`bench nbd`: requests over a unix socket to our server and to nbdkit's memory plugin, and their resident memory.

The servers are processes of their own. The limit is the bare codec at the same pages, in this process.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import DeviceIOError, NotSupported
from ..nbd import protocol as p
from .block import LimitSide, Request
from .data import MIB, PAGE, Data
from .memory import resident_bytes
from .nbd_client import Client
from .rounds import Contender, Tell, in_one, labelled, take_turns
from .rows import Row, compare, ratio

PEER = "nbdkit zstd"
PATIENCE = 30.0
"""Seconds that a server may take to listen."""


@dataclass(frozen=True)
class ServerKind:
    """A server that can be started: the side it is, the algorithm that is its limit ("" for none), its command."""

    side: str
    comp: str
    command: tuple[str, ...]
    """``{socket}`` and ``{size}`` stand for what is only known later."""


def servers(comps: Sequence[str], *, peers: bool) -> list[ServerKind]:
    """Ours with these algorithms and, if wanted, nbdkit's. Raises NotSupported (EOPNOTSUPP) without nbdkit."""
    ours = (sys.executable, "-m", "zramcore.bench.nbd_server")
    kinds = [ServerKind(f"zramcore {comp}", comp, (*ours, "{socket}", comp, "{size}")) for comp in comps]
    if peers:
        if shutil.which("nbdkit") is None:
            raise NotSupported("nbdkit is not installed", hint="apt install nbdkit")
        nbdkit = ("nbdkit", "--foreground", "--exit-with-parent", "-U", "{socket}", "memory", "size={size}")
        kinds += [ServerKind(f"nbdkit {name}", "", (*nbdkit, f"allocator={name}")) for name in ("zstd", "malloc")]
    return kinds


@dataclass
class Running:
    """A server that listens, and a connection to it."""

    kind: ServerKind
    process: subprocess.Popen[bytes]
    client: Client


@contextmanager
def running(kind: ServerKind, size: int, folder: Path) -> Iterator[Running]:
    """Start a server with an empty export of `size` bytes; it is ended afterwards. Raises DeviceIOError (EIO)."""
    socket = str(folder / f"{kind.side.replace(' ', '-')}.sock")
    command = [word.format(socket=socket, size=size) for word in kind.command]
    # a session of its own: Ctrl-C is for who started it, which ends it then
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            client = _connect(socket, process)
            try:
                yield Running(kind, process, client)
            finally:
                client.close()
        finally:
            process.kill()
    Path(socket).unlink(missing_ok=True)


def _connect(socket: str, process: subprocess.Popen[bytes]) -> Client:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return Client(socket)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise DeviceIOError(f"no server listens on {socket}") from error
        time.sleep(0.01)


def write_frames(data: Data | bytes, offsets: Sequence[int], request: int) -> list[bytes]:
    """Requests that write `request` bytes of the data at each offset to the same place."""
    view = memoryview(data) if isinstance(data, bytes) else data.view
    return [
        p.REQUEST.pack(p.REQUEST_MAGIC, 0, p.CMD_WRITE, offset, offset, request) + view[offset : offset + request]
        for offset in offsets
    ]


def read_frames(offsets: Sequence[int], request: int) -> list[bytes]:
    """Requests that read `request` bytes at each offset."""
    return [p.REQUEST.pack(p.REQUEST_MAGIC, 0, p.CMD_READ, offset, offset, request) for offset in offsets]


def bench(
    kinds: Sequence[ServerKind],
    limits: Mapping[str, LimitSide],
    data: Data,
    requests: Sequence[int],
    depths: Sequence[int],
    rounds: int,
    tell: Tell,
) -> Iterator[Row]:
    """Rows for writes and reads at random of each size and depth, and for memory. `limits`: by algorithm.

    Raises DeviceIOError (EIO) when a server gives back other bytes than were written.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zramcore-bench-")))
        sides = [stack.enter_context(running(kind, data.size, folder)) for kind in kinds]
        whole = write_frames(data, range(0, data.size, MIB), MIB)
        for side in sides:
            side.client.run(whole, p.SIMPLE_REPLY.size, 1)
        yield from _memory("memory, these data", sides)
        for request in requests:
            offsets = list(range(0, data.size, request))
            random.Random(request).shuffle(offsets)
            for work in ("write", "read"):
                write = work == "write"
                frames = write_frames(data, offsets, request) if write else read_frames(offsets, request)
                reply = p.SIMPLE_REPLY.size + (0 if write else request)
                todo = [Request(offset, request, offset, write) for offset in offsets]
                for depth in depths:
                    groups = _contenders(sides, limits, frames, reply, depth, todo)
                    name = f"random {work}, depth {depth}"
                    unique = list({id(each): each for group in groups for each in group}.values())
                    take_turns(unique, 1, rounds, labelled(tell, name))
                    yield from _rows(name, request, groups, data.size // PAGE)
        for side in sides:
            _verify(side, data)
    yield from _random_memory(kinds, data.size, tell)


def _contenders(
    sides: Sequence[Running],
    limits: Mapping[str, LimitSide],
    frames: Sequence[bytes],
    reply: int,
    depth: int,
    todo: Sequence[Request],
) -> list[list[Contender]]:
    """A group for each algorithm, with its limit, and one for the peers."""
    groups: dict[str, list[Contender]] = {}
    for side in sides:
        job = partial(side.client.run, frames, reply, depth)
        groups.setdefault(side.kind.comp, []).append(in_one(side.kind.side, job))
    for comp, limit in limits.items():
        groups[comp].append(in_one(limit.side, limit.job(0, 0, todo), role="limit"))
    return list(groups.values())


def _rows(work: str, request: int, groups: Sequence[Sequence[Contender]], pages: int) -> Iterator[Row]:
    peer = next((each for group in groups for each in group if each.side == PEER), None)
    for group in groups:
        for row, contender in zip(compare(work, request, group, pages), group, strict=True):
            if row.us_per_page and contender.role != "limit":
                row.figures["requests/s"] = 1e6 / (row.us_per_page * request / PAGE)
                if peer is not None:
                    row.figures[f"{PEER}=1"] = ratio(peer.seconds, contender.seconds)
            yield row


def _memory(work: str, sides: Sequence[Running]) -> list[Row]:
    resident = {side.kind.side: resident_bytes(side.process.pid) for side in sides}
    rows = []
    for side, used in resident.items():
        figures = {"resident_bytes": float(used)}
        if PEER in resident:
            figures[f"{PEER}=1"] = used / resident[PEER]
        rows.append(Row(work, MIB, 1, side, figures=figures))
    return rows


def _random_memory(kinds: Sequence[ServerKind], size: int, tell: Tell) -> list[Row]:
    tell("random data")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zramcore-bench-")))
        sides = [stack.enter_context(running(kind, size, folder)) for kind in kinds]
        for offset in range(0, size, MIB):
            frame = p.REQUEST.pack(p.REQUEST_MAGIC, 0, p.CMD_WRITE, offset, offset, MIB) + os.urandom(MIB)
            for side in sides:
                side.client.run([frame], p.SIMPLE_REPLY.size, 1)
        return _memory("memory, random data", sides)


def _verify(side: Running, data: Data) -> None:
    for offset in range(0, data.size, MIB):
        if side.client.read(offset, MIB) != data.view[offset : offset + MIB]:
            raise DeviceIOError(f"{side.kind.side} gave other bytes back at byte {offset}")
