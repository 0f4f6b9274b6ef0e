"""What there is to tell about a device: its stats in columns with names, and the whole of it as one JSON object."""

from __future__ import annotations

from typing import Any

from ..errors import ZramError
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
    "stat": ("read_requests", "", "read_sectors", "", "write_requests", "", "written_sectors"),
}
"""The columns by the names of Documentation/admin-guide/blockdev/zram.rst; those without a name are always 0 here."""


def stats(member: Member) -> dict[str, dict[str, int]]:
    """The stats files of a device as numbers; they never wait for a pass."""
    found = {}
    for attribute, names in STAT_COLUMNS.items():
        columns = member.target.show(attribute).split()
        found[attribute] = {name: int(text) for name, text in zip(names, columns, strict=False) if name}
    return found


def chosen(listing: str) -> str:
    """The name in brackets of what comp_algorithm and allocator show."""
    return listing.partition("[")[2].partition("]")[0]


def device(member: Member) -> dict[str, Any]:
    """A device as JSON; sizes in bytes, bd_stat in units of 4 KiB, pages in pages."""
    show = member.target.show
    return {
        "name": member.name,
        "label": member.label,
        "origin": member.origin,
        "initialized": member.target.device.initialized,
        "disksize": int(show("disksize")),
        "page_size": member.target.device.page_size,
        "comp_algorithm": chosen(show("comp_algorithm")),
        "allocator": chosen(show("allocator")),
        "backing_dev": show("backing_dev").strip(),
        "open": member.target.device.holders,
        **stats(member),
        "policies": policies(member),
        "image": _image(member),
    }


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
    for name, attribute in member.target.table.items():
        if attribute.show is None or name == "block_state":
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
