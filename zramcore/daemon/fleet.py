"""Fleet: the devices of a daemon, with the labels, policies and images that the kernel's control class has not.

Every device has the kernel's name, zramN. One that came from a config file or `create` has a label too, unless that
is the same; both name it. A label of the form zramN must be the device's own name: no name ever means two devices.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..config import Config, DeviceConfig, PolicyConfig
from ..control import Control, Target
from ..deployment import Deployed, Deployment
from ..errors import DeviceBusy, InvalidValue, NoBackingDevice, ZramError, did_you_mean
from .logs import event
from .policies import PolicyRunner

Origin = Literal["config", "create", "hot_add"]

_KERNEL_NAME = re.compile(r"zram[0-9]+", re.ASCII)


@dataclass
class Member:
    """One device of the fleet. `deployment` and `config` are None for one that hot_add made."""

    id: int
    target: Target
    origin: Origin
    runner: PolicyRunner
    deployment: Deployment | None = None
    config: DeviceConfig | None = None

    @property
    def name(self) -> str:
        """The kernel's name: zramN."""
        return self.target.name

    @property
    def label(self) -> str:
        """The name that the user chose; the kernel's name where there is none."""
        return self.config.name if self.config is not None else self.name

    @property
    def uris(self) -> list[str]:
        """Where the config has it served; the daemon's own NBD servers are others."""
        devices = self.deployment.devices if self.deployment is not None else []
        return [uri for deployed in devices if deployed.hosting is not None for uri in deployed.hosting.uris]


class LabelTaken(ZramError):
    """EEXIST: a device has this name already."""

    code = errno.EEXIST


class Stopping(ZramError):
    """ESHUTDOWN: the daemon is about to end."""

    code = errno.ESHUTDOWN


def _nobody(name: str) -> None:
    """The one who is told of removed devices when nobody wants to know."""


class Fleet:
    """The devices on a control. Looking is never held up by a change; changes are made one at a time.

    `on_removed` is called with the kernel's name of each device that is gone, however it went.
    """

    def __init__(self, control: Control, on_removed: Callable[[str], None] = _nobody) -> None:
        self.control = control
        self._on_removed = on_removed
        self._closed = False
        self._members: dict[int, Member] = {}
        self._change = threading.RLock()

    # Looking ----------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Member]:
        return iter(sorted(self._members.values(), key=lambda member: member.id))

    def find(self, name: str) -> Member:
        """The device called so, by the kernel's name or its label. Raises NoBackingDevice (ENODEV)."""
        members = list(self)
        for member in members:
            if name in (member.name, member.label):
                return member
        known = dict.fromkeys(each for member in members for each in (member.label, member.name))
        raise NoBackingDevice(f"there is no device {name!r}", hint=did_you_mean(name, known))

    # As the kernel's control class does -------------------------------------------------------------------------------

    def hot_add(self) -> int:
        """A new, bare device; its id."""
        with self._change:
            self._check_open()
            number = self.control.hot_add()
            target = self.control.target(f"zram{number}")
            self._members[number] = Member(number, target, "hot_add", PolicyRunner(target))
        event("device_added", device=target.name, origin="hot_add")
        return number

    def hot_remove(self, number: int) -> None:
        """Reset and delete a device, as the kernel does: nothing is saved. Raises as `Control.hot_remove`."""
        with self._change:
            self.control.hot_remove(number)
            self._forget(number)
        event("device_removed", device=f"zram{number}", saved="no")

    # Deployed devices -------------------------------------------------------------------------------------------------

    def bring_up(
        self, config: Config, origin: Origin = "config", cancelled: Callable[[], bool] = lambda: False
    ) -> list[Member]:
        """Add the devices of a checked config and start their policies: all of them, or none.

        Raises the ZramError of what failed (nothing is left behind then), or LoadCancelled.
        """
        with self._change:
            self._check_open()
            self._check_labels([device.name for device in config.devices])
            deployment = Deployment.bring_up(config, self.control, cancelled)
            members = [self._member(deployed, origin) for deployed in deployment.devices]
            self._members |= {member.id: member for member in members}
            try:
                for member, deployed in zip(members, deployment.devices, strict=True):
                    event(
                        "device_up",
                        device=member.name,
                        label=member.label,
                        origin=origin,
                        disksize=member.target.device.disksize,
                        loaded=deployed.loaded or None,
                        policies=len(deployed.config.policies),
                    )
                    member.runner.replace(deployed.config.policies)
            except BaseException:
                for member in members:
                    self.take_down(member, save=False)
                raise
        return members

    def take_down(self, member: Member, *, save: bool = True) -> int | None:
        """Stop the policies, save the image if its config says so (and `save`), reset and remove the device; the bytes
        that the image stores, or None. Raises ZramError, and then the device is up as before."""
        with self._change:
            if self._members.get(member.id) is not member:
                raise NoBackingDevice(f"{member.label} is gone already")
            if member.deployment is not None:
                member.deployment.release()  # what its config attached
            device = member.target.device
            if device.holders:
                raise DeviceBusy(
                    f"{member.label} is open {device.holders} times", hint="disconnect its clients or detach it first"
                )
            device.stop_pass.set()
            try:
                member.runner.stop()
                saved = self._remove(member, save)
            except BaseException:
                device.stop_pass.clear()
                member.runner.resume()
                raise
            self._forget(member.id)
        stored = saved[0][1] if saved else None
        event("device_removed", device=member.name, label=member.label, saved="no" if stored is None else stored)
        return stored

    def set_policies(self, member: Member, policies: Sequence[PolicyConfig]) -> None:
        """Have exactly these policies on the device. Raises InvalidValue, and then nothing changes."""
        with self._change:
            member.runner.replace(policies)
            if member.config is not None:
                member.config = replace(member.config, policies=tuple(policies))
        event("policies_set", device=member.name, policies=",".join(policy.name for policy in policies) or "none")

    def configured(self, member: Member, config: DeviceConfig) -> None:
        """Remember what a device's config is by now; what it says of the image counts when the device goes."""
        with self._change:
            member.config = config
            if member.deployment is not None:
                deployed = member.deployment.devices[0]
                member.deployment.devices = [replace(deployed, config=config)]

    def close(self) -> list[str]:
        """Take every device down; what could not be done, one sentence each. The others are saved all the same.

        None can be added from now on."""
        failures = []
        with self._change:  # waits for one that is coming up
            self._closed = True
        for member in reversed(list(self)):
            member.target.device.stop_pass.set()  # all at once, so that nobody waits for another's pass
        for member in reversed(list(self)):
            try:
                self.take_down(member)
            except ZramError as error:
                failures.append(f"{member.label}: {error}")
                if member.deployment is not None:
                    with contextlib.suppress(ZramError):  # it stays, but its image is saved
                        member.deployment.take_down()
                event("device_stays", level=logging.ERROR, device=member.name, label=member.label, error=error)
        return failures

    # Helpers ----------------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise Stopping("the daemon is stopping")

    def _member(self, deployed: Deployed, origin: Origin) -> Member:
        runner = PolicyRunner(deployed.target)
        alone = Deployment(self.control, [deployed])
        return Member(deployed.id, deployed.target, origin, runner, alone, deployed.config)

    def _check_labels(self, labels: Sequence[str]) -> None:
        taken = {name: member for member in self for name in (member.name, member.label)}
        free = (number for number in range(len(taken) + len(labels) + 1) if number not in self.control.devices)
        for label, number in zip(labels, free, strict=False):
            if label in taken:
                raise LabelTaken(f"there is a device {label} already", attribute=label)
            if _KERNEL_NAME.fullmatch(label) and label != f"zram{number}":
                raise InvalidValue(
                    f"{label} is the name of another id: this device will be zram{number}",
                    attribute=label,
                    hint="use that, or a name of your own that is not zramN",
                )

    def _remove(self, member: Member, save: bool) -> list[tuple[Deployed, int]]:
        if member.deployment is None or not save:
            member.target.store("reset", "1")
            self.control.hot_remove(member.id)
            return []
        return member.deployment.take_down()

    def _forget(self, number: int) -> None:
        member = self._members.pop(number, None)
        if member is not None:
            member.runner.stop()
            self._on_removed(member.name)
