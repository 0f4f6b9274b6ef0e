"""How many 4 KiB requests a second one connection carries at queue depth 32, over a unix socket.

    python tests/nbd/bench_nbd.py [--compressor lz4] [--seconds 4]

The server is a process of its own, as in life. "loop alone" is the server with a device that answers every read with
the same page: what receiving, parsing and replying cost. The client keeps 32 requests in flight and does nothing else.
`--uri PATH` measures another server's unix socket instead, with the same client and data.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from zramcore.control import Control
from zramcore.nbd import Server, listen
from zramcore.nbd import protocol as p
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue

PAGE = 4096
PAGES = 1 << 16
DEPTH = 32


def serve(path: str, compressor: str, null: bool, ready: multiprocessing.synchronize.Event) -> None:
    control = Control(build_catalogue(load_plugins()))
    control.hot_add()
    target = control.target("zram0")
    target.store("comp_algorithm", compressor)
    target.store("disksize", str(PAGES * PAGE))
    if null:
        page = b"\1" * PAGE
        target.device.pread = lambda offset, length: page  # type: ignore[method-assign]
    with Server(control, listen(f"unix:{path}")):
        ready.set()
        time.sleep(3600)


@contextlib.contextmanager
def running(path: str, compressor: str, null: bool) -> Iterator[None]:
    ready = multiprocessing.Event()
    process = multiprocessing.Process(target=serve, args=(path, compressor, null, ready))
    process.start()
    try:
        if not ready.wait(30):
            raise TimeoutError("the server did not start")
        yield
    finally:
        process.kill()
        process.join()


def connect(path: str) -> socket.socket:
    """A connection with simple replies to the default export."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.recv(18, socket.MSG_WAITALL)
    sock.sendall(struct.pack(">I", 3) + p.OPTION.pack(p.OPTION_MAGIC, p.OPT_EXPORT_NAME, 0))
    sock.recv(10, socket.MSG_WAITALL)
    return sock


def pages() -> Iterator[bytes]:
    """Pages that compress to about half."""
    half = random.Random(2).randbytes(PAGE // 2 - 8) + bytes(PAGE // 2)
    for number in range(PAGES):
        yield number.to_bytes(8, "big") + half


def measure(path: str, frames: list[bytes], reply: int, seconds: float) -> float:
    """Requests a second with DEPTH of these frames in flight, over and over."""
    sock = connect(path)
    buffer = bytearray(1 << 20)
    batches = [b"".join((frames[at:] + frames)[:DEPTH]) for at in range(0, len(frames), DEPTH)]
    size = len(frames[0])
    sock.sendall(batches[0])
    done = received = turn = 0
    start = time.monotonic()
    while (elapsed := time.monotonic() - start) < seconds:
        received += sock.recv_into(buffer)
        whole, received = divmod(received, reply)
        if whole:
            done += whole
            turn += 1
            sock.sendall(batches[turn % len(batches)][: size * whole])
    left = DEPTH * reply - received
    while left:
        left -= sock.recv_into(buffer, min(left, len(buffer)))
    sock.sendall(p.REQUEST.pack(p.REQUEST_MAGIC, 0, p.CMD_DISC, 0, 0, 0))
    sock.close()
    return done / elapsed


def run(path: str, label: str, seconds: float, write: bool = True) -> None:
    order = list(range(PAGES))
    random.Random(1).shuffle(order)
    if write:
        data = list(pages())
        writes = [p.REQUEST.pack(p.REQUEST_MAGIC, 0, p.CMD_WRITE, 7, at * PAGE, PAGE) + data[at] for at in order]
        measure(path, writes, 16, seconds)  # every page is there before the figures begin
        print(f"{label}: random 4 KiB writes {measure(path, writes, 16, seconds):8,.0f}/s")
    reads = [p.REQUEST.pack(p.REQUEST_MAGIC, 0, p.CMD_READ, 7, at * PAGE, PAGE) for at in order]
    print(f"{label}: random 4 KiB reads  {measure(path, reads, 16 + PAGE, seconds):8,.0f}/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compressor", default="lz4")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--uri", default="", help="a unix socket to measure instead")
    options = parser.parse_args()
    if options.uri:
        run(options.uri, options.uri, options.seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "bench.sock")
        with running(path, options.compressor, null=True):
            run(path, "loop alone", options.seconds, write=False)
        path = str(Path(folder) / "device.sock")
        with running(path, options.compressor, null=False):
            run(path, options.compressor, options.seconds)


if __name__ == "__main__":
    main()
