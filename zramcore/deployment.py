"""Deployment: a checked config brought up on a Control and on the kernel's zram, and taken down again.

Bringing up is all or nothing: an error removes every device that was added, and the backing files it made.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from .allowance import DailyBudget
from .attach.direct import check_use, use_node
from .backing_spec import parse_backing_spec
from .config import Config, DeviceConfig, plan_device, resolve
from .control import Control, Target
from .deployed import AnyDeployed, Deployed, KernelDeployed, of_device
from .errors import DeviceBusy, InvalidValue, ZramError
from .hosting import check_host, give_up, host
from .image import load_image
from .interfaces import WritebackPolicy
from .kernel import KernelControl, KernelDevice
from .kernel_record import KernelRecord
from .loop_device import backing_path
from .parse import memparse
from .policy_state import StateFile
from .scheduler import Scheduler

log = logging.getLogger(__name__)

LOAD_WAIT_MS = 30_000
"""How long loading and mounting wait at mem_limit, at least, while no page is written back."""
_KERNEL_LABEL = re.compile(r"zram([0-9]+)", re.ASCII)


class Deployment:
    """The devices of a config. `bring_up` makes one. `budgets`: by label, what their policies may write in a day."""

    def __init__(
        self, control: Control, devices: Sequence[AnyDeployed], budgets: Mapping[str, DailyBudget | None]
    ) -> None:
        self.control = control
        self.devices = list(devices)
        self.budgets = budgets
        self._scheduler: Scheduler | None = None

    @classmethod
    def bring_up(
        cls,
        config: Config,
        control: Control,
        cancelled: Callable[[], bool] = lambda: False,
        kernel: KernelControl | None = None,
        *,
        shared: DailyBudget | None = None,
        state: StateFile | None = None,
    ) -> Deployment:
        """Add the devices, write their attributes in order, load their images; then serve, attach, mount, swap.

        `shared`: the budget of devices without a limit of their own; default: a new one, as the config says. `state`:
        where budgets outlive the process: what is written while an image is loaded counts.

        The config has passed `check`. Raises the ZramError of the first write that fails, naming the device and the
        attribute, or LoadCancelled once `cancelled()` is true; either way nothing is left behind.
        """
        kernel = kernel or KernelControl()
        config = resolve(config, kernel)
        if shared is None and config.writes_per_day is not None:
            shared = DailyBudget(config.writes_per_day)
        budgets = {device.name: budget_of(device, shared) for device in config.devices}
        devices: list[AnyDeployed] = []
        for device in config.devices:
            try:
                _check_use(device)
            except ZramError as error:
                raise of_device(device.name, error.at("attach")) from error
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as until_up:
            for device in config.devices:
                if device.target.is_kernel:
                    devices.append(_set_up(device, control, kernel, undo))
            for device in config.devices:
                if not device.target.is_kernel:
                    target = _add(device, control, undo)
                    work = _policies_at_work(target, device, control, cancelled, budgets[device.name], state)
                    until_up.enter_context(work)
                    devices.append(_load(device, target, cancelled))
            order = [device.name for device in config.devices]
            devices.sort(key=lambda deployed: order.index(deployed.config.name))
            for index, deployed in enumerate(devices):
                devices[index] = _use(deployed, config, control, undo)
            undo.pop_all()
        return cls(control, devices, budgets)

    def release(self) -> None:
        """Detach the devices and stop serving them; `take_down` does that too. Raises DeviceBusy (EBUSY)."""
        for deployed in reversed(self.devices):
            deployed.release()

    def policies(self) -> list[tuple[AnyDeployed, WritebackPolicy]]:
        """New policy objects for every device, in file order. Raises ZramError for one that cannot be made."""
        known = self.control.catalogue.policies
        return [
            (deployed, known[each.name](each.options)) for deployed in self.devices for each in deployed.config.policies
        ]

    def attach(self, scheduler: Scheduler) -> int:
        """Add the policies to a scheduler, which `take_down` then stops; how many there are."""
        policies = self.policies()
        for deployed, policy in policies:
            label = deployed.config.name
            scheduler.add(deployed.target, policy, self.budgets[label], label)
        self._scheduler = scheduler
        return len(policies)

    def take_down(self) -> list[tuple[AnyDeployed, int]]:
        """Detach, stop the policies and the pass that runs, save the images, reset and remove the devices; the bytes
        stored for each image.

        An error does not keep the other devices from being saved and removed; the first one is raised at the end,
        and the device it belongs to stays up. Calling again tries what is left.
        """
        for deployed in reversed(self.devices):
            with contextlib.suppress(ZramError):  # said below; while policies run, what is still written finds room
                deployed.release()
        self._stop_policies()
        errors: list[ZramError] = []
        left: list[AnyDeployed] = []
        saved: list[tuple[AnyDeployed, int]] = []
        for deployed in reversed(self.devices):
            result = deployed.take_down(self.control)
            if result.stored is not None:
                saved.append((deployed, result.stored))
            if result.error is not None:
                errors.append(of_device(deployed.label, result.error))
                left.insert(0, deployed)
        self.devices = left
        if errors:
            for other in errors[1:]:
                log.error("%s", other)
            raise errors[0]
        return saved[::-1]

    def _stop_policies(self) -> None:
        if self._scheduler is None:
            return
        for deployed in self.devices:
            deployed.interrupt()
        try:
            self._scheduler.stop()
        finally:
            for deployed in self.devices:
                deployed.go_on()


def budget_of(device: DeviceConfig, shared: DailyBudget | None) -> DailyBudget | None:
    """What the policies of a device may write in a day: its own limit, or the one of the deployment."""
    own = device.target.writes_per_day
    return shared if own is None else DailyBudget(own, f"{device.name} writes_per_day")


def _check_use(device: DeviceConfig) -> None:
    """Raises ZramError when this machine or user cannot do what a device is for; nothing is touched."""
    if not device.target.is_kernel:
        check_host(device)
    elif device.use.attached:
        check_use(device.use.use)


# Devices of zramcore --------------------------------------------------------------------------------------------------


def _add(config: DeviceConfig, control: Control, undo: contextlib.ExitStack) -> Target:
    backing = config.settings.get("backing_dev")
    if backing is not None:
        with contextlib.suppress(ZramError):  # the write to come says it
            spec = parse_backing_spec(backing.texts[0], control.catalogue.backing_drivers, config.page_size)[1]
            _undo_new_file(spec.path, undo)  # first in, last out: the device lets go of the file before
    number = control.hot_add(config.page_size)
    undo.callback(_remove, control, number)
    target = control.target(f"zram{number}")
    for write in plan_device(config):
        try:
            target.store(write.attribute, write.value)
        except ZramError as error:
            raise of_device(config.name, error.at(write.attribute, write.value)) from error
    return target


def _load(config: DeviceConfig, target: Target, cancelled: Callable[[], bool]) -> Deployed:
    image, loaded = config.image, 0
    if image is not None and image.load is not None and not (image.optional and not image.load.exists()):
        try:
            loaded = load_image(target.device, image.load, cancelled)
        except ZramError as error:
            raise of_device(config.name, error.at("image")) from error
    return Deployed(config, int(target.name.removeprefix("zram")), target, loaded)


@contextlib.contextmanager
def _policies_at_work(
    target: Target,
    config: DeviceConfig,
    control: Control,
    cancelled: Callable[[], bool],
    budget: DailyBudget | None,
    state: StateFile | None,
) -> Iterator[None]:
    """A device with a mem_limit has its policies before it is up, too: what was written back when its image was saved
    is loaded as any other page, and mounting may write, too. So both wait for room, whatever others do."""
    if "mem_limit" not in config.settings or not config.policies:
        yield
        return
    scheduler = Scheduler(state=state)
    try:
        for each in config.policies:
            scheduler.add(target, control.catalogue.policies[each.name](each.options), budget, config.name)
    except ZramError as error:
        raise of_device(config.name, error.at("policy")) from error
    room = target.device.room
    wait_ms, given_up = room.wait_ms, room.given_up
    try:
        room.set_wait(max(wait_ms, LOAD_WAIT_MS))
        room.given_up = cancelled
        scheduler.start()
        yield
    finally:
        target.device.stop_pass.set()
        scheduler.stop()
        target.device.stop_pass.clear()
        room.set_wait(wait_ms)
        room.given_up = given_up


def _remove(control: Control, number: int) -> None:
    try:
        control.target(f"zram{number}").store("reset", "1")
        control.hot_remove(number)
    except ZramError as error:
        # the error that led here is the one to raise
        log.error("zram%d cannot be removed: %s", number, error)


# Devices of the kernel ------------------------------------------------------------------------------------------------


def _set_up(
    config: DeviceConfig, control: Control, kernel: KernelControl, undo: contextlib.ExitStack
) -> KernelDeployed:
    label = _KERNEL_LABEL.fullmatch(config.name)
    try:
        if config.target.device is not None:
            found = KernelDeployed(config, kernel, _as_it_is(kernel, config.target.device))
        else:
            record = KernelRecord(kernel.records, config.name)
            undo.callback(record.close)
            found = _taken_over(config, kernel, record) or _made(config, kernel, record, label and label[0], undo)
    except ZramError as error:
        raise of_device(config.name, error) from error
    if label and int(label[1]) not in control.avoided:
        control.avoided.add(int(label[1]))
        undo.callback(control.avoided.discard, int(label[1]))
    return found


def _as_it_is(kernel: KernelControl, name: str) -> KernelDevice:
    device = kernel.target(name)
    if not device.initialized:
        raise InvalidValue(f"{name} is not initialised", hint="set it up first").at("device", name)
    return device


def _writes(config: DeviceConfig) -> tuple[tuple[str, str], ...]:
    return tuple((write.attribute, write.value) for write in plan_device(config))


def _disksize(writes: Sequence[tuple[str, str]]) -> int:
    """What disksize shows after these writes."""
    size = memparse(dict(writes).get("disksize", "0"))
    page = os.sysconf("SC_PAGE_SIZE")
    return -(-size // page) * page


def _taken_over(config: DeviceConfig, kernel: KernelControl, record: KernelRecord) -> KernelDeployed | None:
    """The device that a process before this one set up and left, when it is what the file says; None without one.

    Raises DeviceBusy (EBUSY) when it is something else: what it holds is not thrown away.
    """
    left = record.load()
    if left is None or left.device not in kernel.names() or not left.complete:
        return None
    device = kernel.target(left.device)
    if device.disksize != _disksize(left.writes):
        return None  # somebody reset it, and it may be theirs by now
    if left.writes != _writes(config):
        raise DeviceBusy(
            f"{left.device} is still set up by an earlier run of {config.name}, otherwise than the file says now",
            hint=f"swapoff or umount it, then: echo 1 > {device.directory}/reset",
        )
    log.warning("%s: kernel:%s is taken over as an earlier run left it", config.name, device.name)
    return KernelDeployed(config, kernel, device, record, left.added, taken_over=True)


def _made(
    config: DeviceConfig, kernel: KernelControl, record: KernelRecord, wanted: str | None, undo: contextlib.ExitStack
) -> KernelDeployed:
    device, added = _claimed(kernel, record, wanted)
    if added:
        undo.callback(_give_back, kernel, device.name)
    backing = config.settings.get("backing_dev")
    if backing is not None:
        with contextlib.suppress(ZramError):  # the write to come says it
            _undo_new_file(backing_path(backing.texts[0], create=False), undo)
    undo.callback(record.forget)
    record.save(device.name, added, _writes(config), complete=False)
    device.set_up(_writes(config))
    found = KernelDeployed(config, kernel, device, record, added)
    undo.callback(_reset, found)
    record.save(device.name, added, _writes(config), complete=True)
    return found


def _claimed(kernel: KernelControl, record: KernelRecord, wanted: str | None) -> tuple[KernelDevice, bool]:
    """A device to set up, and whether it had to be added, by an earlier process that got no further perhaps."""
    left = record.load()
    device, added = kernel.claim(wanted)
    return device, added or (left is not None and left.added and left.device == device.name)


def _reset(found: KernelDeployed) -> None:
    try:
        found.target.reset()
    except ZramError as error:
        log.error("%s stays set up: %s", found.name, error)


def _give_back(kernel: KernelControl, name: str) -> None:
    try:
        kernel.hot_remove(int(name.removeprefix("zram")))
    except ZramError as error:
        log.error("kernel:%s cannot be removed: %s", name, error)


# Both -----------------------------------------------------------------------------------------------------------------


def _use(deployed: AnyDeployed, config: Config, control: Control, undo: contextlib.ExitStack) -> AnyDeployed:
    use = deployed.config.use
    if not use.serve and not use.attached:
        return deployed
    try:
        if isinstance(deployed, KernelDeployed):
            made = replace(deployed, use=use_node(deployed.target.node, use.use))
            if not made.taken_over:  # that was in use before, and stays
                undo.callback(_leave, made)
            return made
        hosting = host(control, deployed.target.name, deployed.config, config.daemon)
    except ZramError as error:
        raise of_device(deployed.config.name, error) from error
    undo.callback(give_up, hosting)
    return replace(deployed, hosting=hosting)


def _leave(deployed: KernelDeployed) -> None:
    try:
        deployed.release()
    except ZramError as error:
        log.error("%s stays in use: %s", deployed.name, error)


def _undo_new_file(path: str, undo: contextlib.ExitStack) -> None:
    """Have a backing file that bringing up will create removed if bringing up fails."""
    if not os.path.lexists(path):
        undo.callback(_unlink_plain_file, path)


def _unlink_plain_file(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)
