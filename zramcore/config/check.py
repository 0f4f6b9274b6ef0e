"""Finding what is wrong with a deployment before anything is touched.

Names are looked up, values are typed, policies and compressors are really constructed, and the settings are rehearsed
on a scratch device that is never initialised: what the attributes refuse there they would have refused later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .. import attributes as abi
from ..attributes import Attribute
from ..backing import parse_backing_spec
from ..device import Device
from ..errors import ConfigError, ZramError, did_you_mean
from ..interfaces import Catalogue, read_options
from ..parse import memparse_rest
from .expressions import evaluate, is_expression
from .model import DEVICE_KEYS, Config, DeviceConfig, ImageConfig, PolicyConfig, Setting, read_config
from .order import ACTIONS, ORDER, plan_device
from .where import Where

REPEATED = ("recomp_algorithm", "algorithm_params")
"""Attributes of the kernel that may be written several times, so that a list means something."""


def check_file(
    path: str | Path, catalogue: Catalogue, attributes: Mapping[str, Attribute] = abi.ATTRIBUTES
) -> tuple[Config | None, list[ConfigError]]:
    """Read a deployment and check it: the config (None when it cannot be read at all) and everything wrong with it."""
    try:
        config, problems = read_config(path)
    except ConfigError as error:
        return None, [error]
    return config, problems + check(config, catalogue, attributes)


def check(
    config: Config, catalogue: Catalogue, attributes: Mapping[str, Attribute] = abi.ATTRIBUTES
) -> list[ConfigError]:
    """Everything wrong with a deployment, in file order; nothing is created or changed.

    `attributes` are those a device has: the kernel's and ours, plus those of plugins.
    """
    problems: list[ConfigError] = []
    for device in config.devices:
        problems += _DeviceCheck(device, catalogue, attributes).run()
    problems += _shared_files(config, catalogue)
    return problems


@dataclass
class _DeviceCheck:
    device: DeviceConfig
    catalogue: Catalogue
    attributes: Mapping[str, Attribute]
    problems: list[ConfigError] = field(default_factory=list)

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
        checker = _VALUES.get(setting.key)
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
        if "writeback" in made.writes and "backing_dev" not in self.device.settings:
            self.wrong(
                policy.where,
                f"{owner} writes pages back, but the device has no backing_dev",
                hint='add backing_dev = "file:/var/tmp/zram.img,size=1G" to the device',
            )
        unknown = [name for name in made.writes if name not in self.attributes]
        if unknown:
            self.wrong(policy.where, f"{owner} writes {', '.join(unknown)}, which devices do not have")

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


# What the values of the kernel's attributes may be --------------------------------------------------------------------

_Problem = tuple[str, str]
_Checker = Callable[[object, Catalogue], Iterator[_Problem]]


def _size(value: object, catalogue: Catalogue) -> Iterator[_Problem]:
    hint = 'a number of bytes, or text such as "512M"'
    if isinstance(value, bool) or not isinstance(value, int | str):
        yield f"is {_show(value)}, not a size", hint
    elif isinstance(value, int) and not 0 <= value < 1 << 64:
        yield f"is {value}, out of range", hint
    elif isinstance(value, str) and is_expression(value):
        try:
            evaluate(value)
        except ZramError as error:
            yield error.reason, error.hint
    elif isinstance(value, str):
        size, rest = memparse_rest(value)
        if rest == value:
            yield f"{value!r} is not a size", hint
        elif rest.lower() not in ("", "b", "ib"):
            # the kernel ignores what follows: 1.5G would be one byte, rounded up to a page
            yield f"{value!r} would be read as {size} bytes", hint


def _disksize(value: object, catalogue: Catalogue) -> Iterator[_Problem]:
    problems = list(_size(value, catalogue))
    yield from problems
    text = str(value)
    if not problems and (evaluate(text) if is_expression(text) else memparse_rest(text)[0]) == 0:
        yield "must be more than 0", 'a number of bytes, or text such as "2G"'


def _flag(value: object, catalogue: Catalogue) -> Iterator[_Problem]:
    if not isinstance(value, bool) and value not in (0, 1):
        yield f"is {_show(value)}, not true or false", "write true or false, without quotes"


def _count(value: object, catalogue: Catalogue) -> Iterator[_Problem]:
    if isinstance(value, bool) or not isinstance(value, int):
        yield f"is {_show(value)}, not a whole number", "write a number without quotes"
    elif not 0 <= value < 1 << 64:
        yield f"is {value}, out of range", "0 or more"


def _text(value: object, catalogue: Catalogue) -> Iterator[_Problem]:
    if not isinstance(value, str):
        yield f"is {_show(value)}, not text", "write it in quotes"
    elif not value.strip():
        yield "is empty", "leave the key out"


def _compressor(value: object, catalogue: Catalogue) -> Iterator[_Problem]:
    yield from _name(value, "compression algorithm", "compressors", catalogue)


def _allocator(value: object, catalogue: Catalogue) -> Iterator[_Problem]:
    yield from _name(value, "allocator", "allocators", catalogue)


def _name(value: object, word: str, family: str, catalogue: Catalogue) -> Iterator[_Problem]:
    problems = list(_text(value, catalogue))
    yield from problems
    if not problems and value not in getattr(catalogue, family):
        yield f"there is no {word} {value!r}", catalogue.hint(family, str(value))


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


_VALUES: Mapping[str, _Checker] = {
    "comp_algorithm": _compressor,
    "recomp_algorithm": _text,
    "algorithm_params": _text,
    "allocator": _allocator,
    "backing_dev": _text,
    "compressed_writeback": _flag,
    "disksize": _disksize,
    "mem_limit": _size,
    "writeback_batch_size": _count,
    "writeback_limit": _count,
    "writeback_limit_enable": _flag,
}


# Between devices ------------------------------------------------------------------------------------------------------


def _shared_files(config: Config, catalogue: Catalogue) -> list[ConfigError]:
    """Two devices on one backing store, or saving into one file."""
    problems: list[ConfigError] = []
    owners: dict[tuple[str, str], str] = {}
    for device in config.devices:
        for use, path, where in _files(device, catalogue):
            owner = owners.setdefault((use, os.path.realpath(path)), device.name)
            if owner != device.name:
                problems.append(where.error(f"{path} is the {use} of device {owner} already"))
    return problems


def _files(device: DeviceConfig, catalogue: Catalogue) -> Iterator[tuple[str, str, Where]]:
    backing = device.settings.get("backing_dev")
    if backing is not None and len(backing.texts) == 1:
        try:
            _, spec = parse_backing_spec(backing.texts[0], catalogue.backing_drivers, device.page_size)
        except ZramError:
            return  # said by the check of the device
        yield "backing_dev", spec.path, backing.where
    if device.image is not None and device.image.save is not None:
        yield "image to save", str(device.image.save), device.image.where.child("save")
    use, where = device.use.use, device.use.where
    for address in device.use.serve:
        yield "address", address, where["serve"]
    if use.mount is not None:
        yield "mount point", use.mount.directory, where["mount"]
    if use.path is not None:
        yield "node", use.path, where["attach"]
