"""`bench nbd`: servers are started and ended, the client keeps requests in flight, and lost data is found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from zramcore.bench import nbd
from zramcore.bench.data import MIB, PAGE, Data
from zramcore.bench.nbd import ServerKind, read_frames, running, servers, write_frames
from zramcore.bench.nbd_client import Client
from zramcore.control import Control
from zramcore.errors import DeviceIOError
from zramcore.interfaces import Catalogue
from zramcore.nbd import Server, listen
from zramcore.nbd import protocol as p


def test_frames_write_and_read_at_any_depth(built_in: Catalogue, tmp_path: Path, data: Data) -> None:
    control = Control(built_in)
    target = control.target(f"zram{control.hot_add()}")
    target.store("disksize", str(data.size))
    path = str(tmp_path / "socket")
    offsets = list(range(0, data.size, PAGE))
    with Server(control, listen(f"unix:{path}")):
        client = Client(path)
        assert client.size == data.size
        for depth in (1, 32, 10_000):
            target.device.discard(0, data.size)
            client.run(write_frames(data, offsets, PAGE), p.SIMPLE_REPLY.size, depth)
            assert target.device.pread(0, data.size) == data.view
            client.run(read_frames(offsets, PAGE), p.SIMPLE_REPLY.size + PAGE, depth)
            assert client.read(MIB, MIB) == data.view[MIB:]
        with pytest.raises(DeviceIOError, match="failed to read"):
            client.read(data.size, PAGE)
        client.close()


def test_a_server_ends_with_the_block_that_needs_it(tmp_path: Path) -> None:
    (kind,) = servers(["lz4"], peers=False)
    with running(kind, MIB, tmp_path) as server:
        assert server.client.size == MIB
        assert server.process.poll() is None
    assert server.process.poll() is not None
    assert list(tmp_path.iterdir()) == []


def test_a_server_of_ours_ends_with_who_started_it(tmp_path: Path) -> None:
    (kind,) = servers(["lz4"], peers=False)
    with running(kind, MIB, tmp_path) as server:
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(30) == 0


def test_a_server_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    kind = ServerKind("broken", "", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(DeviceIOError, match="no server listens"), running(kind, MIB, tmp_path):
        pytest.fail("it runs")


def test_a_server_that_loses_data_is_found(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "read", lambda self, offset, length: bytes(length))
    with pytest.raises(DeviceIOError, match="gave other bytes back at byte 0"):
        list(nbd.bench(servers(["lz4"], peers=False), {}, data, [MIB], [1], 1, lambda what: None))
