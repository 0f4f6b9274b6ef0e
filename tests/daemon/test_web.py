"""The HTTP server in this process: the token, stats while a writeback runs, too many changes, the end."""

import http.client
import json
import os
import socket
import stat
import threading

import pytest

from zramcore.control import Control
from zramcore.daemon.api import MOST_CHANGES, Api
from zramcore.daemon.client import Client
from zramcore.daemon.service import Options, Service
from zramcore.daemon.sockets import UnixListener
from zramcore.daemon.web import BearerToken, WebServer, listen_tcp, read_token
from zramcore.errors import InvalidValue, NotPermitted, ZramError
from zramcore.testing.faults import FaultyDriver, Gate

TOKEN = "0123456789abcdef0123"


@pytest.fixture
def service(catalogue, tmp_path):
    """A service that was not started: what the API asks of the daemon."""
    service = Service(Control(catalogue), Options(socket=str(tmp_path / "c.sock")))
    yield service
    service.fleet.close()
    FaultyDriver.reset()


@pytest.fixture
def web(service, tmp_path):
    """Its API on a unix socket."""
    listener = UnixListener(service.options.socket)
    server = WebServer(Api(service.fleet, service), listener.socket)
    yield server
    server.close()
    listener.close()


def wait_in_writeback(service, gate):
    """A device in whose backing driver writes wait at the gate, with huge pages to write."""
    member = service.create({"name": "slow", "device": {"disksize": "1M", "backing_dev": "faulty:/disk,blocks=64"}})
    member.target.device.pwrite(0, os.urandom(16 * 4096))
    FaultyDriver.named("/disk").on_write = gate
    return member


def in_thread(socket_path, *arguments, failed=None):
    """Run a store in a thread; the thread, and what it raised, when `failed` is released too."""
    raised = []

    def body():
        with Client(socket_path) as client:
            try:
                client.store(*arguments)
            except ZramError as error:
                raised.append(error)
                if failed is not None:
                    failed.release()

    thread = threading.Thread(target=body)
    thread.start()
    return thread, raised


def test_a_long_writeback_does_not_hold_up_stats(service, web):
    with Gate() as gate, Client(service.options.socket) as client:
        wait_in_writeback(service, gate)
        thread, raised = in_thread(service.options.socket, "slow", "writeback", "huge")
        gate.wait()
        for attribute in ("mm_stat", "bd_stat", "io_stat", "debug_stat", "stat"):
            assert client.show("slow", attribute)
        assert client.device("slow")["bd_stat"]["bd_writes"] == 0
        assert "zramcore_mem_used_bytes" in client.metrics()
        assert client.slot_map("slow", 8)["totals"]["huge"] == 16
        assert thread.is_alive()
        gate.open()
        thread.join(30)
        assert raised == []
        assert client.device("slow")["bd_stat"]["bd_writes"] == 16


def test_changes_that_pile_up_are_told_to_come_back_and_looking_still_works(service, web):
    with Gate() as gate, Client(service.options.socket) as client:
        wait_in_writeback(service, gate)
        arguments = (service.options.socket, "slow", "writeback", "huge")
        failed = threading.Semaphore(0)
        waiting = [in_thread(*arguments)]
        gate.wait()
        waiting += [in_thread(*arguments, failed=failed) for _ in range(MOST_CHANGES + 3)]
        for _ in range(4):
            assert failed.acquire(timeout=30)
        assert [error.errno_name for _, raised in waiting for error in raised] == ["EAGAIN"] * 4
        assert client.show("slow", "initstate") == "1\n"
        gate.open()
        for thread, _ in waiting:
            thread.join(30)
            assert not thread.is_alive()


def test_the_end_waits_for_a_request_in_progress(service, tmp_path):
    listener = UnixListener(service.options.socket)
    server = WebServer(Api(service.fleet, service), listener.socket)
    with Gate() as gate:
        wait_in_writeback(service, gate)
        thread, raised = in_thread(service.options.socket, "slow", "writeback", "huge")
        gate.wait()
        closing = threading.Thread(target=server.close)
        closing.start()
        gate.open()
        thread.join(30)
        closing.join(30)
    assert raised == []
    assert not server.alive
    listener.close()


def test_a_fault_of_ours_is_a_500_and_no_traceback_to_the_client(service, web, monkeypatch, caplog):
    monkeypatch.setattr(service, "info", lambda: 1 / 0)
    with Client(service.options.socket) as client, pytest.raises(ZramError, match="ZeroDivisionError") as caught:
        client.info()
    assert caught.value.errno_name == "EIO"
    assert "Traceback" not in str(caught.value)
    assert "ZeroDivisionError" in caplog.text


# Over TCP


def ask(port, token=None, path="/sys/block/"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={} if token is None else {"Authorization": token})
    response = connection.getresponse()
    answer = (response.status, response.read())
    connection.close()
    return answer


@pytest.fixture
def port(service):
    listener = listen_tcp("tcp:127.0.0.1:0")
    number = listener.getsockname()[1]
    server = WebServer(BearerToken(Api(service.fleet, service), TOKEN), listener)
    yield number
    server.close()


@pytest.mark.parametrize(
    "token", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \xff"]
)
def test_nothing_without_the_token(port, service, token):
    for path in ("/sys/block/", "/metrics", "/sys/class/zram-control/hot_add", "/"):
        status, body = ask(port, token, path)
        assert status == 401
        error = json.loads(body)
        assert error["name"] == "EACCES"
        assert error.keys() == {"errno", "name", "message", "attribute", "value", "hint"}  # as those of the API
    assert list(service.fleet) == []


def test_everything_with_it(port, service):
    service.fleet.hot_add()
    assert ask(port, f"Bearer {TOKEN}") == (200, b"zram0\n")
    assert ask(port, f"bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize(
    "spec", ["127.0.0.1:80", "tcp:", "tcp:127.0.0.1", "tcp::80", "tcp:127.0.0.1:x", "tcp:127.0.0.1:70000"]
)
def test_where_http_cannot_be_served(spec):
    with pytest.raises(InvalidValue):
        listen_tcp(spec)


def test_ipv6_in_brackets():
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        with listen_tcp("tcp:[::1]:0") as listener:
            assert listener.family == socket.AF_INET6
    except ZramError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


def test_the_token_file_is_its_owners(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    for mode in (0o640, 0o604, 0o660):
        file.chmod(mode)
        with pytest.raises(NotPermitted, match="open to others"):
            read_token(file)
    file.chmod(stat.S_IRUSR)
    assert read_token(file) == TOKEN


@pytest.mark.parametrize("text", ["", "short", "two words that are long enough", "\0" * 20, "é" * 20])
def test_what_is_no_token(tmp_path, text):
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(InvalidValue, match="holds no token"):
        read_token(file)
