"""Commands that look at the daemon's devices and write their attributes: list, show, get, set, idle, writeback,
recompress, reset, remove, reload."""

from __future__ import annotations

import time
from typing import Any

import click

from ..daemon.client import Client
from .client import BLOCK, bytes_option, device_argument, human, json_option, show_json, table, with_client

COLUMNS = (
    "NAME", "LABEL", "ALGORITHM", "DISKSIZE", "DATA", "COMPR", "TOTAL", "MEM-LIMIT", "MEM-USED", "SAME", "HUGE",
    "MIGRATED", "BD-COUNT", "BD-READS", "BD-WRITES", "OPEN",
)  # fmt: skip
"""zramctl's, and more: DATA to MIGRATED are mm_stat (MEM-USED is its maximum, as there), BD-* are bd_stat."""
LONG = 8
"""Lines of an attribute that `show` prints; what is longer is left to `get`."""


def columns(device: dict[str, Any], size: Any) -> list[str]:
    """One device as a row of COLUMNS; `size` turns bytes into text."""
    memory, backing = device["mm_stat"], device["bd_stat"]
    keys = ("orig_data_size", "compr_data_size", "mem_used_total", "mem_limit", "mem_used_max")
    sizes = [size(memory[key]) for key in keys]
    pages = [str(memory[key]) for key in ("same_pages", "huge_pages", "pages_compacted")]
    blocks = [size(backing[key] * BLOCK) for key in ("bd_count", "bd_reads", "bd_writes")]
    head = [device["name"], device["label"], device["comp_algorithm"], size(device["disksize"])]
    return [*head, *sizes, *pages, *blocks, str(device["open"])]


@click.command("list")
@with_client
@json_option
@bytes_option
def list_(client: Client, as_json: bool, in_bytes: bool) -> None:
    """List the daemon's devices: zramctl's columns, same-filled and huge pages, and what went to the backing device."""
    devices = client.devices()
    if as_json:
        show_json({"devices": devices})
        return
    if not devices:
        click.echo("no devices; `zramcore create NAME --disksize SIZE` makes one", err=True)
        return
    size = str if in_bytes else human
    for line in table(COLUMNS, [columns(device, size) for device in devices], left=3):
        click.echo(line)


@click.command("show")
@with_client
@device_argument
@json_option
def show(client: Client, name: str, as_json: bool) -> None:
    """Show everything about a device: every attribute that can be read, where NBD serves it, what its policies did."""
    device, attributes = client.device(name), client.readable(name)
    if as_json:
        show_json({**device, "attributes": attributes})
        return
    width = max(len(attribute) for attribute in attributes)
    for attribute, text in sorted(attributes.items()):
        lines = text.replace("\0", "").splitlines() or [""]
        if len(lines) > LONG:
            lines = [f"({len(lines)} lines: zramcore get {name} {attribute})"]
        click.echo(f"{attribute:<{width}}  {' '.join(lines[0].split())}".rstrip())
        for line in lines[1:]:
            click.echo(f"{'':<{width}}  {' '.join(line.split())}")
    for uri in device["nbd"]:
        click.echo(f"{'(nbd)':<{width}}  {uri}")
    if device["image"] is not None:
        parts = [f"{key} {path}" for key, path in device["image"].items() if path]
        click.echo(f"{'(image)':<{width}}  {', '.join(parts)}")
    if device["writes_per_day"] is not None:
        left, limit = (human(device[key] * BLOCK) for key in ("writes_left", "writes_per_day"))
        click.echo(f"{'(writes_per_day)':<{width}}  {limit}, {left} left")
    for line in device["node"]:
        click.echo(f"{'(node)':<{width}}  {line}")
    for policy in device["policies"]:
        click.echo(f"{'(policy)':<{width}}  {_policy_line(policy)}")


def _policy_line(policy: dict[str, Any]) -> str:
    options = " ".join(f"{key}={value}" for key, value in policy["options"].items())
    parts = [" ".join([policy["name"], options]).strip()]
    parts.append(f"{policy['ticks']} decisions, {policy['writes']} writes, {policy['failures']} failures")
    parts.append(f"freed {human(max(policy['freed'], 0))}, wrote back {human(policy['written_back'])}")
    if policy["last_at"]:
        wait = policy["last_at"] + policy["next_in"] - time.time()
        parts.append(f"next in {max(wait, 0):.0f} s")
    if policy["last_error"]:
        parts.append(policy["last_error"])
    return "; ".join(parts)


@click.command("get")
@with_client
@device_argument
@click.argument("attribute", metavar="ATTRIBUTE")
def get(client: Client, name: str, attribute: str) -> None:
    """Print an attribute of a device, byte for byte what the kernel's file would say."""
    click.echo(client.show(name, attribute).encode("utf-8", "surrogateescape"), nl=False)


@click.command("set")
@with_client
@device_argument
@click.argument("attribute", metavar="ATTRIBUTE")
@click.argument("value", metavar="VALUE")
def set_(client: Client, name: str, attribute: str, value: str) -> None:
    """Write VALUE to an attribute of a device, as `echo VALUE > /sys/block/NAME/ATTRIBUTE` does."""
    client.store(name, attribute, value)


@click.command("idle")
@with_client
@device_argument
@click.argument("age", metavar="[all|SECONDS]", default="all")
def idle(client: Client, name: str, age: str) -> None:
    """Mark all pages of a device idle, or those not accessed for SECONDS."""
    client.store(name, "idle", age)


@click.command("writeback")
@with_client
@device_argument
@click.argument("what", metavar="[WHAT]...", nargs=-1)
def writeback(client: Client, name: str, what: tuple[str, ...]) -> None:
    """Write pages back to the backing device: idle (the default), huge, huge_idle, incompressible, idle_or_huge,
    page_index=N, page_indexes=A-B. Returns when it is done, and says what it did."""
    before = client.device(name)
    try:
        client.store(name, "writeback", " ".join(what) or "idle")
    finally:
        _report(before, client.device(name))


@click.command("recompress")
@with_client
@device_argument
@click.argument("what", metavar="[KEY=VALUE]...", nargs=-1)
def recompress(client: Client, name: str, what: tuple[str, ...]) -> None:
    """Recompress pages with the secondary algorithms: type=huge (the default), type=idle, type=huge_idle,
    threshold=BYTES, max_pages=N, algo=NAME, priority=1..3. Returns when it is done, and says what it did."""
    before = client.device(name)
    client.store(name, "recompress", " ".join(what) or "type=huge")
    _report(before, client.device(name))


def _report(before: dict[str, Any], after: dict[str, Any]) -> None:
    written = (after["bd_stat"]["bd_writes"] - before["bd_stat"]["bd_writes"]) * BLOCK
    freed = before["mm_stat"]["mem_used_total"] - after["mm_stat"]["mem_used_total"]
    moved = f"freed {human(freed)}" if freed >= 0 else f"grew {human(-freed)}"
    click.echo(f"{after['label']}: " + (f"wrote back {human(written)}, {moved}" if written else moved))


@click.command("reset")
@with_client
@device_argument
def reset(client: Client, name: str) -> None:
    """Forget a device's data and configuration; the device stays, uninitialised. Refused while it is open."""
    client.store(name, "reset", "1")


@click.command("remove")
@with_client
@device_argument
@click.option("--discard", is_flag=True, help="Do not save its image, if it has one.")
@click.option("--disconnect", is_flag=True, help="Disconnect its NBD clients first.")
def remove(client: Client, name: str, discard: bool, disconnect: bool) -> None:
    """Remove a device; its image is saved first if its config asks for one, otherwise its data is gone.

    Refused while it is open.
    """
    saved = client.remove(name, save=not discard, disconnect=disconnect)
    if saved is not None:
        click.echo(f"{name}: image saved, {human(saved)} stored")


@click.command("reload")
@with_client
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would change.")
@json_option
@click.pass_context
def reload(context: click.Context, client: Client, dry_run: bool, as_json: bool) -> None:
    """Have the daemon read its config again, and print what changes and what is refused; SIGHUP does the same.

    The exit status is 1 when something is refused.
    """
    changes = client.reload(dry_run=dry_run)
    if as_json:
        show_json({"changes": changes})
    else:
        for change in changes:
            click.echo(change_line(change))
        if not changes:
            click.echo("nothing changes")
    if any(change["refused"] for change in changes):
        context.exit(1)


def change_line(change: dict[str, Any]) -> str:
    """One change: ``swap/mem_limit: 64M -> 128M``."""
    kind, device = change["kind"], change["device"]
    if kind in ("add", "remove"):
        text = f"{device}: {kind}" + (f" ({change['after']})" if change["after"] else "")
    else:
        table = "daemon" if kind == "daemon" else device
        where = "/".join(part for part in (table, change["key"]) if part)
        text = f"{where}: {change['before'] or '-'} -> {change['after'] or '-'}"
    return f"{text}; refused: {change['refused']}" if change["refused"] else text
