"""Daemons for the tests: real ones in their own processes, one shared by the tests of a module, and fleets without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from zramcore.control import Control
from zramcore.daemon.client import Client
from zramcore.daemon.fleet import Fleet
from zramcore.interfaces import Catalogue
from zramcore.testing.daemon import RunningDaemon


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon for all tests of a module."""
    with RunningDaemon(tmp_path_factory.mktemp("daemon"), "--nbd", "unix:nbd.sock") as daemon:
        yield daemon
        assert daemon.stop() == 0


@pytest.fixture
def client(running: RunningDaemon) -> Iterator[Client]:
    """A client of `running`; devices that the test leaves are removed."""
    with running.client() as client:
        yield client
        for device in client.devices():
            client.remove(device["name"], save=False, disconnect=True)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., RunningDaemon]]:
    """Starts daemons with the arguments given, in `tmp_path`."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(RunningDaemon(tmp_path, *arguments, **options))


@pytest.fixture
def fleet(built_in: Catalogue) -> Iterator[Fleet]:
    """A fleet in this process, without a daemon around it."""
    fleet = Fleet(Control(built_in))
    yield fleet
    for member in fleet:
        member.target.device.holders = 0
    assert fleet.close() == []
