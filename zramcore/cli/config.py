"""`zramcore config check`, `show` and `import`: look at a deployment, or make one, without touching anything."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click

from ..config import Config, check_file, plan_device
from ..config.target import KINDS, Kind
from ..config.zram_generator import convert
from ..control import Control
from ..errors import ConfigError
from ..kernel_features import ALGORITHMS as KERNEL_ALGORITHMS
from ..policy_report import mebibytes
from .common import open_control, open_kernel

FILE = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))


@click.group("config")
def command() -> None:
    """Check a deployment file, or show what it comes to. Nothing is created or changed."""


def report(problems: list[ConfigError], *, err: bool) -> None:
    """One line for each problem."""
    for problem in problems:
        click.echo(" ".join(str(problem).split()), err=err)


def checked_config(context: click.Context, file: Path, control: Control) -> Config:
    """The config in `file`, when nothing is wrong with it; otherwise prints the problems on stderr and exits 1."""
    config, problems = check_file(file, control.catalogue, control.attributes, open_kernel())
    if config is None or problems:
        report(problems, err=True)
        context.exit(1)
    return config


@command.command("check")
@FILE
@click.pass_context
def check_command(context: click.Context, file: Path) -> None:
    """Print everything that is wrong with FILE and its drop-ins, one line each; the exit status is 1 then."""
    control = open_control(context)
    _, problems = check_file(file, control.catalogue, control.attributes, open_kernel())
    if problems:
        report(problems, err=False)
        context.exit(1)
    click.echo(f"{file}: ok")


@command.command("show")
@FILE
@click.pass_context
def show_command(context: click.Context, file: Path) -> None:
    """Print the attribute writes that FILE comes to, in the order they are made; the rest as comments."""
    config = checked_config(context, file, open_control(context))
    for device in config.devices:
        if device.target.text:
            click.echo(f"# {device.name}: {device.target.text}")
        for write in plan_device(device):
            click.echo(str(write))
        if device.image is not None and device.image.load is not None:
            click.echo(f"# {device.name}: load {device.image.load}{' if it exists' if device.image.optional else ''}")
        if device.use.text():
            click.echo(f"# {device.name}: {device.use.text()}")
        for policy in device.policies:
            options = "".join(f" {key}={value}" for key, value in policy.options.items())
            click.echo(f"# {device.name}: policy {policy.name}{options}")
        if device.target.writes_per_day is not None:
            click.echo(f"# {device.name}: its policies write {mebibytes(device.target.writes_per_day * 4096)} a day")
        if device.image is not None and device.image.save is not None:
            click.echo(f"# {device.name}: save {device.image.save} at the end")
    if config.writes_per_day is not None:
        click.echo(f"# devices without a limit of their own: {mebibytes(config.writes_per_day * 4096)} a day together")


@command.command("import")
@FILE
@click.option(
    "--target",
    type=click.Choice(KINDS),
    default="zramcore",
    help="Whose devices: zramcore's own (the default), the kernel's zram, or the kernel's when it has writeback.",
)
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write it there, not to stdout.")
@click.pass_context
def import_command(context: click.Context, file: Path, target: Kind, output: Path | None) -> None:
    """Convert FILE, a zram-generator.conf, into a deployment; what has no counterpart becomes a comment and a warning.

    An existing output file is not replaced.
    """
    compressors: Collection[str] = open_control(context).catalogue.compressors
    if target == "kernel":
        compressors = open_kernel().algorithms() or KERNEL_ALGORITHMS
    converted = convert(file, compressors, target)
    if output is None:
        click.echo(converted.text, nl=False)
    else:
        with output.open("x", encoding="utf-8") as stream:
            stream.write(converted.text)
    for comment in converted.comments:
        click.echo(f"{file}: {' '.join(comment.split())}", err=True)
