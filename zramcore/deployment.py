"""Deployment: a checked config brought up on a Control, and taken down again.

Bringing up is all or nothing: an error removes every device that was added, and the backing files it made. Taking
down saves before it forgets: a device whose image could not be saved stays up, so that nothing is lost by retrying.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace

from .backing_spec import parse_backing_spec
from .config import Config, DeviceConfig, plan_device
from .control import Control, Target
from .device import Device
from .errors import ZramError
from .hosting import Hosting, check_host, give_up, host
from .image import load_image, save_image
from .interfaces import WritebackPolicy
from .scheduler import Scheduler

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deployed:
    """A device of a deployment: what the file says, its id on the Control, and the device."""

    config: DeviceConfig
    id: int
    target: Target
    loaded: int
    """Bytes that its image brought."""
    hosting: Hosting | None = None
    """What serves it and where it is attached, if the config says so."""

    @property
    def device(self) -> Device:
        return self.target.device

    @property
    def label(self) -> str:
        """How messages name it: ``zram0``, or ``swap (zram0)`` where the file calls it otherwise."""
        name = self.target.name
        return name if self.config.name == name else f"{self.config.name} ({name})"


class Deployment:
    """The devices of a config on a Control. `bring_up` makes one."""

    def __init__(self, control: Control, devices: list[Deployed]) -> None:
        self.control = control
        self.devices = devices
        self._scheduler: Scheduler | None = None

    @classmethod
    def bring_up(cls, config: Config, control: Control, cancelled: Callable[[], bool] = lambda: False) -> Deployment:
        """Add the devices, write their attributes in order, load their images; then serve, attach, mount, swap.

        The config has passed `check`. Raises the ZramError of the first write that fails, naming the device and the
        attribute, or LoadCancelled once `cancelled()` is true; either way nothing is left behind.
        """
        devices: list[Deployed] = []
        for device in config.devices:
            try:
                check_host(device)
            except ZramError as error:
                raise _of(device.name, error.at("attach")) from error
        with contextlib.ExitStack() as undo:
            for device in config.devices:
                devices.append(_add(device, control, undo, cancelled))
            for index, deployed in enumerate(devices):
                devices[index] = _host(deployed, config, control, undo)
            undo.pop_all()
        return cls(control, devices)

    def release(self) -> None:
        """Detach the devices and stop serving them; `take_down` does that too. Raises DeviceBusy (EBUSY)."""
        for deployed in reversed(self.devices):
            if deployed.hosting is not None:
                deployed.hosting.release()

    def policies(self) -> list[tuple[Deployed, WritebackPolicy]]:
        """New policy objects for every device, in file order. Raises ZramError for one that cannot be made."""
        made = []
        for deployed in self.devices:
            catalogue = deployed.device.catalogue
            made += [(deployed, catalogue.policies[each.name](each.options)) for each in deployed.config.policies]
        return made

    def attach(self, scheduler: Scheduler) -> int:
        """Add the policies to a scheduler, which `take_down` then stops first; how many there are."""
        policies = self.policies()
        for deployed, policy in policies:
            scheduler.add(deployed.target, policy)
        self._scheduler = scheduler
        return len(policies)

    def take_down(self) -> list[tuple[Deployed, int]]:
        """Stop the policies, detach, save the images, reset and remove the devices; the bytes stored for each image.

        An error does not keep the other devices from being saved and removed; the first one is raised at the end,
        and the device it belongs to stays up. One whose node is in use stays up too, but its image is saved, as after
        a crash of what uses it. Calling again tries what is left.
        """
        if self._scheduler is not None:
            self._scheduler.stop()
        errors: list[ZramError] = []
        left: list[Deployed] = []
        saved: list[tuple[Deployed, int]] = []
        for deployed in reversed(self.devices):
            try:
                released = _release(deployed, errors)
                image = deployed.config.image
                if image is not None and image.save is not None:
                    deployed.device.flush()
                    saved.append((deployed, save_image(deployed.device, image.save)))
                if not released:
                    left.insert(0, deployed)
                    continue
                deployed.target.store("reset", "1")
                self.control.hot_remove(deployed.id)
            except ZramError as error:
                errors.append(_of(deployed.label, error))
                left.insert(0, deployed)
        self.devices = left
        if errors:
            for other in errors[1:]:
                log.error("%s", other)
            raise errors[0]
        return saved[::-1]


def _add(config: DeviceConfig, control: Control, undo: contextlib.ExitStack, cancelled: Callable[[], bool]) -> Deployed:
    _undo_backing_file(config, control, undo)  # first in, last out: the device lets go of the file before
    number = control.hot_add(config.page_size)
    undo.callback(_remove, control, number)
    target = control.target(f"zram{number}")
    for write in plan_device(config):
        try:
            target.store(write.attribute, write.value)
        except ZramError as error:
            raise _of(config.name, error.at(write.attribute, write.value)) from error
    image, loaded = config.image, 0
    if image is not None and image.load is not None and not (image.optional and not image.load.exists()):
        try:
            loaded = load_image(target.device, image.load, cancelled)
        except ZramError as error:
            raise _of(config.name, error.at("image")) from error
    return Deployed(config, number, target, loaded)


def _host(deployed: Deployed, config: Config, control: Control, undo: contextlib.ExitStack) -> Deployed:
    use = deployed.config.use
    if not use.serve and not use.attached:
        return deployed
    try:
        hosting = host(control, deployed.target.name, deployed.config, config.daemon)
    except ZramError as error:
        raise _of(deployed.config.name, error) from error
    undo.callback(give_up, hosting)
    return replace(deployed, hosting=hosting)


def _release(deployed: Deployed, errors: list[ZramError]) -> bool:
    """Detach a device and stop serving it; when that fails, have its file system written out for the image."""
    hosting = deployed.hosting
    if hosting is None:
        return True
    try:
        hosting.release()
    except ZramError as error:
        errors.append(_of(deployed.label, error))
        hosting.synchronize()
        return False
    return True


def _of(device: str, error: ZramError) -> ZramError:
    """The error, with the device in front of its attribute."""
    error.attribute = device if error.attribute is None else f"{device}/{error.attribute}"
    return error


def _remove(control: Control, number: int) -> None:
    try:
        control.target(f"zram{number}").store("reset", "1")
        control.hot_remove(number)
    except ZramError as error:
        # the error that led here is the one to raise
        log.error("zram%d cannot be removed: %s", number, error)


def _undo_backing_file(config: DeviceConfig, control: Control, undo: contextlib.ExitStack) -> None:
    """Have a backing file that bringing up will create removed if bringing up fails."""
    backing = config.settings.get("backing_dev")
    if backing is None:
        return
    try:
        _, spec = parse_backing_spec(backing.texts[0], control.catalogue.backing_drivers, config.page_size)
    except ZramError:
        return  # the write to come says it
    if not os.path.lexists(spec.path):
        undo.callback(_unlink_plain_file, spec.path)


def _unlink_plain_file(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)
