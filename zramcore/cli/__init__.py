"""The command line: one module per command, all in one click group; plugins may add commands.

Plugins are loaded once per run, when the first command is looked up, and passed on as the context's `obj`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module

import click

from .. import __version__
from .common import COMPLETE_VARIABLE, EXIT_USAGE, PROGRAM, guarded, plugins_of


class Builtin(Mapping[str, click.Command]):
    """Commands by name, from "module:attribute" of this package; a module is imported when its command is looked up,
    so that one command (the daemon, for days) does not carry what only others need."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> click.Command:
        module, _, attribute = self._places[name].partition(":")
        found: click.Command = getattr(import_module(f".{module}", __name__), attribute)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


BUILTIN = Builtin(
    {
        "try": "try_:command",
        "bench": "bench:command",
        "run": "run:command",
        "exec": "exec:command",
        "config": "config:command",
        "kernel": "kernel:command",
        "dict": "dict_:command",
        "daemon": "daemon:command",
        "create": "create:command",
        "list": "devices:list_",
        "show": "devices:show",
        "get": "devices:get",
        "set": "devices:set_",
        "idle": "devices:idle",
        "writeback": "devices:writeback",
        "recompress": "devices:recompress",
        "reset": "devices:reset",
        "remove": "devices:remove",
        "attach": "attach:attach",
        "detach": "attach:detach",
        "top": "top:command",
        "map": "map_:command",
        "policy": "policy:command",
        "record": "record:command",
        "reload": "devices:reload",
        "systemd": "systemd:command",
        "plugins": "plugins:command",
        "completion": "completion:command",
    }
)
"""The commands of zramcore itself, in the order `--help` lists them."""


class Commands(click.Group):
    """The built-in commands, then those of plugins. A plugin that fails leaves only its own commands out."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        added = plugins_of(ctx, BUILTIN).cli_commands
        return [*BUILTIN, *sorted(str(command.name) for command in added)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        added: Sequence[click.Command] = plugins_of(ctx, BUILTIN).cli_commands
        if cmd_name in BUILTIN:
            return BUILTIN[cmd_name]
        return next((command for command in added if command.name == cmd_name), None)


@click.group(
    PROGRAM,
    cls=Commands,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_context
def root(context: click.Context) -> None:
    """Linux zram with idle and huge page writeback, in Python; every part is a plugin.

    Start with `zramcore try`: it shows what zram does with your own files.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(EXIT_USAGE)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line (default: sys.argv) and return its exit status; see `common.guarded` for its values."""
    words = list(sys.argv[1:] if args is None else args)
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        return guarded(lambda: _complete(instruction))
    return guarded(lambda: _run(words))


def _run(words: list[str]) -> None:
    # Not root.main(): it would take a number that a plugin's command returns for an exit status.
    with root.make_context(PROGRAM, words) as context:
        root.invoke(context)


def _complete(instruction: str) -> None:
    from click.shell_completion import shell_complete  # only here: a shell asks for it, a daemon never

    raise click.exceptions.Exit(shell_complete(root, {}, PROGRAM, COMPLETE_VARIABLE, instruction))
