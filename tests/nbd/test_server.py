"""The server as a whole: many clients, rude ones, limits, holders, and how it ends."""

from __future__ import annotations

import errno
import os
import random
import socket
import threading
import time

import pytest

from zramcore.errors import DeviceBusy, InvalidValue
from zramcore.nbd import Server, listen
from zramcore.nbd import protocol as p
from zramcore.testing.faults import FaultyDriver, Gate
from zramcore.testing.inspection import check_consistent

PATIENCE = 20.0


def wait_until(condition):
    """Return once it holds, which something under way must bring about."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never came to hold")


# Many clients ---------------------------------------------------------------------------------------------------------


def test_64_clients_at_once(house):
    """Each writes and checks its own pages while all are connected; the device is in order after."""
    house.add(64 << 20, comp_algorithm="lz4")
    house.serve()
    barrier = threading.Barrier(64, timeout=PATIENCE)
    failures = []

    def work(number):
        try:
            client = house.ready("zram1", structured=bool(number % 2))
            rng = random.Random(number)
            barrier.wait()
            base = number << 20
            data = rng.randbytes(16 * 4096)
            sent = [client.send(p.CMD_WRITE, base + at * 4096, payload=data[at * 4096 :][:4096]) for at in range(16)]
            assert not any(reply.error for reply in client.receive(len(sent)).values())
            assert client.read(base, 16 * 4096) == data
            barrier.wait()
            assert client.read((number + 1) % 64 << 20, 4096) != data[:4096]
            client.disconnect()
        except BaseException as error:
            barrier.abort()
            failures.append((number, error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    wait_until(lambda: not house.servers[0].clients)
    check_consistent(house.control.device("zram1"))
    assert house.control.device("zram1").holders == 0


def test_too_many_clients_are_turned_away_and_places_come_free(house, caplog):
    server = house.serve(max_connections=2)
    first, second = house.ready(), house.connect().greet()
    third = house.connect()
    assert third.closed()
    assert [record.event for record in caplog.records if record.levelname == "WARNING"] == ["refused"]
    second.sock.close()
    wait_until(lambda: len(server.clients) == 1)
    assert house.ready().read(0, 10) == bytes(10)
    assert first.read(0, 10) == bytes(10)


def test_clients_are_listed(house):
    server = house.serve()
    client = house.ready()
    client.write(0, b"a" * 4096)
    client.read(0, 4096)
    waiting = house.connect().greet()
    by_export = {each.export: each for each in server.clients}
    assert set(by_export) == {"", "zram0"}
    assert by_export["zram0"].peer == f"unix:pid={os.getpid()},uid={os.getuid()}"
    assert (by_export["zram0"].requests, by_export["zram0"].received) == (2, 28 + 4096 + 28)
    waiting.sock.close()


def test_a_client_that_is_gone_before_it_is_welcomed(house):
    """Its address cannot be had any more; the next one is served."""
    server = house.serve(max_connections=1)
    with listen("tcp:127.0.0.1:0").socket as listener:
        early = socket.create_connection(listener.getsockname())
        early.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        early.close()
        sock, _ = listener.accept()
    server._welcome(sock)
    assert sock.fileno() == -1
    assert house.ready().read(0, 10) == bytes(10)


# Rude clients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["header", "payload", "long payload", "reply", "reset"])
def test_a_client_that_vanishes_harms_nobody(house, what):
    house.add(8 << 20, comp_algorithm="lz4")
    server = house.serve("tcp:127.0.0.1:0" if what == "reset" else "")
    witness = house.ready("zram1")
    rude = house.ready("zram1")
    if what == "header":
        rude.sock.sendall(rude.frame(p.CMD_WRITE, 0, 4096, 0, 1)[:20])
    elif what == "payload":
        rude.sock.sendall(rude.frame(p.CMD_WRITE, 0, 4096, 0, 1) + b"x" * 100)
    elif what == "long payload":
        rude.sock.sendall(rude.frame(p.CMD_WRITE, 0, 6 << 20, 0, 1) + bytes(3 << 20))
    elif what == "reply":
        rude.sock.sendall(b"".join(rude.frame(p.CMD_READ, 0, 4 << 20, 0, at) for at in range(50)))
    else:
        rude.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        rude.sock.sendall(rude.frame(p.CMD_READ, 0, 4 << 20, 0, 1))
    rude.sock.close()
    wait_until(lambda: len(server.clients) == 1)
    assert witness.write(4096, b"y" * 4096) == 0
    assert witness.read(0, 8192) == bytes(4096) + b"y" * 4096
    assert house.control.device("zram1").holders == 1


def test_a_client_that_floods_and_never_reads_harms_nobody(house):
    house.add(8 << 20, comp_algorithm="lz4")
    house.control.device("zram1").pwrite(0, random.Random(1).randbytes(4 << 20))
    house.serve()
    witness = house.ready("zram1")
    flood = house.ready("zram1")
    flood.sock.setblocking(False)
    frames = b"".join(flood.frame(p.CMD_READ, 0, 4 << 20, 0, at) for at in range(1000))
    while True:
        try:
            flood.sock.send(frames)
        except BlockingIOError:
            break
    for at in range(50):
        assert witness.write(at * 4096, b"z" * 4096) == 0
    assert witness.read(0, 4096) == b"z" * 4096
    house.servers[0].stop(timeout=0.2)
    assert house.control.device("zram1").holders == 0


# Holding devices ------------------------------------------------------------------------------------------------------


def test_a_connected_device_is_busy(house):
    client = house.ready()
    device = house.control.device("zram0")
    with pytest.raises(DeviceBusy):
        device.reset()
    with pytest.raises(DeviceBusy):
        house.control.hot_remove(0)
    client.disconnect()
    wait_until(lambda: device.holders == 0)
    device.reset()


@pytest.mark.parametrize("structured", [False, True])
def test_a_device_that_is_reset_by_force_shuts_down_its_clients(house, structured):
    house.add(1 << 20)
    client, other = house.ready("zram0", structured=structured), house.ready("zram1")
    device = house.control.device("zram0")
    device.holders = 0
    device.reset()
    device.initialize(8192)
    for kind in (p.CMD_READ, p.CMD_WRITE, p.CMD_FLUSH, p.CMD_TRIM, p.CMD_WRITE_ZEROES, p.CMD_CACHE):
        payload = bytes(4096) if kind == p.CMD_WRITE else b""
        assert client.do(kind, 0, 4096, payload=payload).error == p.ESHUTDOWN
    assert client.write(0, bytes(2 << 20)) == p.ESHUTDOWN
    assert other.read(0, 4096) == bytes(4096)
    device.holders = 1


def test_disconnect_frees_a_device_for_reset(house):
    house.add(1 << 20)
    server = house.serve()
    clients = [house.ready("zram0"), house.ready("zram0")]
    other = house.ready("zram1")
    assert server.disconnect("zram0") == 2
    house.control.hot_remove(0)
    assert all(client.closed() for client in clients)
    assert other.read(0, 4096) == bytes(4096)
    assert server.disconnect("zram0") == 0


# The end --------------------------------------------------------------------------------------------------------------


def test_stop_finishes_what_is_under_way_and_refuses_the_rest(house):
    """A flush that waits in the backing store is answered; a request that came after it is told why not."""
    house.add(1 << 20, comp_algorithm="lz4", backing_dev="faulty:disk,blocks=64")
    server = house.serve()
    client = house.ready("zram1", structured=True)
    disk = FaultyDriver.named("disk")
    with Gate() as gate:
        disk.on_flush = lambda: gate(0, 0)
        flush = client.send(p.CMD_FLUSH)
        gate.wait()
        late = client.send(p.CMD_READ, 0, 4096)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        wait_until(lambda: all(each.stopping for each in server._connections))
        disk.on_flush = None
        gate.open()
        replies = client.receive(2)
    stopper.join()
    assert replies[flush].error == 0
    assert (replies[late].error, replies[late].message) == (p.ESHUTDOWN, "the server is shutting down")
    assert client.closed()
    assert house.control.device("zram1").holders == 0


@pytest.mark.parametrize("end", ["stop", "disconnect"])
def test_the_end_does_not_wait_for_memory_that_a_write_waits_for(house, end):
    """Nobody frees any, and the write would wait for minutes."""
    name = house.add(1 << 20, comp_algorithm="lz4", mem_limit_wait="600000")
    house.control.target(name).store("mem_limit", "8192")
    server = house.serve()
    client = house.ready(name)
    client.send(p.CMD_WRITE, 0, payload=random.Random(1).randbytes(16 * 4096))
    device = house.control.device(name)
    wait_until(lambda: device.stats.pages_stored == 2)
    start = time.monotonic()
    if end == "stop":
        server.stop(timeout=0.1)
    else:
        assert server.disconnect(name, timeout=0.1) == 1
    assert time.monotonic() - start < PATIENCE
    assert device.holders == 0
    check_consistent(device)


def test_stop_cuts_off_who_negotiates_and_who_does_not_read(house):
    server = house.serve()
    negotiating, silent = house.connect().greet(), house.connect()
    assert silent.exactly(18)[:8] == b"NBDMAGIC"
    server.stop()
    assert negotiating.closed()
    assert silent.closed()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        house.connect(server)
    server.stop()


def test_options_after_stop_are_refused(house):
    server = house.serve()
    client = house.connect().greet()
    assert client.answer(p.OPT_STRUCTURED_REPLY) == p.REP_ACK
    (connection,) = server._connections
    connection.stopping = True
    assert client.answer(p.OPT_GO, b"\0" * 6) == p.REP_ERR_SHUTDOWN
    client.send_option(p.OPT_EXPORT_NAME)
    assert client.closed()


def test_leaving_the_with_block_stops(house, tmp_path):
    with Server(house.control, listen(f"unix:{tmp_path}/with.sock")) as server:
        assert house.connect(server).greet().go("")
    assert not (tmp_path / "with.sock").exists()
    assert house.control.device("zram0").holders == 0


def test_a_server_that_never_started_stops(house, tmp_path):
    server = Server(house.control, listen(f"unix:{tmp_path}/never.sock"))
    server.stop()
    assert not (tmp_path / "never.sock").exists()


def test_tcp_beyond_loopback_needs_tls(house):
    listener = listen("tcp:0.0.0.0:0")
    with pytest.raises(InvalidValue, match=r"can be reached from other machines") as caught:
        Server(house.control, listener)
    assert caught.value.errno == errno.EINVAL
    assert "certificate" in caught.value.hint
    listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_tcp_on_loopback_does_not(house, host):
    try:
        server = house.serve(f"tcp:{host}:0")
    except OSError as error:
        pytest.skip(f"no {host} here: {error}")
    client = house.connect(server).greet()
    client.go("")
    assert client.write(0, b"t" * 5000) == 0
    assert client.read(0, 5000) == b"t" * 5000
    client.disconnect()


def test_a_bug_in_a_connection_costs_that_connection(house, monkeypatch, caplog):
    house.serve()
    witness = house.ready()

    def crash(self):
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("zramcore.nbd.handshake.Handshake.run", crash)
        assert house.connect().closed()
    assert any("connection-crashed" in record.getMessage() for record in caplog.records)
    assert witness.read(0, 4096) == bytes(4096)
    assert house.ready().read(0, 4096) == bytes(4096)
