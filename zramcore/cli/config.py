"""`zramcore config check FILE` and `zramcore config show FILE`: look at a deployment without touching anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from ..attributes import ATTRIBUTES, Attribute
from ..config import Config, check_file, plan_device
from ..errors import ConfigError
from ..interfaces import Catalogue
from ..pluginmanager import load_plugins
from ..pluginset import PluginSet
from ..registry import build_catalogue

FILE = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))


@click.group("config")
def command() -> None:
    """Check a deployment file, or show what it comes to. Nothing is created or changed."""


def prepare(context: click.Context) -> tuple[PluginSet, Catalogue, Mapping[str, Attribute]]:
    """The plugins, what a device may choose from, and the attributes that it has."""
    plugins = context.find_object(PluginSet) or load_plugins()
    catalogue = build_catalogue(plugins)
    plugins.reserve("attributes", ATTRIBUTES)
    return plugins, catalogue, {**ATTRIBUTES, **{extra.name: extra for extra in plugins.extra_attributes}}


def report(file: Path, problems: list[ConfigError], *, err: bool) -> None:
    """One line for each problem."""
    for problem in problems:
        click.echo(" ".join(str(problem).split()), err=err)
    if err:
        click.echo(f"{file}: {len(problems)} problem{'s' if len(problems) > 1 else ''}", err=True)


def checked_config(
    context: click.Context, file: Path, catalogue: Catalogue, attributes: Mapping[str, Attribute]
) -> Config:
    """The config in `file`, when nothing is wrong with it; otherwise prints the problems on stderr and exits 1."""
    config, problems = check_file(file, catalogue, attributes)
    if config is None or problems:
        report(file, problems, err=True)
        context.exit(1)
    return config


@command.command("check")
@FILE
@click.pass_context
def check_command(context: click.Context, file: Path) -> None:
    """Print everything that is wrong with FILE and its drop-ins, one line each; the exit status is 1 then."""
    _, catalogue, attributes = prepare(context)
    _, problems = check_file(file, catalogue, attributes)
    if problems:
        report(file, problems, err=False)
        context.exit(1)
    click.echo(f"{file}: ok")


@command.command("show")
@FILE
@click.pass_context
def show_command(context: click.Context, file: Path) -> None:
    """Print the attribute writes that FILE comes to, in the order they are made; images and policies as comments."""
    _, catalogue, attributes = prepare(context)
    config = checked_config(context, file, catalogue, attributes)
    for device in config.devices:
        for write in plan_device(device):
            click.echo(str(write))
        if device.image is not None and device.image.load is not None:
            click.echo(f"# {device.name}: load {device.image.load}{' if it exists' if device.image.optional else ''}")
        for policy in device.policies:
            options = "".join(f" {key}={value}" for key, value in policy.options.items())
            click.echo(f"# {device.name}: policy {policy.name}{options}")
        if device.image is not None and device.image.save is not None:
            click.echo(f"# {device.name}: save {device.image.save} at the end")
