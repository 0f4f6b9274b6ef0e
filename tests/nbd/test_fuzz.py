"""Frames made at random, mostly wrong: the server goes on serving, and the device stays in order."""

from __future__ import annotations

import logging
import random
import socket
import threading
from collections import Counter

import pytest

from zramcore.nbd import protocol as p
from zramcore.nbd.handshake import Handshake
from zramcore.testing.inspection import check_consistent

SIZE = 1 << 20
INTERESTING = (0, 1, 2, 511, 4095, 4096, 4097, 65536, SIZE - 1, SIZE, SIZE + 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
OPTIONS = (*range(13), 99, 2**32 - 1)


def number(rng, most):
    choice = rng.random()
    if choice < 0.6:
        return rng.choice(INTERESTING) & most
    return rng.randrange(SIZE) if choice < 0.9 else rng.randrange(most + 1)


def option(rng):
    """One option, with data that is right, cut short, too long or noise."""
    kind = rng.choice(OPTIONS)
    name = rng.choice([b"", b"zram0", b"zram1", b"\xff\0", b"x" * rng.randrange(5000)])
    queries = [
        rng.choice([b"base:allocation", b"zram:", b"nocolon", rng.randbytes(9)]) for _ in range(rng.randrange(4))
    ]
    data = rng.choice(
        [
            b"",
            rng.randbytes(rng.randrange(64)),
            name,
            len(name).to_bytes(4, "big") + name + b"\0\1\0\3",
            len(name).to_bytes(4, "big") + name + len(queries).to_bytes(4, "big")
            + b"".join(len(query).to_bytes(4, "big") + query for query in queries),
        ]
    )  # fmt: skip
    magic = p.OPTION_MAGIC if rng.random() < 0.99 else rng.getrandbits(64)
    length = len(data) if rng.random() < 0.97 else number(rng, 2**32 - 1)
    return p.OPTION.pack(magic, kind, length) + data


def request(rng):
    """One request; its length and its payload belong together, or not."""
    kind = rng.choice([*range(9), p.CMD_READ, p.CMD_WRITE, p.CMD_WRITE, rng.getrandbits(16)])
    if kind == p.CMD_DISC and rng.random() < 0.9:
        kind = p.CMD_FLUSH
    flags = rng.choice([0, 0, 0, 1, 2, 4, 8, 16, rng.getrandbits(16)])
    length = rng.choice([0, 1, 512, 4096, 4096, 9000, number(rng, 2**32 - 1)])
    payload = b""
    if kind == p.CMD_WRITE:
        length = min(length, 20_000)
        payload = rng.randbytes(length) if rng.random() < 0.998 else rng.randbytes(rng.randrange(length + 1))
    magic = p.REQUEST_MAGIC if rng.random() < 0.998 else rng.getrandbits(32)
    return p.REQUEST.pack(magic, flags, kind, rng.getrandbits(64), number(rng, 2**64 - 1), length) + payload


def drain(sock):
    """Read and forget, so that the server is never stuck with replies."""
    try:
        while sock.recv(1 << 20):
            continue
    except OSError:
        return


def assault(house, rng, frames):
    """One connection: some frames, whole or cut, and a more or less sudden end."""
    if rng.random() < 0.4:
        client = house.connect()
        client.exactly(18)
        flags = rng.choice([0, 1, 2, 3, 3, 3, 3, 3, 7, rng.getrandbits(32)])
        parts = [flags.to_bytes(4, "big"), *(option(rng) for _ in range(frames))]
    else:
        client = house.ready(
            "zram0", contexts=rng.choice([(), ("base:allocation",), ("zram:state", "base:allocation")])
        )
        parts = [request(rng) for _ in range(frames)]
    reader = threading.Thread(target=drain, args=(client.sock,))
    reader.start()
    try:
        for part in parts:
            client.sock.sendall(part if rng.random() < 0.998 else part[: rng.randrange(len(part) + 1)])
        if rng.random() < 0.5:
            client.sock.shutdown(socket.SHUT_WR)
        else:
            client.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        client.sock.close()  # the server has hung up already
    reader.join()
    client.sock.close()
    house.clients.remove(client)


def fuzz(house, frames, seed, caplog, monkeypatch):
    """Assaults until the server has taken in `frames` options and requests."""
    caplog.set_level(logging.INFO, "zramcore.nbd")
    heard = Counter()
    handle = Handshake._handle

    def counted(self, *arguments):
        heard["options"] += 1
        return handle(self, *arguments)

    monkeypatch.setattr(Handshake, "_handle", counted)
    server = house.serve(handshake_timeout=10.0)
    witness = house.ready("zram0", structured=True)
    rng = random.Random(seed)
    while heard.total() < frames:
        assault(house, rng, rng.randrange(1, 200))
        page = rng.randrange(SIZE >> 12) << 12
        mine = rng.randbytes(4096)
        assert witness.write(page, mine) == 0, f"after {heard} of seed {seed}"
        assert len(witness.read(page, 4096)) == 4096
        assert not crashes(caplog), f"seed {seed}"
        heard["requests"] += sum(
            record.fields["requests"] for record in caplog.records if record.event == "disconnected"
        )
        caplog.clear()
    server.stop()
    check_consistent(house.control.device("zram0"))
    assert house.control.device("zram0").holders == 0


def crashes(caplog):
    return [record.getMessage() for record in caplog.records if "crashed" in record.getMessage()]


def test_fuzz(house, caplog, monkeypatch):
    fuzz(house, 5_000, 1, caplog, monkeypatch)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_fuzz_long(house, caplog, monkeypatch, seed):
    """100,000 frames."""
    fuzz(house, 10_000, 1000 + seed, caplog, monkeypatch)
