"""What the commands that talk to a daemon share: `--socket`, `--json`, sizes for people, tables."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..daemon.client import Client
from ..daemon.sockets import VARIABLE, default_socket
from ..errors import ZramError

BLOCK = 4096
"""Bytes of a unit of bd_stat."""

json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for machines.")
bytes_option = click.option("-b", "--bytes", "in_bytes", is_flag=True, help="Sizes in bytes.")


def with_client(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--socket`, and pass a Client as the first argument."""

    @click.option(
        "--socket",
        "socket_path",
        envvar=VARIABLE,
        metavar="PATH",
        help=f"The daemon's control socket; default: {VARIABLE}, or {default_socket({}, 0)} for root, else "
        "zramcore/control.sock in the user's runtime directory.",
    )
    @functools.wraps(function)
    def command(*args: Any, socket_path: str | None, **options: Any) -> Any:
        with Client(socket_path or default_socket()) as client:
            return function(client, *args, **options)

    return command


def complete_devices(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of the daemon's devices; none when no daemon runs."""
    try:
        with Client(context.params.get("socket_path") or default_socket()) as client:
            names = [name for device in client.devices() for name in dict.fromkeys((device["label"], device["name"]))]
    except ZramError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


device_argument = click.argument("name", metavar="NAME", shell_complete=complete_devices)


def show_json(value: object) -> None:
    """Print JSON."""
    click.echo(json.dumps(value, indent=2))


def human(size: float) -> str:
    """A size as lsblk and zramctl write it: 512B, 1.5M, 64G."""
    for unit in "BKMGTPE":
        if size < 1024 or unit == "E":
            break
        size /= 1024
    text = f"{size:.1f}".removesuffix(".0")
    return f"{text}{unit}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Lines with aligned columns; the first `left` columns are aligned to the left."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
