"""`zramcore attach` and `zramcore detach`: a device of the daemon as a real block node, and what it is used for."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any, get_args

import click
from click.shell_completion import CompletionItem

from ..attach import (
    FILE_SYSTEMS,
    Export,
    Mount,
    Record,
    Swap,
    Use,
    attachments,
    conflicts,
    default_directory,
)
from ..attach import attach as attach_export
from ..attach import detach as detach_name
from ..attach.processes import Process
from ..attach.state import Via
from ..daemon.client import Client
from ..errors import InvalidValue
from .client import device_argument, json_option, show_json, with_client


def complete_attached(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names that are attached."""
    names = [record.name for record in attachments(default_directory())]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command("attach")
@with_client
@device_argument
@click.option("--path", metavar="/dev/...", help="Where: /dev/loopN or /dev/nbdN, or a link to make.")
@click.option("--mkfs", type=click.Choice(FILE_SYSTEMS), help="Make a file system; one that is there is kept.")
@click.option("--mount", metavar="DIR", help="Mount it there; the directory is made if it is missing.")
@click.option("--options", metavar="OPTIONS", help="Options of the mount; default: discard.")
@click.option("--swap", is_flag=True, help="Swap to it, with the processes behind it kept in memory.")
@click.option("--priority", type=click.IntRange(-1, 32767), help="Priority of the swap; default: the kernel's.")
@click.option("--via", type=click.Choice(get_args(Via)), help="How; default: nbd-client where the kernel has nbd.")
@json_option
def attach(
    client: Client,
    name: str,
    path: str | None,
    mkfs: str | None,
    mount: str | None,
    options: str | None,
    swap: bool,
    priority: int | None,
    via: Via | None,
    as_json: bool,
) -> None:
    """Make a block node of device NAME, which the daemon must serve over NBD; needs root.

    With --mkfs and --mount it is a file system, with --swap it is swap, in one go: all of it, or nothing is left.
    `zramcore detach NAME` undoes it, also after a crash. Do that before the daemon is stopped.
    """
    if options is not None and mount is None:
        raise click.UsageError("--options are those of --mount")
    if priority is not None and not swap:
        raise click.UsageError("--priority is that of --swap")
    device = client.device(name)
    use = Use(
        path=None if path is None else os.path.abspath(path),
        mkfs=mkfs,
        mount=_mount(mount, options),
        swap=Swap(priority) if swap else None,
    )
    for conflict in conflicts(use, has_contents=device["mm_stat"]["orig_data_size"] > 0):
        raise click.UsageError(f"--{conflict.key} {conflict.reason}")
    notes = client.protect() if swap else []
    server = Process.of(client.info()["pid"])
    export = Export(device["label"], device["name"], _uri(device), server)
    record = attach_export(export, use, default_directory(), via)
    record.notes[:0] = notes
    if as_json:
        show_json(_described(record))
        return
    click.echo(f"{record.name}: {record.node}{_purpose(record, use)}")
    for note in record.notes:
        click.echo(f"  {note}", err=True)


@click.command("detach")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_attached)
@click.option("--all", "every", is_flag=True, help="Everything that is attached.")
@click.option("--force", is_flag=True, help="Also when the daemon does not answer; what is not written yet is lost.")
def detach(names: tuple[str, ...], every: bool, force: bool) -> None:
    """Undo `zramcore attach`: swap off, unmount, remove the node. Needs no daemon; doing it twice does no harm.

    Without a name it lists what is attached.
    """
    directory = default_directory()
    if every and names:
        raise click.UsageError("--all and names exclude each other")
    if not every and not names:
        for record in attachments(directory):
            state = "" if record.alive else " (what served it has ended)"
            click.echo(f"{record.name}: {record.node or '-'}{state}")
        return
    for name in [record.name for record in attachments(directory)] if every else names:
        done = detach_name(name, directory, force=force)
        click.echo(f"{name}: {'; '.join(done) or 'not attached'}")


def _mount(directory: str | None, options: str | None) -> Mount | None:
    if directory is None:
        return None
    return Mount(os.path.abspath(directory)) if options is None else Mount(os.path.abspath(directory), options)


def _uri(device: dict[str, Any]) -> str:
    """The URI to attach by: a unix socket's if there is one."""
    uris: list[str] = sorted(device["nbd"], key=lambda uri: not uri.startswith("nbd+unix:"))
    if device["target"] == "kernel":
        raise InvalidValue(f"{device['label']} is the kernel's zram", hint=f"its node is there: {device['node'][0]}")
    if not device["initialized"]:
        raise InvalidValue(f"{device['label']} has no disksize", hint=f"zramcore set {device['label']} disksize 1G")
    if not uris:
        raise InvalidValue(
            f"{device['label']} is not served over NBD",
            hint="start the daemon with --nbd unix:/run/zramcore/nbd.sock, or create the device with --nbd unix:PATH",
        )
    return uris[0]


def _purpose(record: Record, use: Use) -> str:
    if use.swap is not None:
        return ", swap"
    kind = "" if use.mkfs is None else f", {use.mkfs}"
    mounted = "" if record.directory is None else f" on {record.directory}"
    return kind + mounted + ("" if record.path is None else f", {record.path}")


def _described(record: Record) -> dict[str, Any]:
    return {key: value for key, value in asdict(record).items() if key not in ("made_directory", "nbd_pid")}
