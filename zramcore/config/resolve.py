"""Deciding ``target = "auto"``: the kernel's zram where it has writeback and this user may set it up, else ours."""

from __future__ import annotations

from dataclasses import replace

from ..kernel import KernelControl
from .model import Config, DeviceConfig
from .target import Kind


def resolve(config: Config, kernel: KernelControl) -> Config:
    """The config with every ``auto`` decided. Nothing is touched."""
    if all(device.target.kind != "auto" for device in config.devices):
        return config
    lacking = kernel.why_no_writeback()
    kind: Kind = "zramcore" if lacking else "kernel"
    why = f"auto: {lacking}" if lacking else "auto: this kernel has writeback"
    return replace(config, devices=tuple(_decided(device, kind, why) for device in config.devices))


def _decided(device: DeviceConfig, kind: Kind, why: str) -> DeviceConfig:
    if device.target.kind != "auto":
        return device
    return replace(device, target=replace(device.target, kind=kind, why=why))
