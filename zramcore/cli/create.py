"""`zramcore create`: a device in the daemon, from options; all of it or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ..config.daemon import absolute_listener
from ..config.target import KINDS
from ..daemon.client import Client
from .client import human, json_option, show_json, with_client
from .completion import complete_algorithms

FLAGS = ("compressed_writeback", "writeback_limit_enable")
COUNTS = ("writeback_limit", "writeback_batch_size")
"""Attributes that are true or false, and whole numbers, in a config file; all others are texts."""


def split_policy(text: str) -> dict[str, str]:
    """``NAME:option=value,...`` as the table of a config file. Raises click.BadParameter."""
    name, _, rest = text.partition(":")
    table = {"name": name}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not key or not equals or key == "name":
            raise click.BadParameter(f"{part!r} is not option=value: --policy idle:age=3h,limit=25600")
        table[key] = value
    if not name:
        raise click.BadParameter(f"{text!r} names no policy: --policy idle:age=3h")
    return table


def read_settings(texts: Sequence[str]) -> dict[str, object]:
    """``ATTRIBUTE=VALUE`` texts as the keys of a config file: one that comes again makes a list, which is written one
    by one; numbers and flags get the type that the file has for them. Raises click.BadParameter."""
    found: dict[str, list[object]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{text!r} is not ATTRIBUTE=VALUE: --set mem_limit=512M")
        typed: object = value
        if key in FLAGS and value in ("0", "1"):
            typed = value == "1"
        elif key in COUNTS and value.isascii() and value.isdigit():
            typed = int(value)
        found.setdefault(key, []).append(typed)
    return {key: values[0] if len(values) == 1 else values for key, values in found.items()}


@click.command("create")
@with_client
@click.argument("name", metavar="NAME")
@click.option("--disksize", required=True, metavar="SIZE", help="Size of the device: 512M, 2G, ...")
@click.option("--comp", metavar="ALGORITHM", shell_complete=complete_algorithms, help="The compression algorithm.")
@click.option("--allocator", metavar="ALLOCATOR", help="The allocator of the pool.")
@click.option("--backing", metavar="DRIVER:PATH[,size=S]", help="Where pages are written back to.")
@click.option("--policy", "policies", multiple=True, metavar="NAME[:OPTION=VALUE,...]", help="A policy; repeatable.")
@click.option("--set", "settings", multiple=True, metavar="ATTRIBUTE=VALUE", help="Any other attribute; repeatable.")
@click.option("--target", type=click.Choice(KINDS), help="Whose device: zramcore's (the default), the kernel's zram.")
@click.option("--page-size", type=click.Choice(["4096", "16384", "65536"]), help="Bytes of a page.")
@click.option("--nbd", multiple=True, metavar="ADDRESS", help="Serve it alone on unix:PATH or tcp:HOST:PORT.")
@json_option
def command(
    client: Client,
    name: str,
    disksize: str,
    comp: str | None,
    allocator: str | None,
    backing: str | None,
    policies: tuple[str, ...],
    settings: tuple[str, ...],
    target: str | None,
    page_size: str | None,
    nbd: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a device in the daemon and call it NAME; it also has the kernel's name, zramN, which is printed.

    Everything is checked first, and a device that cannot be made completely leaves nothing behind. It lives until
    `zramcore remove` or the end of the daemon: one that is to come back belongs into the daemon's config file.
    """
    directory = Path.cwd()
    device = read_settings(settings)
    given = {
        "target": target,
        "disksize": disksize,
        "comp_algorithm": comp,
        "allocator": allocator,
        "backing_dev": backing,
    }
    device |= {key: value for key, value in given.items() if value is not None}
    if page_size is not None:
        device["page_size"] = int(page_size)
    if policies:
        device["policy"] = [split_policy(text) for text in policies]
    made = client.create(name, device, [absolute_listener(spec, directory) for spec in nbd], str(directory))
    if as_json:
        show_json(made)
        return
    parts = [human(made["disksize"]), made["comp_algorithm"]]
    if made["backing_dev"] != "none":
        parts.append(f"backing {made['backing_dev']}")
    if made["policies"]:
        parts.append("policies " + ", ".join(policy["name"] for policy in made["policies"]))
    label = made["name"] if made["label"] == made["name"] else f"{made['label']} ({made['name']})"
    click.echo(f"{label}: {', '.join(parts)}")
    for uri in made["nbd"]:
        click.echo(f"  {uri}")
