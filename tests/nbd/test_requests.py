"""Requests that are wrong, and block status."""

from __future__ import annotations

import random

import pytest

from zramcore.nbd import protocol as p

SIZE = 1 << 20
RANDOM = random.Random(4)


def noise(size: int) -> bytes:
    return RANDOM.randbytes(size)


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
