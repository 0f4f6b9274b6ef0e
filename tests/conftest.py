"""What all tests share: the real built-in plugins, devices made of them, a clock, and a backing driver that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.interfaces import Catalogue
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import Clock

DeviceFactory = Callable[..., Device]


@pytest.fixture(scope="session")
def built_in() -> Catalogue:
    """The catalogue of the installed plugins."""
    return build_catalogue(load_plugins())


@pytest.fixture(scope="session")
def catalogue(built_in: Catalogue) -> Catalogue:
    """The installed plugins, and FaultyDriver."""
    return replace(built_in, backing_drivers={**built_in.backing_drivers, FaultyDriver.name: FaultyDriver})


@pytest.fixture
def clock() -> Clock:
    """Boot seconds that stand still until a test sets `now`."""
    return Clock()


@pytest.fixture
def device(catalogue: Catalogue, clock: Clock) -> Iterator[DeviceFactory]:
    """Makes initialised devices: `pages` of memory, `blocks` of a FaultyDriver called "disk" (0: no backing device),
    other attributes by name, written in the order given, before disksize. All are closed at the end."""
    made: list[Device] = []

    def make(pages: int = 64, *, blocks: int = 64, page_size: int = 4096, uses: Catalogue | None = None,
             disk: str = "disk", **settings: str) -> Device:  # fmt: skip
        new = Device(uses or catalogue, f"zram{len(made)}", page_size=page_size, clock=clock)
        made.append(new)
        for name, text in settings.items():
            attributes.store(new, name, text)
        if blocks:
            attributes.store(new, "backing_dev", f"faulty:{disk},blocks={blocks}")
        if pages:
            attributes.store(new, "disksize", str(pages * page_size))
        return new

    yield make
    for each in made:
        each.holders = 0
        each.reset()
    FaultyDriver.reset()


@pytest.fixture
def disk() -> Callable[[], FaultyDriver]:
    """The driver that was opened last as "disk"."""
    return lambda: FaultyDriver.named("disk")
