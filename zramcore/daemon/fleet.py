"""Fleet: the devices of a daemon, with the labels, policies and images that the kernel's control class has not.

Every device has the kernel's name, zramN; one of the kernel's own zram is kernel:zramN. One that came from a config
file or `create` has a label too, unless that is the same; both name it. A label of the form zramN must be the device's
own name, the kernel's too: no name ever means two devices.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..allowance import DailyBudget
from ..config import Config, DeviceConfig, PolicyConfig
from ..control import Control, Target
from ..deployed import AnyDeployed, Deployed, KernelDeployed, of_device
from ..deployment import Deployment, budget_of
from ..device import Device
from ..errors import DeviceBusy, InvalidValue, NoBackingDevice, NotPermitted, ZramError, did_you_mean
from ..kernel import KernelControl, KernelDevice
from ..policy_state import StateFile
from .logs import event
from .policies import PolicyRunner

Origin = Literal["config", "create", "hot_add"]

_KERNEL_NAME = re.compile(r"zram[0-9]+", re.ASCII)


AS_IT_IS = ("idle", "writeback", "recompress", "compact", "mem_used_max", "writeback_limit", "writeback_limit_enable")
"""What is written to a device that somebody else set up; its configuration is theirs."""


@dataclass
class Member:
    """One device of the fleet. `name`: zramN, or kernel:zramN. `deployed` and `config` are None for one that hot_add
    made."""

    name: str
    target: Target | KernelDevice
    origin: Origin
    runner: PolicyRunner
    deployed: AnyDeployed | None = None
    config: DeviceConfig | None = None

    @property
    def label(self) -> str:
        """The name that the user chose; the kernel's name where there is none."""
        return self.config.name if self.config is not None else self.name

    @property
    def order(self) -> tuple[bool, int]:
        """Where it stands among others: zramcore devices by number, then the kernel's."""
        return self.device is None, int(self.target.name.removeprefix("zram"))

    @property
    def device(self) -> Device | None:
        """The zramcore device; None for one of the kernel's zram."""
        return self.target.device if isinstance(self.target, Target) else None

    @property
    def uris(self) -> list[str]:
        """Where the config has it served; the daemon's own NBD servers are others."""
        hosting = self.deployed.hosting if isinstance(self.deployed, Deployed) else None
        return hosting.uris if hosting is not None else []

    @property
    def users(self) -> int:
        """How many times it is open, not counting the node that its config asks for."""
        if self.device is None:
            return 0
        hosting = self.deployed.hosting if isinstance(self.deployed, Deployed) else None
        return max(0, self.device.holders - (hosting.own_connections if hosting is not None else 0))

    def check_unused(self) -> None:
        """Raises DeviceBusy (EBUSY) while it has users."""
        if self.users:
            hint = "disconnect its clients or detach it first"
            raise DeviceBusy(f"{self.label} is open {self.users} times", hint=hint)

    def disconnect(self) -> None:
        """End the connections of the servers that its config asks for; the node's stay."""
        if isinstance(self.deployed, Deployed) and self.deployed.hosting is not None:
            self.deployed.hosting.disconnect(self.name)

    def store(self, attribute: str, text: str) -> None:
        """Write an attribute, as a client asks for it. Raises NotPermitted (EACCES) for the configuration of a device
        that somebody else set up, and as `Target.store`."""
        if isinstance(self.deployed, KernelDeployed) and not self.deployed.ours and attribute not in AS_IT_IS:
            hint = f"change it where it is set up, or by hand: {self.target.name} in /sys/block"
            raise NotPermitted(f"{self.label} was set up by somebody else", attribute=attribute, hint=hint)
        self.target.store(attribute, text)

    def interrupt(self) -> None:
        """Have the pass that runs end after the batch it is at, where it can be told."""
        if self.device is not None:
            self.device.stop_pass.set()

    def go_on(self) -> None:
        """Let passes run again."""
        if self.device is not None:
            self.device.stop_pass.clear()


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

    `on_removed` is called with the name of each device that is gone, however it went. `kernel`: the kernel's own
    zram; `state`: where policies keep what outlives the daemon.
    """

    def __init__(
        self,
        control: Control,
        on_removed: Callable[[str], None] = _nobody,
        *,
        kernel: KernelControl | None = None,
        state: StateFile | None = None,
    ) -> None:
        self.control = control
        self.kernel = kernel or KernelControl()
        self.writes_per_day: DailyBudget | None = None
        """What the policies of all devices of the file may write in a day together, but those with their own limit."""
        self._on_removed = on_removed
        self._state = state
        self._closed = False
        self._members: dict[str, Member] = {}
        self._change = threading.RLock()

    # Looking ----------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Member]:
        return iter(sorted(self._members.values(), key=lambda member: member.order))

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
            runner = PolicyRunner(target, self.control.catalogue, state=self._state)
            self._members[target.name] = Member(target.name, target, "hot_add", runner)
        event("device_added", device=target.name, origin="hot_add")
        return number

    def hot_remove(self, number: int) -> None:
        """Reset and delete a device, as the kernel does: nothing is saved. Raises as `Control.hot_remove`."""
        with self._change:
            self.control.hot_remove(number)
            self._forget(f"zram{number}")
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
            self._check_labels(config.devices)
            deployment = self._deploy(config, origin, cancelled)
            budgets = deployment.budgets
            members = [self._member(deployed, origin, budgets[deployed.config.name]) for deployed in deployment.devices]
            self._members |= {member.name: member for member in members}
            try:
                for member, deployed in zip(members, deployment.devices, strict=True):
                    event(
                        "device_up",
                        device=member.name,
                        label=member.label,
                        origin=origin,
                        disksize=deployed.disksize,
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
            if self._members.get(member.name) is not member:
                raise NoBackingDevice(f"{member.label} is gone already")
            member.check_unused()  # before anything is undone
            if member.deployed is not None and member.device is not None:
                member.deployed.release()  # what its config attached
            member.check_unused()
            member.interrupt()
            try:
                member.runner.stop()
                stored = self._remove(member, save)
            except BaseException:
                member.go_on()
                member.runner.resume()
                raise
            self._forget(member.name)
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
            if member.deployed is not None:
                member.deployed = replace(member.deployed, config=config)

    def share_writes_per_day(self, units: int | None) -> None:
        """The limit of the file for all its devices that have none of their own, in units of 4 KiB; None: no limit."""
        with self._change:
            if units is None or self.writes_per_day is None:
                self.writes_per_day = None if units is None else DailyBudget(units)
            else:
                self.writes_per_day.limit = units  # what was written today counts on
            for member in self:
                if member.config is not None and member.origin == "config":
                    member.runner.share(self._budget(member, member.config))

    def set_writes_per_day(self, member: Member, config: DeviceConfig) -> None:
        """Have a device's own limit as `config` says."""
        with self._change:
            self.configured(member, config)
            member.runner.share(self._budget(member, config))

    def close(self) -> list[str]:
        """Take every device down; what could not be done, one sentence each. The others are saved all the same.

        None can be added from now on."""
        failures = []
        with self._change:  # waits for one that is coming up
            self._closed = True
        for member in reversed(list(self)):
            if isinstance(member.deployed, Deployed):
                with contextlib.suppress(ZramError):  # said below; while policies run, what is still written finds room
                    member.deployed.release()
        for member in reversed(list(self)):
            member.interrupt()  # all at once, so that nobody waits for another's pass
        for member in reversed(list(self)):
            try:
                self.take_down(member)
            except ZramError as error:
                failures.append(f"{member.label}: {error}")
                if isinstance(member.deployed, Deployed):
                    member.deployed.take_down(self.control)  # it stays, but its image is saved
                event("device_stays", level=logging.ERROR, device=member.name, label=member.label, error=error)
        return failures

    # Helpers ----------------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise Stopping("the daemon is stopping")

    def _deploy(self, config: Config, origin: Origin, cancelled: Callable[[], bool]) -> Deployment:
        """Bring up the devices of a config; those of the file share its limit, which stays as it was after an error."""
        if origin != "config":
            return Deployment.bring_up(config, self.control, cancelled, self.kernel, state=self._state)
        before = None if self.writes_per_day is None else self.writes_per_day.limit
        self.share_writes_per_day(config.writes_per_day)
        shared, state = self.writes_per_day, self._state
        try:
            return Deployment.bring_up(config, self.control, cancelled, self.kernel, shared=shared, state=state)
        except BaseException:
            self.share_writes_per_day(before)
            raise

    def _member(self, deployed: AnyDeployed, origin: Origin, daily: DailyBudget | None) -> Member:
        config = deployed.config
        name = deployed.name if isinstance(deployed, KernelDeployed) else deployed.target.name
        runner = PolicyRunner(
            deployed.target,
            self.control.catalogue,
            label=config.name,
            name=name,
            state=self._state,
            daily=daily,
        )
        return Member(name, deployed.target, origin, runner, deployed, config)

    def _budget(self, member: Member, config: DeviceConfig) -> DailyBudget | None:
        """The budget a device has by its config; the one it has, where only the limit is another."""
        budget = budget_of(config, self.writes_per_day if member.origin == "config" else None)
        running = member.runner.daily
        if budget is None or running is None or budget.name != running.name:
            return budget
        running.limit = budget.limit
        return running

    def _check_labels(self, devices: Sequence[DeviceConfig]) -> None:
        taken = {name: member for member in self for name in (member.name, member.label)}
        others = {device.name for device in devices if device.target.is_kernel}
        used = {*self.control.devices, *self.control.avoided}
        free = (n for n in itertools.count() if n not in used and f"zram{n}" not in others)
        for device in devices:
            label = device.name
            if label in taken:
                raise LabelTaken(f"there is a device {label} already", attribute=label)
            if device.target.is_kernel:
                continue
            number = next(free)
            if _KERNEL_NAME.fullmatch(label) and label != f"zram{number}":
                raise InvalidValue(
                    f"{label} is the name of another id: this device will be zram{number}",
                    attribute=label,
                    hint="use that, or a name of your own that is not zramN",
                )

    def _remove(self, member: Member, save: bool) -> int | None:
        if member.deployed is None:
            member.target.store("reset", "1")
            self.control.hot_remove(member.order[1])
            return None
        result = member.deployed.take_down(self.control, save=save)
        if result.error is not None:
            raise of_device(member.deployed.label, result.error)
        return result.stored

    def _forget(self, name: str) -> None:
        member = self._members.pop(name, None)
        if member is not None:
            member.runner.stop()
            if isinstance(member.deployed, Deployed):
                with contextlib.suppress(DeviceBusy):  # a node in use would have kept the device
                    member.deployed.release()  # its servers would serve the next device of this name
            self._on_removed(member.name)
