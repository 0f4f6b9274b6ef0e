"""A running device by its name: the daemon's, or one of the kernel's own zram. Read only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..daemon.client import Client
from ..errors import NoBackingDevice, ZramError
from ..interfaces import PolicyTarget
from .common import open_kernel

_KERNEL = re.compile(r"(?:kernel:|/dev/|/sys/block/)?(zram[0-9]+)", re.ASCII)


class DaemonTarget:
    """A zramcore device of the daemon, by its attributes."""

    def __init__(self, client: Client, found: Mapping[str, Any]) -> None:
        """`found`: the device, as the daemon tells of it."""
        self._client = client
        self._name = str(found["name"])
        self.label = str(found["label"])
        self.page_size = int(found["page_size"])

    @property
    def name(self) -> str:
        return self._name

    def show(self, attribute: str) -> str:
        """Read an attribute."""
        return self._client.show(self._name, attribute)


def find_target(client: Client, name: str, *, kernel: bool = True) -> PolicyTarget:
    """The daemon's device of that name or label; without one, with `kernel`, the kernel's. ``kernel:zram0`` and
    ``/dev/zram0`` are always the kernel's. Raises NoBackingDevice (ENODEV) when neither has it, NoDaemon."""
    match = _KERNEL.fullmatch(name)
    why = ""
    if match is None or match[1] == name:
        try:
            found = client.device(name)
            if found.get("target") == "kernel":
                return open_kernel().target(str(found["name"]).removeprefix("kernel:"))
            return DaemonTarget(client, found)
        except ZramError as error:
            if match is None or not kernel:
                raise
            why = error.reason
    if match is not None:
        try:
            return open_kernel().target(match[1])
        except NoBackingDevice as error:
            if not why:
                raise
            why = f"{why}, and {error.reason}"
    raise NoBackingDevice(
        f"there is no device {name!r}: {why}", hint="name a device of a running daemon, or zramN of the kernel"
    )
