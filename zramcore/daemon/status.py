"""What there is to tell about a device: its stats in columns with names, and the whole of it as one JSON object."""

from __future__ import annotations

import os
from typing import Any

from ..attach.tables import is_swap, mounts_of
from ..attributes import ATTRIBUTES
from ..deployed import KernelDeployed
from ..errors import NoBackingDevice, NoSuchAttribute, ZramError
from ..kernel import KernelDevice
from .fleet import Member

STAT_COLUMNS: dict[str, tuple[str, ...]] = {
    "mm_stat": (
        "orig_data_size",
        "compr_data_size",
        "mem_used_total",
        "mem_limit",
        "mem_used_max",
        "same_pages",
        "pages_compacted",
        "huge_pages",
        "huge_pages_since",
    ),
    "bd_stat": ("bd_count", "bd_reads", "bd_writes"),
    "io_stat": ("failed_reads", "failed_writes", "invalid_io", "notify_free"),
    "wait_stat": ("waits", "waited_ms", "waits_in_vain"),
    "stat": ("read_requests", "", "read_sectors", "", "write_requests", "", "written_sectors"),
}
"""The columns by the names of Documentation/admin-guide/blockdev/zram.rst, but for wait_stat, which is ours; those
without a name are always 0 here."""


ABSENT = (NoSuchAttribute, NoBackingDevice)
"""What a device of the kernel says of an attribute that it has not, or when somebody removed it."""


def stats(member: Member) -> dict[str, dict[str, int]]:
    """The stats files of a device as numbers, those that it has. Ours never wait for a pass; those of a kernel since
    7.0 do."""
    found = {}
    for attribute, names in STAT_COLUMNS.items():
        try:
            columns = member.target.show(attribute).split()
        except ABSENT:
            continue
        found[attribute] = {name: int(text) for name, text in zip(names, columns, strict=False) if name}
    return found


def all_stats(member: Member) -> dict[str, dict[str, int]]:
    """`stats` with every column: what an older kernel does not count is 0."""
    found = stats(member)
    return {
        attribute: {name: 0 for name in names if name} | found.get(attribute, {})
        for attribute, names in STAT_COLUMNS.items()
    }


def chosen(listing: str) -> str:
    """The name in brackets of what comp_algorithm and allocator show."""
    return listing.partition("[")[2].partition("]")[0]


def device(member: Member) -> dict[str, Any]:
    """A device as JSON; sizes in bytes, bd_stat in units of 4 KiB, pages in pages."""
    ours = member.device
    return {
        "name": member.name,
        "label": member.label,
        "origin": member.origin,
        "target": "kernel" if ours is None else "zramcore",
        "initialized": shown(member, "initstate", "0") == "1",
        "disksize": int(shown(member, "disksize", "0")),
        "page_size": os.sysconf("SC_PAGE_SIZE") if ours is None else ours.page_size,
        "comp_algorithm": chosen(shown(member, "comp_algorithm", "")),
        "allocator": allocator(member),
        "backing_dev": backing_dev(member),
        "open": holders(member),
        **all_stats(member),
        "node": member.deployed.lines() if isinstance(member.deployed, KernelDeployed) else [],
        "writes_per_day": None if member.runner.daily is None else member.runner.daily.limit,
        "writes_left": member.runner.budget_left(),
        "policies": policies(member),
        "image": _image(member),
    }


def shown(member: Member, attribute: str, otherwise: str) -> str:
    """What an attribute shows, without its newline; `otherwise` where a kernel has none, or its device is gone."""
    try:
        return member.target.show(attribute).strip()
    except ABSENT:
        return otherwise


def allocator(member: Member) -> str:
    """What keeps its objects; the kernel has one."""
    return "zsmalloc" if member.device is None else chosen(member.target.show("allocator"))


def backing_dev(member: Member) -> str:
    """What backing_dev shows; none on a kernel without."""
    return shown(member, "backing_dev", "none")


def holders(member: Member) -> int:
    """How often it is open; for a device of the kernel 1 where it is mounted or swapped to."""
    if member.device is not None:
        return member.device.holders
    node = member.target.node if isinstance(member.target, KernelDevice) else ""
    return int(is_swap(node) or bool(mounts_of(node)))


def policies(member: Member) -> list[dict[str, Any]]:
    """The policies of a device with what they did; policies of one name share their figures."""
    found = []
    for config in member.runner.configs:
        record = member.runner.records[config.name]
        found.append({"name": config.name, "options": dict(config.options), **vars(record)})
    return found


def readable(member: Member) -> dict[str, str]:
    """Every attribute that can be read, but for block_state, which is as long as the device is full."""
    found = {}
    for name in member.target.attributes():
        if name == "block_state" or (name in ATTRIBUTES and ATTRIBUTES[name].show is None):
            continue
        try:
            found[name] = member.target.show(name)
        except ZramError as error:
            found[name] = f"({error.errno_name}: {error.reason})\n"
    return found


def _image(member: Member) -> dict[str, str | None] | None:
    image = member.config.image if member.config is not None else None
    if image is None:
        return None
    return {"load": str(image.load) if image.load else None, "save": str(image.save) if image.save else None}
