"""The set of devices: hot_add and hot_remove, and what a config file, a policy or the CLI talks to."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any

from . import attributes
from .access_clock import boot_seconds
from .allowance import TAKING_TURNS
from .attributes import ATTRIBUTES, Attribute
from .device import Device
from .errors import InvalidValue, NoBackingDevice, NoSuchAttribute, NotPermitted, ZramError, did_you_mean
from .interfaces import Catalogue
from .parse import kstrtoint


def _nobody(event: str, **fields: Any) -> None:
    """The observer of devices that nobody observes."""


class Target:
    """One device as its attributes: what policies and deployments act on."""

    def __init__(self, device: Device, table: Mapping[str, Attribute] = ATTRIBUTES) -> None:
        self.device = device
        self.table = table

    @property
    def name(self) -> str:
        """The device's name, e.g. ``zram0``."""
        return self.device.name

    @property
    def turn(self) -> AbstractContextManager[object]:
        """Taken for a pass with the limit that is set for it."""
        return self.device.turn

    @property
    def initialized(self) -> bool:
        """Whether disksize is set."""
        return self.device.initialized

    def attributes(self) -> list[str]:
        """The attributes there are, by name."""
        return list(self.table)

    def show(self, attribute: str) -> str:
        """Read an attribute; see `attributes.show`."""
        return attributes.show(self.device, attribute, self.table)

    def store(self, attribute: str, value: str) -> None:
        """Write an attribute; see `attributes.store`."""
        with self.turn if attribute in TAKING_TURNS else nullcontext():
            attributes.store(self.device, attribute, value, self.table)

    def watch_memory(self, owner: object, size: int | None, tell: Callable[[], None]) -> None:
        """Have `tell` called, once, when the pool becomes larger than `size` bytes or a write meets mem_limit; None:
        not any more. See `MemoryRoom.watch`."""
        pages = None if size is None else size // self.device.page_size
        self.device.room.watch(owner, pages, tell)


class Control:
    """Devices by id, as /sys/class/zram-control keeps them. Thread-safe."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        page_size: int = 4096,
        clock: Callable[[], int] = boot_seconds,
        notify: Callable[..., None] = _nobody,
        extra_attributes: Sequence[Attribute] = (),
    ) -> None:
        self.catalogue = catalogue
        self.page_size = page_size
        self.devices: dict[int, Device] = {}
        self.avoided: set[int] = set()
        """Ids that no device gets: that name is somebody else's, a device of the kernel's."""
        self.attributes: Mapping[str, Attribute] = MappingProxyType(
            {**{attribute.name: attribute for attribute in extra_attributes}, **ATTRIBUTES}
        )
        self._clock = clock
        self._notify = notify
        self._lock = threading.Lock()

    def hot_add(self, page_size: int | None = None) -> int:
        """Create an uninitialised device with the lowest free id, which is returned. Raises InvalidValue (EINVAL) for
        a page size that is not 4096, 16384 or 65536 (default: the control's)."""
        with self._lock:
            number = next(n for n in itertools.count() if n not in self.devices and n not in self.avoided)
            device = Device(
                self.catalogue,
                f"zram{number}",
                page_size=self.page_size if page_size is None else page_size,
                clock=self._clock,
                notify=self._notify,
            )
            self.devices[number] = device
        self._notify("device_added", device=device.name)
        return number

    def hot_remove(self, number: int) -> None:
        """Reset and delete a device. Raises InvalidValue (EINVAL) for a negative id, NoBackingDevice (ENODEV) for an
        unknown one, DeviceBusy (EBUSY) while it is open."""
        if number < 0:
            raise InvalidValue("a device id is not negative", attribute="hot_remove", value=number)
        with self._lock:
            device = self._numbered(number)
            device.reset()
            del self.devices[number]
        self._notify("device_removed", device=device.name)

    def show(self, attribute: str) -> str:
        """Read a class attribute: reading hot_add creates a device and returns its id."""
        if attribute == "hot_add":
            return f"{self.hot_add()}\n"
        raise self._refuse(attribute, "read")

    def store(self, attribute: str, text: str) -> None:
        """Write a class attribute: hot_remove takes the id of the device to delete."""
        if attribute != "hot_remove":
            raise self._refuse(attribute, "written")
        try:
            self.hot_remove(kstrtoint(text))
        except ZramError as error:
            raise error.at(attribute, text.removesuffix("\n")) from None

    def device(self, name: str) -> Device:
        """The device called `name`. Raises NoBackingDevice (ENODEV)."""
        for device in list(self.devices.values()):
            if device.name == name:
                return device
        known = [device.name for device in self.devices.values()]
        raise NoBackingDevice(f"there is no device {name!r}", hint=did_you_mean(name, known))

    def target(self, name: str) -> Target:
        """The device called `name`, as its attributes."""
        return Target(self.device(name), self.attributes)

    def _numbered(self, number: int) -> Device:
        device = self.devices.get(number)
        if device is None:
            raise NoBackingDevice(f"there is no device zram{number}", attribute="hot_remove", value=number)
        return device

    def _refuse(self, attribute: str, verb: str) -> Exception:
        if attribute in ("hot_add", "hot_remove"):
            return NotPermitted(f"{attribute} cannot be {verb}", attribute=attribute)
        return NoSuchAttribute(
            f"there is no class attribute {attribute!r}", hint=did_you_mean(attribute, ["hot_add", "hot_remove"])
        )
