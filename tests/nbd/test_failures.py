"""Flushes, and what a client hears when the device cannot do as asked."""

from __future__ import annotations

import errno
import random

import pytest

from zramcore.nbd import protocol as p
from zramcore.nbd import reading
from zramcore.nbd.transmission import BUFFER
from zramcore.testing.inspection import check_consistent, stat

SIZE = 1 << 20
RANDOM = random.Random(4)


def noise(size: int) -> bytes:
    return RANDOM.randbytes(size)


# Durability -----------------------------------------------------------------------------------------------------------


def test_flush_and_fua_flush_the_device(house, disk):
    client = house.ready("zram1")
    assert client.write(0, noise(4096)) == 0
    assert client.do(p.CMD_TRIM, 0, 4096).error == 0
    assert disk.flushes == 0
    for number, (kind, flags) in enumerate(
        [(p.CMD_FLUSH, 0), (p.CMD_WRITE, 1), (p.CMD_TRIM, 1), (p.CMD_WRITE_ZEROES, 1), (p.CMD_FLUSH, 1)], 1
    ):
        payload = noise(4096) if kind == p.CMD_WRITE else b""
        assert client.do(kind, 0, 0 if kind == p.CMD_FLUSH else 4096, flags=flags, payload=payload).error == 0
        assert disk.flushes == number
    long = noise(BUFFER - 20)[: SIZE - 4096]
    assert client.write(0, long, flags=p.CMD_FLAG_FUA) == 0
    assert disk.flushes == 6
    client.read(0, 4096, flags=p.CMD_FLAG_FUA)
    assert disk.flushes == 6


def test_a_batch_shares_a_flush_that_comes_after_its_writes(house, disk):
    device = house.control.device("zram1")
    seen = []
    disk.on_flush = lambda: seen.append(device.pread(0, 5 * 4096))
    client = house.ready("zram1")
    data = noise(5 * 4096)
    client.sock.sendall(
        b"".join(
            client.frame(p.CMD_WRITE, at * 4096, 4096, p.CMD_FLAG_FUA if at % 2 else 0, at)
            + data[at * 4096 : at * 4096 + 4096]
            for at in range(5)
        )
        + client.frame(p.CMD_FLUSH, 0, 0, 0, 9)
    )
    assert [reply.error for reply in client.receive(6).values()] == [0] * 6
    assert seen == [data]


@pytest.mark.parametrize("structured", [False, True])
def test_a_failed_flush_fails_flush_and_fua(house, disk, structured):
    def fail():
        raise OSError(errno.EIO, "worn out")

    disk.on_flush = fail
    client = house.ready("zram1", structured=structured)
    assert client.write(0, noise(4096), flags=p.CMD_FLAG_FUA) == p.EIO
    assert client.do(p.CMD_FLUSH).error == p.EIO
    disk.on_flush = None
    assert client.do(p.CMD_FLUSH).error == 0


# Device errors --------------------------------------------------------------------------------------------------------


def written_back(house, pages: int) -> bytes:
    """Fill the first pages of zram1 and write them back, in order, to blocks 1 and up."""
    data = noise(pages * 4096)
    target = house.control.target("zram1")
    target.device.pwrite(0, data)
    target.store("writeback", f"page_indexes=0-{pages - 1}")
    assert stat(target.device, "bd_stat")[0] == pages
    return data


def block_of(house, page: int) -> int:
    return house.control.device("zram1").path.table.handles_row[page]


@pytest.mark.parametrize("structured", [False, True])
def test_a_read_error_is_of_its_request_alone(house, disk, structured):
    data = written_back(house, 6)
    disk.bad_blocks[block_of(house, 2)] = errno.EIO
    client = house.ready("zram1", structured=structured)
    client.sock.sendall(b"".join(client.frame(p.CMD_READ, at * 4096, 4096, 0, at) for at in range(6)))
    replies = client.receive(6)
    assert [replies[at].error for at in range(6)] == [0, 0, p.EIO, 0, 0, 0]
    assert [replies[at].data for at in (0, 1, 3)] == [data[at * 4096 : at * 4096 + 4096] for at in (0, 1, 3)]
    if structured:
        assert replies[2].error_offset == 2 * 4096
        assert replies[2].message
    assert client.do(p.CMD_READ, 0, 6 * 4096).error == p.EIO
    disk.heal()
    assert client.read(0, 6 * 4096) == data


def test_a_long_structured_read_says_where_it_failed(house, disk, monkeypatch):
    monkeypatch.setattr(reading, "PIECE", 8192)
    data = written_back(house, 8)
    disk.bad_blocks[block_of(house, 5)] = errno.EIO
    client = house.ready("zram1", structured=True)
    for flags in (0, p.CMD_FLAG_DF):
        reply = client.do(p.CMD_READ, 0, SIZE, flags=flags)
        assert (reply.error, reply.error_offset) == (p.EIO, 4 * 4096)
        assert reply.data[: 4 * 4096] == data[: 4 * 4096]
        if flags:
            assert len(reply.chunks) == 1
            assert reply.data[4 * 4096 :] == bytes(SIZE - 4 * 4096)
    assert client.read(0, 4 * 4096) == data[: 4 * 4096]


def test_a_simple_read_that_fails_after_it_began_ends_the_connection(house, disk, monkeypatch):
    monkeypatch.setattr(reading, "PIECE", 8192)
    monkeypatch.setattr(reading, "CERTAIN", 8192)
    monkeypatch.setattr("zramcore.nbd.session.MAX_RUN", 8192)
    written_back(house, 8)
    disk.bad_blocks[block_of(house, 5)] = errno.EIO
    client = house.ready("zram1")
    assert client.do(p.CMD_READ, 5 * 4096, 3 * 4096).error == p.EIO
    client.send(p.CMD_READ, 0, 8 * 4096)
    with pytest.raises(EOFError):
        client.receive()
    disk.heal()
    assert len(house.ready("zram1").read(0, 8 * 4096)) == 8 * 4096


@pytest.mark.parametrize("structured", [False, True])
def test_a_write_error_is_of_its_request_alone(house, structured):
    house.add(SIZE, comp_algorithm="lz4")
    target = house.control.target("zram1")
    client = house.ready("zram1", structured=structured)
    assert client.write(0, noise(16 * 4096)) == 0
    target.store("mem_limit", "4K")
    zeroes, data = bytes(4096), noise(4096)
    frames = [zeroes, data, zeroes, zeroes]
    client.sock.sendall(
        b"".join(client.frame(p.CMD_WRITE, (20 + at) * 4096, 4096, 0, at) + page for at, page in enumerate(frames))
    )
    replies = client.receive(4)
    assert [replies[at].error for at in range(4)] == [0, p.EIO, 0, 0]
    if structured:
        assert "mem_limit" in replies[1].message
    assert client.write(0, noise(64 << 10)) == p.EIO
    target.store("mem_limit", "0")
    assert client.write(0, data) == 0
    check_consistent(target.device)


def test_a_long_write_that_fails_is_received_to_its_end(house):
    name = house.add(8 << 20, comp_algorithm="lz4")
    house.control.target(name).store("mem_limit", "64K")
    client = house.ready(name)
    assert client.write(0, noise(4 << 20)) == p.EIO
    assert client.write(0, bytes(4096)) == 0


def test_a_crash_in_the_device_is_an_eio(house, device, caplog):
    client = house.ready(structured=True)

    def crash(offset, data):
        raise RuntimeError("a bug")

    device.pwrite = crash
    reply = client.do(p.CMD_WRITE, 0, payload=noise(4096))
    assert (reply.error, reply.message) == (p.EIO, "RuntimeError: a bug")
    del device.pwrite
    assert client.write(0, noise(4096)) == 0
    assert [record.event for record in caplog.records if record.levelname == "ERROR"] == ["request-crashed"]
