"""Exports: the devices a client may choose, and the one it chose, held open while it is connected."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from weakref import WeakKeyDictionary

from ..control import Control
from ..device import Device
from ..errors import ZramError
from ..interfaces import Buffer
from .combining import Combiner
from .protocol import (
    CAN_MULTI_CONN,
    SEND_CACHE,
    SEND_DF,
    SEND_FAST_ZERO,
    SEND_FLUSH,
    SEND_FUA,
    SEND_HAS_FLAGS,
    SEND_READ_ONLY,
    SEND_TRIM,
    SEND_WRITE_ZEROES,
)
from .wire import log

MAX_RUN = 1 << 20
"""Bytes of requests that reach the device as one: what it handles as one batch."""


class Batches:
    """What the clients of a device share: their single pages, read and written together when they come together."""

    def __init__(self, device: Device) -> None:
        def write(requests: Sequence[tuple[int, Buffer]]) -> Sequence[None]:
            offsets, pages = zip(*requests, strict=True)
            return [None] * device.write_scattered(offsets, pages)

        self.most = MAX_RUN // device.page_size
        """Pages that one call may have; as many are combined."""
        self.read: Combiner[int, bytes] = Combiner(device.read_scattered, self.most)
        """Called with byte offsets it returns pages, as `Device.read_scattered`."""
        self.write: Combiner[tuple[int, Buffer], None] = Combiner(write, self.most)
        """Called with (offset, page) it returns as many results as were written, as `Device.write_scattered`."""


class Export:
    """A device that a client is connected to. It is a holder of the device: reset and hot_remove fail with EBUSY."""

    def __init__(self, device: Device, read_only: bool, batches: Batches) -> None:
        """Raises LookupError when the device has no disksize."""
        self.batches = batches
        self._file = device.open(writable=not read_only)
        path = device.path
        if path is None:
            self._file.close()
            raise LookupError(device.name)
        self.device = device
        self.name = device.name
        self.read_only = read_only
        self.path = path
        """The device's data path, as it was when the client connected."""
        self.size = device.disksize

    @property
    def gone(self) -> bool:
        """Whether the device was reset under the client, by force."""
        return self.device.path is not self.path

    def transmission_flags(self, structured: bool) -> int:
        """What the client is told it may do."""
        flags = SEND_HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN | SEND_CACHE
        flags |= SEND_READ_ONLY if self.read_only else SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO
        return flags | SEND_DF if structured else flags

    def close(self) -> None:
        """Let go of the device; what was written is flushed."""
        try:
            self._file.close()
        except ZramError as error:
            log(logging.ERROR, "flush-failed", export=self.name, error=error)


class Exports:
    """The devices that a server offers, under their own names. An uninitialised one has no size and is not offered."""

    def __init__(self, control: Control, only: Collection[str] | None = None, read_only: bool = False) -> None:
        """`only`: the names of devices to offer; None: all that the control has, now and later."""
        self._control = control
        self._only = None if only is None else frozenset(only)
        self.read_only = read_only
        self._batches: WeakKeyDictionary[Device, Batches] = WeakKeyDictionary()

    def devices(self) -> list[Device]:
        """Those offered now."""
        return [
            device
            for device in list(self._control.devices.values())
            if device.initialized and (self._only is None or device.name in self._only)
        ]

    def find(self, name: str) -> Device:
        """The device of this name; the empty name is the only device, if there is just one. Raises LookupError."""
        offered = self.devices()
        if not name and len(offered) == 1:
            return offered[0]
        for device in offered:
            if device.name == name:
                return device
        if name:
            raise LookupError(f"there is no export {name!r}")
        raise LookupError(f"there is no default export: choose one of {len(offered)}")

    def open(self, name: str) -> Export:
        """Hold the device of this name. Raises LookupError."""
        device = self.find(name)
        return Export(device, self.read_only, self._batches.setdefault(device, Batches(device)))


def description(device: Device) -> str:
    """A line for people: ``zram, 64 MiB, lz4, 4 KiB pages``."""
    return f"zram, {device.disksize / (1 << 20):g} MiB, {device.zcomp.names[0]}, {device.page_size >> 10} KiB pages"
