"""`zramcore policy preview`: what the policies of a config would do to a running device, which is only read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..config import DeviceConfig
from ..daemon.client import Client
from ..errors import InvalidValue, NotSupported
from ..interfaces import Catalogue, PolicyTarget
from ..kernel import KernelDevice
from ..policy_report import STOPPED, mebibytes
from ..simulation.preview import Copy, Foreseen, FrozenMachine, Step, foresee, foresee_blind
from ..simulation.rehearsal import Rehearsal
from ..simulation.sizes import Samples, default_samples
from .client import json_option, show_json, with_client
from .common import open_control
from .config import checked_config
from .quantities import duration, read_time
from .targets import find_target


@click.command("preview")
@with_client
@click.argument("config", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option("--target", "target_name", metavar="NAME", help="The running device; default: of the same name.")
@click.option("--device", "device_name", metavar="NAME", help="Only the policies of this device of CONFIG.")
@click.option(
    "--within", callback=read_time, default="26h", show_default=True, help="How far to look ahead for a first write."
)
@json_option
@click.pass_context
def preview(
    context: click.Context,
    client: Client,
    config: Path,
    target_name: str | None,
    device_name: str | None,
    within: float,
    as_json: bool,
) -> None:
    """Show what each policy of CONFIG would do to a running device, and what that would free. Nothing is touched.

    The device is the daemon's of that name or label, or zramN of the kernel. Each policy alone is run on a copy of the
    device's state, from now until it first writes pages back or recompresses any, as if nobody used the device.
    """
    control = open_control(context)
    checked = checked_config(context, config, control)
    devices = [device for device in checked.devices if device_name in (None, device.name)]
    if not devices:
        names = ", ".join(device.name for device in checked.devices) or "none"
        raise InvalidValue(f"{config} has no device {device_name!r}", hint=f"--device NAME, one of {names}")
    if target_name is not None and len(devices) > 1:
        raise InvalidValue(
            f"{config} has {len(devices)} devices and --target is one", hint="say whose policies: --device NAME"
        )
    found = []
    for device in devices:
        target = find_target(client, target_name or _name_of(device), kernel=target_name is not None)
        found.append(_Previewed(device, target, control.catalogue, within))
    if as_json:
        show_json([each.as_json() for each in found])
        return
    for each in found:
        for line in each.lines():
            click.echo(line)


def _name_of(device: DeviceConfig) -> str:
    """The running device that a device of a config is."""
    if device.target.device is not None:
        return f"kernel:{device.target.device}"
    return f"kernel:{device.name}" if device.target.is_kernel and device.name.startswith("zram") else device.name


class _Previewed:
    """The policies of one device, foreseen on one target."""

    def __init__(self, device: DeviceConfig, target: PolicyTarget, catalogue: Catalogue, within: float) -> None:
        self.device = device
        self.target = target
        self.copy: Copy | None = None
        self.blind = ""
        rehearsal = Rehearsal(device, catalogue)
        pool = rehearsal.pool
        try:
            self.copy = Copy(target, _samples, pool(), rehearsal.blocks())
        except NotSupported as error:
            self.blind = error.reason + (f" ({error.hint})" if error.hint else "")
        machine = FrozenMachine()
        self.foreseen: list[Foreseen] = []
        for policy in device.policies:
            made = catalogue.policies[policy.name](policy.options)
            if self.copy is None:
                self.foreseen.append(foresee_blind(target, made, machine, within))
            else:
                self.foreseen.append(foresee(self.copy, pool(), made, machine, within))

    @property
    def where(self) -> str:
        """Whose device it is."""
        kernel = isinstance(self.target, KernelDevice)
        return f"{self.target.name} of the {'kernel' if kernel else 'daemon'}"

    def lines(self) -> list[str]:
        """For people."""
        copy = self.copy
        if copy is None:
            head = f"{self.where}: {self.blind}: decisions are shown, not what they would free"
        else:
            size = copy.setup.page_size
            head = (
                f"{self.where}: {mebibytes(len(copy.state.pages) * size)} stored, {copy.in_memory} pages in memory, "
                f"{mebibytes(copy.used)} used"
            )
        lines = [head]
        for foreseen in self.foreseen:
            lines.append(f"{foreseen.policy}:")
            for step in foreseen.steps:
                lines += _told(step)
        if not self.foreseen:
            lines.append("it has no policies")
        return lines

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "device": self.device.name,
            "target": self.target.name,
            "kernel": isinstance(self.target, KernelDevice),
            "blind": self.blind,
            "policies": [
                {
                    "policy": foreseen.policy,
                    "looks": foreseen.looks,
                    "steps": [
                        {
                            **asdict(step),
                            "writes": [
                                {"attribute": attribute, "value": value, "ends": ends}
                                for attribute, value, ends in step.writes
                            ],
                        }
                        for step in foreseen.steps
                    ],
                }
                for foreseen in self.foreseen
            ],
        }


def _told(step: Step) -> list[str]:
    when = "now" if step.after < 1 else f"in {duration(step.after)}"
    parts = [step.reason or "no reason given"]
    acts = [attribute for attribute, _, _ in step.writes]
    if step.error:
        parts.append(f"would fail: {step.error}")
    elif not step.writes:
        parts.append("nothing to write")
    elif "writeback" in acts or "recompress" in acts:
        parts.append(_effect(step, "writeback" in acts))
    lines = [f"  {when}: {', '.join(parts)}"]
    for attribute, value, ends in step.writes:
        end = f"  ({STOPPED.get(ends, ends)})" if ends else ""
        lines.append(f"    {attribute} = {value}{end}")
    return lines


def _effect(step: Step, writes_back: bool) -> str:
    if step.freed is None:
        return "what it would free is not known"
    if not step.freed and not step.written:
        return "would write and free nothing"
    freed = f"free about {mebibytes(step.freed)}"
    if not writes_back:
        return f"would {freed}"
    written = step.written or 0
    return f"would write {mebibytes(written)} ({written // 4096} blocks) and {freed}"


def _samples(names: Sequence[str]) -> Samples:
    """Sizes for these algorithms; of one that nobody measured, those of the first that somebody did."""
    known = default_samples()
    best = next((name for name in names if name in known.algorithms), known.algorithms[0])
    chosen = known.of([name if name in known.algorithms else best for name in names])
    return Samples(tuple(names), chosen.sizes)
