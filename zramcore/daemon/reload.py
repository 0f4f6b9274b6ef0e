"""Reload: what a changed config file asks of the running devices, what of it can be done live, and doing that.

Each change stands alone: what can be done is done, what cannot be is refused with its reason, and the next reload
compares with what really runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..config import ORDER, Config, DeviceConfig, Setting
from ..config.order import BEFORE_DISKSIZE
from ..config.target import UNIT
from ..deployed import KernelDeployed
from ..errors import ZramError
from ..policy_report import mebibytes
from .creation import names
from .fleet import Fleet, Member
from .status import all_stats

DEFAULTS = {
    "mem_limit": "0",
    "mem_limit_wait": "0",
    "writeback_limit": "0",
    "writeback_limit_enable": "0",
    "writeback_batch_size": "32",
}
"""What a setting goes back to when its line is taken out of the file."""

EARLY = (*BEFORE_DISKSIZE, "disksize")

Kind = Literal["add", "remove", "set", "policies", "budget", "image", "use", "target", "page_size", "daemon"]


@dataclass
class Change:
    """One difference between what runs and what the file says; `refused` is empty, or why it is not made."""

    device: str
    kind: Kind
    key: str = ""
    before: str = ""
    after: str = ""
    refused: str = ""

    def as_dict(self) -> dict[str, Any]:
        """It as JSON."""
        return asdict(self)


def plan(fleet: Fleet, config: Config) -> list[Change]:
    """What `config` would change, in file order, removals last; nothing is touched. The config has passed `check`."""
    members = {member.label: member for member in fleet}
    changes: list[Change] = []
    for device in config.devices:
        member = members.get(device.name)
        if member is None:
            changes.append(Change(device.name, "add", after=_text(device.settings.get("disksize"))))
        elif member.config is None or member.origin != "config":
            reason = f"{member.name} was made by {member.origin}: it is not the file's to change"
            changes.append(Change(device.name, "add", refused=reason))
        else:
            changes += _differences(member, member.config, device)
    shared = None if fleet.writes_per_day is None else fleet.writes_per_day.limit
    if shared != config.writes_per_day and (members or config.devices):
        changes.append(Change("", "budget", "writes_per_day", _size(shared), _size(config.writes_per_day)))
    wanted = {device.name for device in config.devices}
    changes += [
        Change(member.label, "remove", refused=_why_it_stays(member))
        for member in members.values()
        if member.origin == "config" and member.label not in wanted
    ]
    return changes


def apply(fleet: Fleet, config: Config, cancelled: Callable[[], bool] = lambda: False) -> list[Change]:
    """Make the changes of `plan` that can be made; those that fail are refused with the error. Removals come first:
    they free memory, backing files and ids."""
    changes = plan(fleet, config)
    by_name = {device.name: device for device in config.devices}
    for change in sorted(changes, key=lambda change: change.kind != "remove"):
        if change.refused:
            continue
        try:
            _make(fleet, change, by_name.get(change.device), config, cancelled)
        except ZramError as error:
            change.refused = str(error)
    return changes


def _make(
    fleet: Fleet, change: Change, device: DeviceConfig | None, config: Config, cancelled: Callable[[], bool]
) -> None:
    if change.kind == "budget" and not change.device:
        fleet.share_writes_per_day(config.writes_per_day)
    elif device is None:
        fleet.take_down(fleet.find(change.device))
    elif change.kind == "add":
        fleet.bring_up(replace(config, devices=(device,)), cancelled=cancelled)
    else:
        member = fleet.find(change.device)
        running = member.config
        if running is None:
            raise ZramError(f"{change.device} is no longer the file's")
        if change.kind == "budget":
            fleet.set_writes_per_day(member, replace(running, target=device.target))
        elif change.kind == "policies":
            fleet.set_policies(member, device.policies)
        elif change.kind == "image":
            fleet.configured(member, replace(running, image=device.image))
        else:
            _set(fleet, member, running, change.key, device.settings.get(change.key))


def _set(fleet: Fleet, member: Member, running: DeviceConfig, key: str, setting: Setting | None) -> None:
    for text in (DEFAULTS[key],) if setting is None else setting.texts:
        member.target.store(key, text)
    settings = dict(running.settings)
    if setting is None:
        del settings[key]
    else:
        settings[key] = setting
    fleet.configured(member, replace(running, settings=settings))


def _differences(member: Member, running: DeviceConfig, wanted: DeviceConfig) -> Iterator[Change]:
    label = member.label
    if _what(running) != _what(wanted):
        yield Change(label, "target", "target", _what(running), _what(wanted), _ANEW)
    if running.page_size != wanted.page_size:
        yield Change(label, "page_size", "page_size", str(running.page_size), str(wanted.page_size), _ANEW)
    known = [key for key in ORDER if key in running.settings or key in wanted.settings]
    others = [key for key in {**running.settings, **wanted.settings} if key not in ORDER]
    for key in (*known, *others):
        before, after = running.settings.get(key), wanted.settings.get(key)
        if (before and before.texts) != (after and after.texts):
            yield Change(label, "set", key, _text(before), _text(after), _why_not_live(member, key, after))
    if _policies(running) != _policies(wanted):
        yield Change(label, "policies", "policy", names(running.policies), names(wanted.policies))
    before_budget, after_budget = running.target.writes_per_day, wanted.target.writes_per_day
    if before_budget != after_budget:
        yield Change(label, "budget", "writes_per_day", _size(before_budget), _size(after_budget))
    if _image(running) != _image(wanted):
        yield Change(label, "image", "image", _image(running), _image(wanted))
    if running.use.text() != wanted.use.text():
        yield Change(label, "use", "attach", running.use.text(), wanted.use.text(), _ANEW)


_ANEW = "a device has it from its beginning: take the device out of the file, reload, and put it in again"


def _why_not_live(member: Member, key: str, after: Setting | None) -> str:
    if key in EARLY and member.target.initialized:
        return f"{key} cannot change while the device is initialised; {_ANEW}"
    if after is None and key not in DEFAULTS:
        return f"{key} has no default to go back to; {_ANEW}"
    return ""


def _why_it_stays(member: Member) -> str:
    device = member.device
    if device is None:
        return _why_the_kernels_stays(member)
    if member.users:
        return f"it is open {member.users} times: disconnect its clients or detach it first"
    image = member.config.image if member.config is not None else None
    stored = device.stats.pages_stored
    if stored and (image is None or image.save is None):
        return (
            f"it holds {stored * device.page_size} bytes that no image would save; "
            f"`zramcore remove {member.label}` discards them"
        )
    return ""


def _why_the_kernels_stays(member: Member) -> str:
    deployed = member.deployed
    if not isinstance(deployed, KernelDeployed) or not deployed.ours:
        return ""  # it goes on without us
    stored = all_stats(member)["mm_stat"]["orig_data_size"]
    if stored and (deployed.use is None or not deployed.use.swap):  # swapoff takes everything back
        return f"it holds {stored} bytes that would be lost; `zramcore remove {member.label}` discards them"
    return ""


def _policies(config: DeviceConfig) -> list[tuple[str, dict[str, str]]]:
    return [(policy.name, dict(policy.options)) for policy in config.policies]


def _image(config: DeviceConfig) -> str:
    image = config.image
    if image is None:
        return ""
    parts = [f"{key}={path}" for key, path in (("load", image.load), ("save", image.save)) if path is not None]
    return " ".join(parts + ["optional"] * image.optional)


def _what(config: DeviceConfig) -> str:
    """Whose device it is; not why ``auto`` came to that."""
    return replace(config.target, why="").text


def _size(units: int | None) -> str:
    return "" if units is None else mebibytes(units * UNIT)


def _text(setting: Setting | None) -> str:
    return "" if setting is None else "; ".join(setting.texts)
