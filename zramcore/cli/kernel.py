"""`zramcore kernel`: the kernel's own zram, what its devices can do and what they lack."""

from __future__ import annotations

from typing import Any

import click

from ..errors import ZramError
from ..kernel import KernelControl, KernelDevice
from .client import human, json_option, show_json
from .common import open_kernel


@click.command("kernel")
@json_option
def command(as_json: bool) -> None:
    """List the devices of the kernel's own zram with what they can do, and what a kernel needs for the rest.

    Nothing is touched. The last line says what `target = "auto"` means here.
    """
    kernel = open_kernel()
    devices = [_described(kernel.target(name)) for name in kernel.names()]
    lacking = kernel.why_no_writeback()
    if as_json:
        show_json({"devices": devices, "auto": "zramcore" if lacking else "kernel", "why": lacking})
        return
    for device in devices:
        click.echo(f"{device['name']}: {_state(device)}, {device['comp_algorithm']}")
        for feature in device["features"]:
            click.echo(f"  {feature['line']}")
    click.echo(_auto(kernel, lacking))


def _described(device: KernelDevice) -> dict[str, Any]:
    features = [
        {"name": feature.name, "present": feature.present, "needs": feature.needs, "line": feature.line()}
        for feature in device.features.values()
    ]
    return {
        "name": device.name,
        "disksize": device.disksize,
        "comp_algorithm": _shown(device, "comp_algorithm"),
        "backing_dev": _shown(device, "backing_dev"),
        "features": features,
    }


def _shown(device: KernelDevice, attribute: str) -> str | None:
    try:
        return device.show(attribute).strip()
    except ZramError:
        return None


def _state(device: dict[str, Any]) -> str:
    if not device["disksize"]:
        return "not initialised"
    backing = device["backing_dev"]
    return human(device["disksize"]) + (f", backing {backing}" if backing not in (None, "none") else "")


def _auto(kernel: KernelControl, lacking: str) -> str:
    if lacking:
        return f'target = "auto" is a zramcore device here: {lacking}'
    return f'target = "auto" is the kernel\'s zram here, below {kernel.sysfs}'
