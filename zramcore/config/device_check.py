"""Checking one zramcore device of a deployment: its keys, their values, its policies and its image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .. import attributes as abi
from ..attributes import Attribute
from ..backing import parse_backing_spec
from ..device import Device
from ..errors import ConfigError, ZramError, did_you_mean
from ..interfaces import Catalogue, read_options
from ..parse import memparse_rest
from .model import DEVICE_KEYS, DeviceConfig, ImageConfig, PolicyConfig, Setting
from .order import ACTIONS, ORDER, plan_device
from .values import VALUES, Checker
from .where import Where

REPEATED = ("recomp_algorithm", "algorithm_params")
"""Attributes of the kernel that may be written several times, so that a list means something."""


@dataclass
class DeviceCheck:
    """The check of one device; `run` returns everything wrong with it."""

    device: DeviceConfig
    catalogue: Catalogue
    attributes: Mapping[str, Attribute]
    problems: list[ConfigError] = field(default_factory=list)
    values: Mapping[str, Checker] = field(default_factory=lambda: VALUES)

    def run(self) -> list[ConfigError]:
        usable = [setting for setting in self.device.settings.values() if self.key(setting)]
        for setting in usable:
            self.value(setting)
        self.needs_disksize()
        if not self.problems:
            self.rehearse()
        for policy in self.device.policies:
            self.policy(policy)
        if self.device.image is not None:
            self.image(self.device.image)
        return self.problems

    def wrong(self, where: Where, reason: str, *, hint: str = "", index: int | None = None) -> None:
        self.problems.append(where.error(reason, hint=hint, index=index))

    # Keys -------------------------------------------------------------------------------------------------------------

    def key(self, setting: Setting) -> bool:
        attribute = self.attributes.get(setting.key)
        if setting.key in ACTIONS:
            self.wrong(
                setting.where,
                "is an action and not a setting: it has no place in the order of a device's start",
                hint=ACTIONS[setting.key],
            )
        elif attribute is None:
            settable = [name for name, known in self.attributes.items() if "w" in known.mode and name not in ACTIONS]
            known = sorted((*settable, *DEVICE_KEYS))
            self.wrong(setting.where, "is not a key of a device", hint=did_you_mean(setting.key, known))
        elif "w" not in attribute.mode:
            self.wrong(setting.where, "is read-only: it cannot be set", hint=attribute.summary)
        else:
            return True
        return False

    def needs_disksize(self) -> None:
        if "disksize" in self.device.settings:
            return
        first_late = ORDER.index("disksize") + 1
        late: list[tuple[str, Where]] = [
            (setting.key, setting.where)
            for setting in self.device.settings.values()
            if setting.key in ORDER[first_late:]
        ]
        if self.device.image is not None:
            late.append(("image", self.device.image.where))
        if self.device.policies:
            late.append(("policy", self.device.policies[0].where))
        use = self.device.use
        if use.serve or use.attached:
            wanted = {"serve": use.serve, "mkfs": use.use.mkfs, "mount": use.use.mount, "swap": use.use.swap}
            key = next((key for key, value in wanted.items() if value), "attach")
            late.append((key, use.where[key]))
        for _, where in late:
            self.wrong(where, "comes after disksize, which this device does not set", hint='add disksize = "1G"')

    # Values -----------------------------------------------------------------------------------------------------------

    def value(self, setting: Setting) -> None:
        """Types and names, in this file's words; what is left is for the rehearsal."""
        is_list = isinstance(setting.raw, list)
        if is_list and setting.key in ORDER and setting.key not in REPEATED:
            self.wrong(setting.where, "is a list, but it is written once", hint="give one value")
            return
        checker = self.values.get(setting.key)
        if checker is None:
            return
        values = setting.raw if isinstance(setting.raw, list) else [setting.raw]
        for index, value in enumerate(values):
            for reason, hint in checker(value, self.catalogue):
                self.wrong(setting.where, reason, hint=hint, index=index if is_list else None)

    def rehearse(self) -> None:
        """Make the writes on a scratch device, up to disksize, which would allocate, and without opening anything."""
        if not self.catalogue.allocators or not self.catalogue.compressors:
            self.wrong(self.device.where, "no compressor or no allocator is installed", hint="see `zramcore plugins`")
            return
        scratch = Device(self.catalogue, self.device.name, page_size=self.device.page_size)
        settings = self.device.settings
        seen: dict[str, int] = {}
        for write in plan_device(self.device):
            setting = settings[write.attribute]
            index = seen.setdefault(setting.key, 0)
            seen[setting.key] += 1
            try:
                if setting.key == "backing_dev":
                    self.backing(setting)
                elif setting.key == "disksize":
                    scratch.zcomp.create(self.device.page_size)
                elif setting.key in abi.ATTRIBUTES:
                    # attributes of plugins are not rehearsed: what a store of theirs touches is unknown
                    abi.store(scratch, setting.key, write.value)
            except ZramError as error:
                if setting.key == "disksize":
                    # the parameters are judged when disksize is set, but they are what is wrong
                    self.wrong(settings.get("algorithm_params", setting).where, error.reason, hint=error.hint)
                else:
                    is_list = isinstance(setting.raw, list)
                    self.wrong(setting.where, error.reason, hint=error.hint, index=index if is_list else None)

    def backing(self, setting: Setting) -> None:
        drivers = self.catalogue.backing_drivers
        text = setting.texts[0]
        prefix, colon, _ = text.partition(":")
        if colon and "/" not in prefix and prefix not in drivers and not os.path.exists(text):
            self.wrong(
                setting.where,
                f"there is no backing driver {prefix!r}",
                hint=self.catalogue.hint("backing_drivers", prefix),
            )
            return
        driver, spec = parse_backing_spec(text, drivers, self.device.page_size)
        read_options(f"backing driver {driver.name}", driver.options, spec.options)
        directory = os.path.dirname(spec.path)
        if directory and not os.path.isdir(directory):
            self.wrong(setting.where, f"directory {directory} does not exist", hint="create it first")

    # Policies ---------------------------------------------------------------------------------------------------------

    def policy(self, policy: PolicyConfig) -> None:
        kind = self.catalogue.policies.get(policy.name)
        if kind is None:
            hint = self.catalogue.hint("policies", policy.name)
            self.wrong(policy.where, f"there is no policy {policy.name!r}", hint=hint)
            return
        owner = f"policy {policy.name}"
        refused = len(self.problems)
        for option, text in policy.options.items():
            # one at a time: the error then names the option's own key
            try:
                read_options(owner, kind.options, {option: text})
            except ZramError as error:
                self.wrong(policy.where.child(option), error.reason, hint=error.hint)
        if len(self.problems) > refused:
            return
        try:
            made = kind(policy.options)
        except ZramError as error:
            self.wrong(policy.where, error.reason, hint=error.hint)
            return
        except Exception as error:
            self.wrong(policy.where, f"{owner} cannot be set up: {type(error).__name__}: {error}")
            return
        if "writeback" in made.writes and not self.may_have_backing():
            self.wrong(
                policy.where,
                f"{owner} writes pages back, but the device has no backing_dev",
                hint='add backing_dev = "file:/var/tmp/zram.img,size=1G" to the device',
            )
        unknown = [name for name in made.writes if name not in self.attributes]
        if unknown:
            self.wrong(policy.where, f"{owner} writes {', '.join(unknown)}, which devices do not have")

    def may_have_backing(self) -> bool:
        """Whether the device can have a backing device, as far as the file says."""
        return "backing_dev" in self.device.settings

    # Images -----------------------------------------------------------------------------------------------------------

    def image(self, image: ImageConfig) -> None:
        if image.load is not None:
            self.image_to_load(image, image.load)
        if image.save is not None:
            directory = image.save.parent
            if image.save.exists() and not image.save.is_file():
                self.wrong(image.where.child("save"), f"{image.save} is not a plain file")
            elif not directory.is_dir():
                self.wrong(image.where.child("save"), f"directory {directory} does not exist", hint="create it first")
            elif not os.access(directory, os.W_OK | os.X_OK):
                self.wrong(image.where.child("save"), f"cannot write into directory {directory}")

    def image_to_load(self, image: ImageConfig, path: Path) -> None:
        if not path.exists():
            if not image.optional:
                self.wrong(
                    image.where.child("load"), f"{path} does not exist", hint="add optional = true to start empty"
                )
            return
        if not path.is_file():
            self.wrong(image.where.child("load"), f"{path} is not a plain file")
            return
        if not os.access(path, os.R_OK):
            self.wrong(image.where.child("load"), f"{path} cannot be read")
            return
        disksize = self.device.settings.get("disksize")
        if disksize is None or not disksize.texts:
            return
        page_size = self.device.page_size
        capacity = -(-memparse_rest(disksize.texts[0])[0] // page_size) * page_size
        size = path.stat().st_size
        if size > capacity:
            self.wrong(
                image.where.child("load"), f"{path} has {size} bytes, the device {capacity}", hint="raise disksize"
            )
