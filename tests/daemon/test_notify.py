"""sd_notify: what reaches the service manager's socket, and when."""

import os
import socket
import threading

import pytest

from zramcore.daemon.notify import Notifier


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10)
        yield sock


def notifier(manager, **environment):
    return Notifier({"NOTIFY_SOCKET": manager.getsockname(), **environment})


def received(manager):
    return manager.recv(4096).decode().splitlines()


def drained(manager):
    """What has arrived and was not received yet."""
    lines = set()
    while True:
        try:
            lines |= set(received(manager))
        except BlockingIOError:
            return lines


def test_ready_reloading_stopping(manager):
    told = notifier(manager)
    told.ready("2 devices")
    assert received(manager) == ["READY=1", "STATUS=2 devices"]
    told.reloading()
    state, clock = received(manager)
    assert state == "RELOADING=1"
    assert clock.startswith("MONOTONIC_USEC=")
    assert int(clock.partition("=")[2]) > 0
    told.stopping()
    assert "STOPPING=1" in received(manager)


def test_an_abstract_address_is_understood():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0zramcore-test-{os.getpid()}")
        sock.settimeout(10)
        Notifier({"NOTIFY_SOCKET": f"@zramcore-test-{os.getpid()}"}).send("X=1")
        assert sock.recv(100) == b"X=1"


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative"])
def test_without_a_socket_nothing_happens(address):
    quiet = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    assert quiet.watchdog is None
    quiet.start(lambda: True)
    quiet.ready("x")
    quiet.close()


def test_a_manager_that_is_gone_is_no_error(tmp_path):
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("x")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "many"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_who_it_is_meant_for(manager, environment, seconds):
    assert notifier(manager, **environment).watchdog == seconds


def test_signs_of_life_while_healthy_and_none_after(manager):
    told = notifier(manager, WATCHDOG_USEC="40000")
    sick = threading.Event()
    asked = threading.Semaphore(0)

    def healthy():
        asked.release()
        return not sick.is_set()

    told.start(healthy)
    try:
        assert "EXTEND_TIMEOUT_USEC=30000000" in received(manager)  # it starts still
        told.ready("x")
        while received(manager) != ["WATCHDOG=1"]:
            pass
        sick.set()
        for _ in range(3):  # the second look and those after it see it sick
            assert asked.acquire(timeout=10)
        manager.setblocking(False)
        assert drained(manager) <= {"WATCHDOG=1"}  # sent before
        assert asked.acquire(timeout=10)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        told.stopping()
        manager.settimeout(10)
        assert "STOPPING=1" in received(manager)
        assert received(manager) == ["EXTEND_TIMEOUT_USEC=30000000", "WATCHDOG=1"]
    finally:
        told.close()
