"""Deployments in TOML: devices whose keys are attribute names, and the ordered attribute writes they come to.

``load_config`` reads and merges, ``check`` finds what is wrong before anything is touched, ``plan`` orders the writes.
The keys are described in docs/config.md.
"""

from __future__ import annotations

from .check import check, check_file
from .daemon import DaemonConfig, absolute_listener
from .model import Config, DeviceConfig, ImageConfig, PolicyConfig, Setting, load_config, read_device
from .order import ACTIONS, ORDER, Write, plan, plan_device
from .resolve import resolve
from .target import TargetConfig
from .use import UseConfig
from .where import Where

__all__ = [
    "ACTIONS",
    "ORDER",
    "Config",
    "DaemonConfig",
    "DeviceConfig",
    "ImageConfig",
    "PolicyConfig",
    "Setting",
    "TargetConfig",
    "UseConfig",
    "Where",
    "Write",
    "absolute_listener",
    "check",
    "check_file",
    "load_config",
    "plan",
    "plan_device",
    "read_device",
    "resolve",
]
