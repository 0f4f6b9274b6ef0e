"""Finding what is wrong with a deployment before anything is touched.

Names are looked up, values are typed, policies and compressors are really constructed, and the settings are rehearsed
on a scratch device that is never initialised: what the attributes refuse there they would have refused later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import attributes as abi
from ..attributes import Attribute
from ..backing import parse_backing_spec
from ..errors import ConfigError, ZramError
from ..interfaces import Catalogue
from ..kernel import KernelControl
from ..loop_device import backing_path
from .device_check import DeviceCheck
from .kernel_check import KernelCheck, only_zramcore
from .model import Config, DeviceConfig, read_config
from .resolve import resolve
from .where import Where


def check_file(
    path: str | Path,
    catalogue: Catalogue,
    attributes: Mapping[str, Attribute] = abi.ATTRIBUTES,
    kernel: KernelControl | None = None,
) -> tuple[Config | None, list[ConfigError]]:
    """Read a deployment and check it: the config (None when it cannot be read at all) and everything wrong with it.

    `kernel`: the kernel's own zram; default: this machine's. By it, ``auto`` is decided in the config returned.
    """
    kernel = kernel or KernelControl()
    try:
        config, problems = read_config(path)
    except ConfigError as error:
        return None, [error]
    config = resolve(config, kernel)
    return config, problems + check(config, catalogue, attributes, kernel)


def check(
    config: Config,
    catalogue: Catalogue,
    attributes: Mapping[str, Attribute] = abi.ATTRIBUTES,
    kernel: KernelControl | None = None,
) -> list[ConfigError]:
    """Everything wrong with a deployment, in file order; nothing is created or changed.

    `attributes` are those a device has: the kernel's and ours, plus those of plugins. `kernel` as for `check_file`.
    """
    problems: list[ConfigError] = []
    kernel = kernel or KernelControl()
    config = resolve(config, kernel)
    for device in config.devices:
        if device.target.is_kernel:
            problems += KernelCheck(device, catalogue, attributes, kernel).run()
        else:
            problems += DeviceCheck(device, catalogue, attributes).run()
            problems += _for_either(device)
    problems += _shared_files(config, catalogue)
    return problems


def _for_either(device: DeviceConfig) -> Iterator[ConfigError]:
    """What ``auto`` cannot have, also where it comes to a zramcore device: elsewhere the same file would fail."""
    for where, reason, hint in only_zramcore(device) if device.target.why else ():
        yield where.error(f"{reason}, and auto may come to it", hint=hint)


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
            if device.target.is_kernel:
                path = backing_path(backing.texts[0], create=False)
            else:
                path = parse_backing_spec(backing.texts[0], catalogue.backing_drivers, device.page_size)[1].path
        except ZramError:
            return  # said by the check of the device
        yield "backing_dev", path, backing.where
    if device.target.device is not None:
        yield "device", f"/dev/{device.target.device}", device.where.child("device")
    if device.image is not None and device.image.save is not None:
        yield "image to save", str(device.image.save), device.image.where.child("save")
    use, where = device.use.use, device.use.where
    for address in device.use.serve:
        yield "address", address, where["serve"]
    if use.mount is not None:
        yield "mount point", use.mount.directory, where["mount"]
    if use.path is not None:
        yield "node", use.path, where["attach"]
