"""The order of attribute writes: the kernel's (ZRAM: algorithms, their parameters, backing, disksize, the rest)."""

from __future__ import annotations

from typing import NamedTuple

from .model import Config, DeviceConfig

BEFORE_DISKSIZE = (
    "comp_algorithm",
    "recomp_algorithm",
    "algorithm_params",
    "allocator",
    "backing_dev",
    "compressed_writeback",
)
"""Refused with EBUSY once disksize is set. Parameters follow the algorithms: choosing one forgets its parameters."""

ORDER = (
    *BEFORE_DISKSIZE,
    "disksize",
    "mem_limit",
    "mem_limit_wait",
    "workers",
    "writeback_batch_size",
    "writeback_limit",
    "writeback_limit_enable",  # last: the limit it enables is the one just set
)
"""Every attribute that has its place; others (of plugins) follow in the order of the file."""

_POLICY = "let a policy do it: [[device.NAME.policy]]"
ACTIONS = {
    "idle": _POLICY,
    "writeback": _POLICY,
    "writeback_preview": "ask the running device",
    "recompress": _POLICY,
    "compact": "do it on the running device",
    "mem_used_max": "do it on the running device",
    "reset": "a device is reset when the deployment ends",
}
"""Attributes that do something once and so have no place in the order -> what to do instead."""


class Write(NamedTuple):
    """One attribute write of a deployment; `device` is the label in the file."""

    device: str
    attribute: str
    value: str

    def __str__(self) -> str:
        return f"{self.device}/{self.attribute} = {self.value}"


def plan_device(device: DeviceConfig) -> list[Write]:
    """The attribute writes that bring one device up, in the order they must be made."""
    known = [key for key in ORDER if key in device.settings]
    others = [key for key in device.settings if key not in ORDER]
    return [Write(device.name, key, text) for key in (*known, *others) for text in device.settings[key].texts]


def plan(config: Config) -> list[Write]:
    """The attribute writes of a deployment: device after device in file order, each in the kernel's order."""
    return [write for device in config.devices for write in plan_device(device)]
