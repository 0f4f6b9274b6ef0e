"""`zramcore exec`: run a script of attribute and I/O commands against in-process devices."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from ..control import Control
from ..pluginmanager import load_plugins
from ..pluginset import PluginSet
from ..registry import build_catalogue
from ..script import BootClock, Clock, ScriptError, VirtualClock, new_machine, run_script


@click.command(name="exec")
@click.argument("script", type=click.Path(path_type=Path, allow_dash=True, exists=True, dir_okay=False))
@click.option("-e", "--stop-on-error", is_flag=True, help="Stop at the first command that fails, with status 1.")
@click.option(
    "--pages",
    type=click.Path(),
    default="pages.bin",
    show_default=True,
    help="The file of data pages that `put` and `cmp` use ($P).",
)
@click.option("--virtual-time", is_flag=True, help="`sleep` takes no time: a clock of the script's own goes on.")
@click.pass_context
def exec_(context: click.Context, script: Path, stop_on_error: bool, pages: str, virtual_time: bool) -> None:
    """Run SCRIPT (`-`: standard input) against new devices, zram0 to start with.

    Each command prints what it asked and what was answered; an errno is an answer and the script goes on. The exit
    status is 0 when the script ran, that of its `exit`, and 1 when --stop-on-error stopped it or it makes no sense.
    docs/exec.md has the language.
    """  # fmt: skip
    name = "stdin" if str(script) == "-" else str(script)
    try:
        text = sys.stdin.read() if str(script) == "-" else script.read_text()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{name}: not a text file: {error.reason} at byte {error.start}") from error
    clock: Clock = VirtualClock() if virtual_time else BootClock()
    with new_machine(_control_maker(context), clock) as machine:
        try:
            status = run_script(
                text, machine, sys.stdout, sys.stderr, file=name, pages=pages, stop_on_error=stop_on_error
            )
        except ScriptError as error:
            sys.stdout.flush()
            raise click.ClickException(str(error)) from error
    context.exit(status)


def _control_maker(context: click.Context) -> Callable[[Callable[[], int]], Control]:
    """How to make the devices out of the plugins that are installed, or that the context brings."""
    plugins = context.find_object(PluginSet) or load_plugins()
    catalogue = build_catalogue(plugins)

    def make(clock: Callable[[], int]) -> Control:
        return Control(catalogue, clock=clock, notify=plugins.notify, extra_attributes=plugins.extra_attributes)

    return make


command = exec_
