"""Commands: what they do to the device, what they answer, and what they say of wrong requests."""

from __future__ import annotations

import errno
import random
import threading

import pytest

from zramcore.nbd import protocol as p
from zramcore.nbd import reading
from zramcore.nbd.transmission import BUFFER
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import check_consistent, stat

SIZE = 1 << 20
RANDOM = random.Random(4)


def noise(size: int) -> bytes:
    return RANDOM.randbytes(size)


@pytest.fixture
def device(house):
    return house.control.device("zram0")


# Reading and writing --------------------------------------------------------------------------------------------------


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


# Durability -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(house):
    """The FaultyDriver under a device of 1 MiB, zram1."""
    house.add(SIZE, comp_algorithm="lz4", backing_dev="faulty:disk,blocks=64")
    return FaultyDriver.named("disk")


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


# Wrong requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "offset", "length", "flags", "error"),
    [
        (p.CMD_READ, SIZE, 1, 0, p.EINVAL),
        (p.CMD_READ, SIZE - 1, 2, 0, p.EINVAL),
        (p.CMD_READ, 2**64 - 1, 4096, 0, p.EINVAL),
        (p.CMD_READ, 0, 4096, p.CMD_FLAG_NO_HOLE, p.EINVAL),
        (p.CMD_READ, 0, 4096, 1 << 15, p.EINVAL),
        (p.CMD_WRITE, SIZE, 1, 0, p.ENOSPC),
        (p.CMD_WRITE, SIZE - 4096, 8192, 0, p.ENOSPC),
        (p.CMD_WRITE, 2**64 - 1, 5, 0, p.ENOSPC),
        (p.CMD_WRITE, 0, 4096, p.CMD_FLAG_DF, p.EINVAL),
        (p.CMD_WRITE, 0, 4096, 1 << 5, p.EINVAL),
        (p.CMD_WRITE, 0, p.MAX_PAYLOAD + 1, 0, p.EINVAL),
        (p.CMD_WRITE, 0, 2 << 20, 0, p.ENOSPC),
        (p.CMD_TRIM, SIZE - 4096, 8192, 0, p.EINVAL),
        (p.CMD_TRIM, 0, 4096, p.CMD_FLAG_NO_HOLE, p.EINVAL),
        (p.CMD_WRITE_ZEROES, SIZE - 4096, 8192, 0, p.ENOSPC),
        (p.CMD_WRITE_ZEROES, 0, 4096, p.CMD_FLAG_DF, p.EINVAL),
        (p.CMD_CACHE, SIZE, 1, 0, p.EINVAL),
        (p.CMD_CACHE, 0, 4096, 2, p.EINVAL),
        (p.CMD_FLUSH, 1, 0, 0, p.EINVAL),
        (p.CMD_FLUSH, 0, 1, 0, p.EINVAL),
        (p.CMD_FLUSH, 0, 0, 4, p.EINVAL),
        (p.CMD_BLOCK_STATUS, 0, 4096, 0, p.EINVAL),
        (8, 0, 4096, 0, p.EINVAL),
        (65535, 0, 0, 0, p.EINVAL),
    ],
)
def test_wrong_requests_get_their_error_and_the_next_is_served(client, device, kind, offset, length, flags, error):
    before = noise(8192)
    client.write(0, before)
    payload = bytes(length) if kind == p.CMD_WRITE else b""
    cookie = client.send(kind, offset, length, flags=flags, payload=payload)
    reply = client.receive()[cookie]
    assert reply.error == error
    if client.structured:
        assert reply.message
    assert client.read(0, 8192) == before


def test_df_needs_structured_replies(house):
    assert house.ready().do(p.CMD_READ, 0, 4096, flags=p.CMD_FLAG_DF).error == p.EINVAL


def test_a_wrong_magic_ends_it_after_what_came_before(client):
    client.sock.sendall(client.frame(p.CMD_WRITE, 0, 4096, 0, 5) + noise(4096) + bytes(28))
    assert client.receive()[5].error == 0
    assert client.closed()


def test_read_only_exports_refuse_changes(house):
    client = house.connect(house.serve(read_only=True)).greet()
    client.go("")
    assert client.write(0, noise(4096)) == p.EPERM
    for kind in (p.CMD_TRIM, p.CMD_WRITE_ZEROES):
        assert client.do(kind, 0, 4096).error == p.EPERM
    assert client.read(0, 4096) == bytes(4096)
    assert client.do(p.CMD_FLUSH).error == 0


def test_nothing_after_a_disconnect_is_done(client, device):
    client.sock.sendall(
        client.frame(p.CMD_WRITE, 0, 4096, 0, 1) + b"a" * 4096
        + client.frame(p.CMD_DISC, 0, 0, 0, 2)
        + client.frame(p.CMD_WRITE, 0, 4096, 0, 3) + b"b" * 4096
    )  # fmt: skip
    assert client.receive()[1].error == 0
    assert client.closed()
    assert device.pread(0, 4096) == b"a" * 4096


# Block status ---------------------------------------------------------------------------------------------------------


def test_states_of_pages(house, disk):
    target = house.control.target("zram1")
    half = noise(2048) + bytes(2048)
    pages = [half, noise(4096), b"ab" * 2048, bytes(4096), half, half]
    target.device.pwrite(4096, b"".join(pages))
    target.store("idle", "all")
    target.store("writeback", "page_index=6")
    target.device.pread(5 * 4096, 4096)
    client = house.ready("zram1", contexts=("base:allocation", "zram:state"))
    status = client.do(p.CMD_BLOCK_STATUS, 0, SIZE).status
    assert status[1] == [(4096, 3), (3 * 4096, 0), (4096, 2), (2 * 4096, 0), (SIZE - 7 * 4096, 3)]
    assert status[2] == [
        (4096, 0),
        (4096, 2 | 8),
        (4096, 4 | 8),
        (8192, 1),
        (4096, 2),
        (4096, 16),
        (SIZE - 7 * 4096, 0),
    ]


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (4095, 2), (100, 5000), (8192, 4096), (SIZE - 1, 1)])
def test_status_of_a_range_covers_just_that(house, device, offset, length):
    device.pwrite(4096, noise(4096))
    client = house.ready(contexts=("base:allocation",))
    (extents,) = client.do(p.CMD_BLOCK_STATUS, offset, length).status.values()
    flat = [state for count, state in extents for _ in range(count)]
    assert flat == [0 if 4096 <= at < 8192 else 3 for at in range(offset, offset + length)]
    (extents,) = client.do(p.CMD_BLOCK_STATUS, offset, length, flags=p.CMD_FLAG_REQ_ONE).status.values()
    assert len(extents) == 1
    assert flat[: extents[0][0]] == [extents[0][1]] * extents[0][0]


def test_status_without_contexts_or_length(house):
    assert house.ready(structured=True).do(p.CMD_BLOCK_STATUS, 0, 4096).error == p.EINVAL
    assert house.ready(contexts=("base:allocation",)).do(p.CMD_BLOCK_STATUS, 0, 0).error == p.EINVAL
    assert house.ready(contexts=("base:allocation",)).do(p.CMD_BLOCK_STATUS, 1, SIZE).error == p.EINVAL


def test_an_answer_is_bounded_and_can_be_continued(house, monkeypatch):
    monkeypatch.setattr("zramcore.nbd.contexts.MAX_EXTENTS", 10)
    device = house.control.device("zram0")
    for page in range(0, 256, 2):
        device.pwrite(page * 4096, noise(4096))
    client = house.ready(contexts=("base:allocation",))
    seen, offset = [], 0
    while offset < SIZE:
        (extents,) = client.do(p.CMD_BLOCK_STATUS, offset, SIZE - offset).status.values()
        assert 1 <= len(extents) <= 10
        seen += extents
        offset += sum(length for length, _ in extents)
    assert seen == [(4096, 0), (4096, 3)] * 128
