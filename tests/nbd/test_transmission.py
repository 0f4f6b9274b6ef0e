"""Commands: what they do to the device and what they answer."""

from __future__ import annotations

import errno
import random
import threading

import pytest

from zramcore.nbd import protocol as p
from zramcore.nbd import reading
from zramcore.nbd.transmission import BUFFER
from zramcore.testing.inspection import check_consistent, stat

SIZE = 1 << 20
RANDOM = random.Random(4)


def noise(size: int) -> bytes:
    return RANDOM.randbytes(size)


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 4096), (1, 1), (4095, 2), (100, 9000), (8192, 65536), (SIZE - 5, 5)]
)
def test_what_is_written_is_read(client, device, offset, length):
    data = noise(length)
    assert client.write(offset, data) == 0
    assert client.read(offset, length) == data
    assert device.pread(offset, length) == data
    if offset:
        assert client.read(offset - 1, 1) == b"\0"


def test_nothing_is_read_and_written_without_an_error(client, device):
    for kind in (p.CMD_READ, p.CMD_WRITE, p.CMD_TRIM, p.CMD_WRITE_ZEROES, p.CMD_CACHE):
        for offset in (0, 77, SIZE):
            reply = client.do(kind, offset)
            assert (reply.error, reply.data) == (0, b"")


def test_queued_requests_are_served_in_order(client):
    """Each write is seen by the reads after it, whether or not they were joined."""
    frames, expected = b"", {}
    state = bytearray(SIZE)
    for step in range(300):
        offset, length = RANDOM.randrange(0, 64) * 512, RANDOM.randrange(1, 9) * 512
        if step % 2:
            data = noise(length)
            frames += client.frame(p.CMD_WRITE, offset, length, 0, step) + data
            state[offset : offset + length] = data
        else:
            frames += client.frame(p.CMD_READ, offset, length, 0, step)
            expected[step] = bytes(state[offset : offset + length])
    sender = threading.Thread(target=client.sock.sendall, args=(frames,))
    sender.start()
    replies = client.receive(300)
    sender.join()
    assert not any(reply.error for reply in replies.values())
    assert {cookie: replies[cookie].data for cookie in expected} == expected


def calls(device, name):
    """Records the (offset, length) of calls of one of the device's methods from now on."""
    real, seen = getattr(device, name), []

    def spy(offset, what):
        seen.append((offset, what if isinstance(what, int) else len(what)))
        return real(offset, what)

    setattr(device, name, spy)
    return seen


def test_neighbours_reach_the_device_as_one(house, device):
    writes, reads = calls(device, "pwrite"), calls(device, "pread")
    client = house.ready()
    data = noise(6 * 4096)
    order = [0, 1, 2, 4, 5, 3]
    client.sock.sendall(
        b"".join(client.frame(p.CMD_WRITE, at * 4096, 4096, 0, at) + data[at * 4096 : at * 4096 + 4096] for at in order)
    )
    assert all(not reply.error for reply in client.receive(6).values())
    assert writes == [(0, 3 * 4096), (4 * 4096, 2 * 4096), (3 * 4096, 4096)]
    client.sock.sendall(b"".join(client.frame(p.CMD_READ, at * 4096, 4096, 0, at) for at in order))
    replies = client.receive(6)
    assert reads == writes
    assert [replies[at].data for at in range(6)] == [data[at * 4096 : at * 4096 + 4096] for at in range(6)]


def scattered(device, name):
    """Records the offsets of calls of `read_scattered` or `write_scattered` from now on."""
    real, seen = getattr(device, name), []

    def spy(offsets, *pages):
        seen.append([offset // 4096 for offset in offsets])
        return real(offsets, *pages)

    setattr(device, name, spy)
    return seen


def frames(client, kind, order, pages=()):
    return b"".join(
        client.frame(kind, at * 4096, 4096, 0, cookie) + (pages[cookie] if pages else b"")
        for cookie, at in enumerate(order)
    )


@pytest.mark.parametrize("structured", [False, True])
def test_single_pages_reach_the_device_as_one(house, device, structured):
    writes, reads = scattered(device, "write_scattered"), scattered(device, "read_scattered")
    client = house.ready(structured=structured)
    order = [9, 2, 7, 0, 2, 200, 30]
    pages = [bytes(4096) if at == 7 else noise(4096) for at in order]
    client.sock.sendall(frames(client, p.CMD_WRITE, order, pages))
    assert all(not reply.error for reply in client.receive(len(order)).values())
    assert writes == [[9, 2, 7, 0], [2, 200, 30]]
    client.sock.sendall(frames(client, p.CMD_READ, order))
    replies = client.receive(len(order))
    assert reads == writes
    newest = dict(zip(order, pages, strict=True))
    assert [replies[cookie].data for cookie in range(len(order))] == [newest[at] for at in order]
    if structured:
        assert [cookie for cookie in range(len(order)) if replies[cookie].chunks[0][0] == "hole"] == [2]


@pytest.mark.parametrize("structured", [False, True])
def test_a_page_that_cannot_go_with_the_others_is_served_all_the_same(house, disk, structured):
    name = "zram1"
    client = house.ready(name, structured=structured)
    order = [9, 2, 7, 0, 5]
    pages = [noise(4096) for _ in order]
    client.sock.sendall(frames(client, p.CMD_WRITE, order, pages))
    assert all(not reply.error for reply in client.receive(len(order)).values())
    house.control.target(name).store("writeback", "page_index=7")
    client.sock.sendall(frames(client, p.CMD_READ, order))
    replies = client.receive(len(order))
    assert [replies[cookie].data for cookie in range(len(order))] == pages
    disk.bad_blocks[house.control.device(name).path.table.handles_row[7]] = errno.EIO
    client.sock.sendall(frames(client, p.CMD_READ, order))
    replies = client.receive(len(order))
    assert [replies[cookie].error for cookie in range(len(order))] == [0, 0, p.EIO, 0, 0]


def test_pages_of_several_clients_reach_the_device_as_one(house, device):
    """Two clients send while a third one's pages are being written."""
    entered, gate = threading.Event(), threading.Event()
    real, seen = device.write_scattered, []

    def slow(offsets, pages):
        seen.append(sorted(offset // 4096 for offset in offsets))
        if len(seen) == 1:
            entered.set()
            assert gate.wait(20)
        return real(offsets, pages)

    device.write_scattered = slow
    first, *others = [house.ready() for _ in range(3)]
    first.sock.sendall(frames(first, p.CMD_WRITE, [1, 5], [noise(4096)] * 2))
    assert entered.wait(20)
    data = [[noise(4096), noise(4096)], [noise(4096), noise(4096)]]
    for client, pages, order in zip(others, data, ([10, 14], [20, 24]), strict=True):
        client.sock.sendall(frames(client, p.CMD_WRITE, order, pages))
    (export,) = {session.export.batches for session in sessions(house)}
    while len(export.write._waiting) < 2:
        threading.Event().wait(0.001)
    gate.set()
    for client in (first, *others):
        assert not any(reply.error for reply in client.receive(2).values())
    assert seen == [[1, 5], [10, 14, 20, 24]]
    for pages, order in zip(data, ([10, 14], [20, 24]), strict=True):
        assert [device.pread(at * 4096, 4096) for at in order] == pages


def sessions(house):
    (server,) = house.servers
    return [connection.session for connection in server._connections]


def test_a_write_longer_than_the_buffer_goes_through_in_whole_pages(house):
    name = house.add(16 << 20, comp_algorithm="lz4")
    device = house.control.device(name)
    writes = calls(device, "pwrite")
    client = house.ready(name)
    data = noise(3 * BUFFER + 12345)
    before, after = noise(4096), noise(8192)
    client.sock.sendall(
        client.frame(p.CMD_WRITE, 0, 4096, 0, 1) + before
        + client.frame(p.CMD_WRITE, 1000 * 4096 + 5, len(data), 0, 2) + data
        + client.frame(p.CMD_WRITE, 4096, 8192, 0, 3) + after
    )  # fmt: skip
    assert [reply.error for reply in client.receive(3).values()] == [0, 0, 0]
    assert device.pread(1000 * 4096 + 5, len(data)) == data
    assert device.pread(0, 12288) == before + after
    pieces = [(offset, length) for offset, length in writes if offset >= 1000 * 4096]
    assert len(pieces) > 2
    assert all((offset + length) % 4096 == 0 for offset, length in pieces[:-1])
    assert max(length for _, length in pieces) <= BUFFER


@pytest.mark.parametrize("structured", [False, True])
def test_reads_of_every_length_up_to_the_largest(house, structured):
    name = house.add(40 << 20, comp_algorithm="lz4")
    device = house.control.device(name)
    data = noise(64 << 10)
    for offset in (0, 1 << 20, (3 << 20) - 100, (33 << 20) - 4096):
        device.pwrite(offset, data)
    client = house.ready(name, structured=structured)
    for offset, length in [(0, p.MAX_PAYLOAD), (999, 3 << 20), (0, reading.CERTAIN + 1), (1, reading.PIECE)]:
        assert client.read(offset, length) == device.pread(offset, length)
    over = p.EOVERFLOW if structured else p.EINVAL
    assert client.do(p.CMD_READ, 0, p.MAX_PAYLOAD + 1).error == over
    if structured:
        assert client.read(999, 3 << 20, flags=p.CMD_FLAG_DF) == device.pread(999, 3 << 20)


def test_holes_of_a_structured_read(house, device):
    client = house.ready(structured=True)
    data = noise(8192)
    device.pwrite(4096, data)
    device.pwrite(6 * 4096, bytes(4096))
    reply = client.do(p.CMD_READ, 100, 8 * 4096)
    assert reply.chunks == [("hole", 100, 3996), ("data", 4096, data), ("hole", 3 * 4096, 5 * 4096 + 100)]
    assert client.do(p.CMD_READ, 100, 8 * 4096, flags=p.CMD_FLAG_DF).chunks == [
        ("data", 100, bytes(3996) + data + bytes(5 * 4096 + 100))
    ]
    assert client.do(p.CMD_READ, 0, 4096).chunks == [("hole", 0, 4096)]
    assert client.do(p.CMD_READ, 10, 20).chunks == [("hole", 10, 20)]
    assert client.do(p.CMD_READ, 4096, 4096).chunks == [("data", 4096, data[:4096])]
    assert client.do(p.CMD_READ, 0, SIZE).chunks[-1] == ("hole", 3 * 4096, SIZE - 3 * 4096)


def test_queued_neighbours_keep_their_holes(house, device):
    client = house.ready(structured=True)
    data = noise(4096)
    device.pwrite(4096, data)
    client.sock.sendall(b"".join(client.frame(p.CMD_READ, at * 4096, 4096, 0, at) for at in range(3)))
    replies = client.receive(3)
    assert [replies[at].chunks[0][0] for at in range(3)] == ["hole", "data", "hole"]


@pytest.mark.parametrize("page_size", [16384, 65536])
def test_big_pages(house, page_size):
    number = house.control.hot_add(page_size)
    house.control.target(f"zram{number}").store("disksize", "4M")
    device = house.control.devices[number]
    client = house.connect().greet().negotiate_structured()
    client.contexts("base:allocation", name=device.name)
    infos = client.go(device.name, p.INFO_BLOCK_SIZE)
    assert infos[p.INFO_BLOCK_SIZE][4:8] == page_size.to_bytes(4, "big")
    data = noise(3 * page_size)
    assert client.write(page_size, data) == 0
    assert client.read(page_size - 4096, 4 * page_size) == bytes(4096) + data + bytes(page_size - 4096)
    assert client.do(p.CMD_TRIM, page_size, 2 * page_size - 1).error == 0
    status = client.do(p.CMD_BLOCK_STATUS, 0, 4 << 20).status[1]
    assert status == [(2 * page_size, 3), (2 * page_size, 0), ((4 << 20) - 4 * page_size, 3)]


def test_trim_frees_whole_pages(client, device):
    client.write(0, noise(4 * 4096))
    assert client.do(p.CMD_TRIM, 100, 3 * 4096).error == 0
    assert stat(device, "mm_stat")[0] == 2 * 4096
    assert client.read(4096, 8192) == bytes(8192)
    assert client.do(p.CMD_TRIM, 0, SIZE).error == 0
    assert stat(device, "mm_stat")[0] == 0
    check_consistent(device)


def test_write_zeroes_frees_pages_and_zeroes_the_ends(client, device):
    data = noise(4 * 4096)
    client.write(0, data)
    assert client.do(p.CMD_WRITE_ZEROES, 100, 3 * 4096).error == 0
    assert client.read(0, 4 * 4096) == data[:100] + bytes(3 * 4096) + data[100 + 3 * 4096 :]
    assert stat(device, "mm_stat")[0] == 2 * 4096


def test_write_zeroes_without_holes_keeps_pages(house, device):
    client = house.ready(contexts=("base:allocation",))
    client.write(0, noise(4 * 4096))
    assert client.do(p.CMD_WRITE_ZEROES, 4096, 8192, flags=p.CMD_FLAG_NO_HOLE).error == 0
    assert client.read(4096, 8192) == bytes(8192)
    assert stat(device, "mm_stat")[0] == 4 * 4096
    (status,) = client.do(p.CMD_BLOCK_STATUS, 0, 5 * 4096).status.values()
    assert status == [(4096, 0), (8192, p.STATE_ZERO), (4096, 0), (4096, p.STATE_ZERO | p.STATE_HOLE)]


@pytest.mark.parametrize(
    ("offset", "length", "flags", "error"),
    [
        (0, 4096, 0, 0),
        (0, SIZE, 0, 0),
        (1, 8191, 0, 0),
        (1, 4095, 0, p.ENOTSUP),
        (4000, 200, 0, p.ENOTSUP),
        (0, 8192, p.CMD_FLAG_NO_HOLE, p.ENOTSUP),
    ],
)
def test_fast_zeroes_where_they_are_faster(client, offset, length, flags, error):
    data = noise(8192)
    client.write(0, data)
    reply = client.do(p.CMD_WRITE_ZEROES, offset, length, flags=flags | p.CMD_FLAG_FAST_ZERO)
    assert reply.error == error
    expected = data if error else data[:offset] + bytes(min(length, 8192 - offset)) + data[offset + length :]
    assert client.read(0, 8192) == expected


def test_cache_changes_nothing(client, device):
    client.write(0, noise(8192))
    house_stat = device.stats.page_reads, device.stats.read_requests
    assert client.do(p.CMD_CACHE, 0, SIZE).error == 0
    assert (device.stats.page_reads, device.stats.read_requests) == house_stat


def test_long_trims_and_zeroes_need_no_payload_limit(house):
    name = house.add(1 << 40)
    client = house.ready(name, contexts=("base:allocation",))
    most = 2**32 - 4096
    client.write(1 << 30, noise(4096))
    assert client.do(p.CMD_TRIM, 0, most).error == 0
    assert client.do(p.CMD_WRITE_ZEROES, 4096, most).error == 0
    assert client.do(p.CMD_WRITE_ZEROES, 4096, most, flags=p.CMD_FLAG_FAST_ZERO).error == 0
    assert client.do(p.CMD_BLOCK_STATUS, 0, most).status == {1: [(most, 3)]}
