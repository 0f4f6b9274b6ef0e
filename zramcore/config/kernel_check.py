"""Checking one device of a deployment that is the kernel's zram: what that cannot have, and what this kernel lacks.

Sysfs is looked at and not written. A device that somebody else set up has policies and nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from ..attach.node import is_node_path
from ..attributes import ATTRIBUTES, Attribute
from ..errors import ConfigError, ZramError, did_you_mean
from ..interfaces import Catalogue
from ..kernel import KernelControl
from ..loop_device import DRIVERS, backing_path
from ..parse import next_args
from .device_check import DeviceCheck
from .model import DeviceConfig, Setting
from .use import USE_KEYS
from .values import VALUES, Problem, text_problems
from .where import Where

NEEDS = {
    "recomp_algorithm": "recompress",
    "algorithm_params": "algorithm_params",
    "backing_dev": "backing_dev",
    "compressed_writeback": "compressed_writeback",
    "writeback_batch_size": "writeback_batch_size",
    "writeback_limit": "writeback_limit",
    "writeback_limit_enable": "writeback_limit",
}
"""Key of a deployment -> the feature of the kernel's zram that it needs."""

_OURS = 'target = "zramcore" has it'
_LABEL = re.compile(r"zram[0-9]+", re.ASCII)


def only_zramcore(device: DeviceConfig) -> Iterator[tuple[Where, str, str]]:
    """What a device says that the kernel's zram cannot be: place, reason and hint."""
    use = device.use
    if device.page_size != 4096:
        yield device.where.child("page_size"), "is not the kernel's to choose: it has the machine's", _OURS
    if device.image is not None:
        yield device.image.where, "is for a zramcore device: the kernel's zram loads and saves none", _OURS
    if use.serve:
        hint = "nbd-server or qemu-nbd serve a block device; " + _OURS
        yield use.where["serve"], "is for a zramcore device: the kernel's zram has a node", hint
    if use.use.path is not None and is_node_path(use.use.path):
        yield use.where["attach"], "is the node of another driver: this one's is /dev/zramN", "name a link to make"
    allocator = device.settings.get("allocator")
    if allocator is not None and allocator.raw != "zsmalloc":
        yield allocator.where, "is for a zramcore device: the kernel's zram has zsmalloc", _OURS
    for setting in device.settings.values():
        if setting.key == "backing_dev":
            for text in setting.texts:
                if not _is_for_the_kernel(text):
                    driver = text.partition(":")[0]
                    yield setting.where, f"has driver {driver!r}: the kernel takes block devices and files", _OURS


def _is_for_the_kernel(backing: str) -> bool:
    """Whether a backing_dev names a path, perhaps with a driver that means no more than that."""
    driver, colon, _ = backing.partition(":")
    return not colon or "/" in driver or driver in DRIVERS


class KernelCheck(DeviceCheck):
    """The check of one device of the kernel's zram. Nothing is rehearsed: there is no device to try things on."""

    def __init__(
        self, device: DeviceConfig, catalogue: Catalogue, attributes: Mapping[str, Attribute], kernel: KernelControl
    ) -> None:
        super().__init__(device, catalogue, attributes)
        self.kernel = kernel
        self.features = kernel.features()
        self.algorithms = kernel.algorithms()
        self.values = {**VALUES, "comp_algorithm": self._primary, "recomp_algorithm": self._secondary}

    def run(self) -> list[ConfigError]:
        where = self.device.where.child("target")
        if not self.kernel.present:
            hint = 'modprobe zram, where the kernel has it as a module; or target = "zramcore"'
            self.wrong(where, f"this kernel has no zram: there is no {self.kernel.directory}", hint=hint)
        for place, reason, hint in only_zramcore(self.device):
            self.wrong(place, reason, hint=hint)
        if self.device.target.device is not None:
            self.as_it_is(self.device.target.device)
        else:
            self.set_up()
        for policy in self.device.policies:
            self.policy(policy)
        return self.problems

    def set_up(self) -> None:
        """What it is to be set up with."""
        for setting in [setting for setting in self.device.settings.values() if self.key(setting)]:
            if setting.key not in ATTRIBUTES:
                self.wrong(setting.where, "is an attribute of a plugin: the kernel's zram has only its own", hint=_OURS)
                continue
            needed = self.features.get(NEEDS.get(setting.key, ""))
            if needed is not None and not needed.present:
                self.wrong(setting.where, f"this kernel has no {needed.name}", hint=f"it needs {needed.needs}")
            self.value(setting)
            if setting.key == "backing_dev" and isinstance(setting.raw, str) and setting.raw.strip():
                self.backing(setting)
        if "disksize" not in self.device.settings:
            self.wrong(self.device.where, "has no disksize: it would stay anybody's", hint='add disksize = "1G"')

    def as_it_is(self, name: str) -> None:
        """One that somebody else set up."""
        where = self.device.where.child("device")
        said = [setting.where for setting in self.device.settings.values()]
        use = self.device.use
        given = {"attach": use.attached, "mkfs": use.use.mkfs, "mount": use.use.mount, "swap": use.use.swap}
        key = next((key for key in USE_KEYS[::-1] if given.get(key)), None)
        said += [use.where[key]] if key is not None else []
        for place in said:
            self.wrong(place, f"is for who sets {name} up: here only policies run on it", hint="leave device out")
        if _LABEL.fullmatch(self.device.name) and self.device.name != name:
            self.wrong(self.device.where, f"is the name of another device than {name}", hint="call it otherwise")
        if not self.kernel.present:
            return
        try:
            ready = self.kernel.target(name).initialized
        except ZramError as error:
            self.wrong(where, error.reason, hint=did_you_mean(name, self.kernel.names()))
            return
        if not ready:
            hint = f"set it up first; without device it is set up here, with [device.{name}] under that name"
            self.wrong(where, f"{name} is not initialised", hint=hint)

    def backing(self, setting: Setting) -> None:
        text = setting.texts[0]
        if not _is_for_the_kernel(text):
            return  # only_zramcore says it
        try:
            path = backing_path(text, create=False)
        except ZramError as error:
            self.wrong(setting.where, error.reason, hint=error.hint)
            return
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            self.wrong(setting.where, f"directory {directory} does not exist", hint="create it first")
        elif not os.path.exists(path) and "size=" not in text:
            self.wrong(setting.where, f"{path} does not exist", hint=f'"file:{path},size=1G" creates it')

    def may_have_backing(self) -> bool:
        # whether somebody else gave it one can change while we run: the policy says so then
        return self.device.target.device is not None or super().may_have_backing()

    def _primary(self, value: object, catalogue: Catalogue) -> Iterator[Problem]:
        problems = list(text_problems(value))
        yield from problems or self._known(str(value))

    def _secondary(self, value: object, catalogue: Catalogue) -> Iterator[Problem]:
        problems = list(text_problems(value))
        yield from problems
        name = None if problems else dict(next_args(str(value))).get("algo")
        if not problems and not name:
            yield "names no algorithm", "algo=zstd priority=1"
        elif name:
            yield from self._known(name)

    def _known(self, name: str) -> Iterator[Problem]:
        if self.algorithms and name not in self.algorithms:
            yield f"this kernel has no compression algorithm {name!r}", did_you_mean(name, self.algorithms)
