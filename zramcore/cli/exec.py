"""`zramcore exec`: run a script of attribute and I/O commands against in-process devices."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from ..control import Control
from ..errors import InvalidValue
from ..parse import memparse
from ..registry import build_catalogue
from ..script import BootClock, Clock, VirtualClock, new_machine, run_script
from .common import plugins_of


@click.command("exec")
@click.argument("script", type=click.Path(path_type=Path, allow_dash=True, exists=True, dir_okay=False))
@click.option("-e", "--stop-on-error", is_flag=True, help="Stop at the first command that fails, with status 1.")
@click.option(
    "--pages",
    type=click.Path(),
    default="pages.bin",
    show_default=True,
    help="The file of data pages that `put` and `cmp` use ($P).",
)
@click.option(
    "--backing",
    "backings",
    metavar="NAME=SIZE",
    multiple=True,
    help="Make a temporary backing file that the script knows as NAME, for example /dev/vda=64M. May be repeated.",
)
@click.option("--virtual-time", is_flag=True, help="`sleep` takes no time: the script has a clock of its own.")
@click.pass_context
def exec_(
    context: click.Context,
    script: Path,
    stop_on_error: bool,
    pages: str,
    backings: tuple[str, ...],
    virtual_time: bool,
) -> None:
    """Run SCRIPT (`-`: standard input) against new devices, zram0 to start with.

    Each command prints what it asked and what was answered; an errno is an answer and the script goes on. The exit
    status is 0 when the script ran, that of its `exit`, and 1 when --stop-on-error stopped it or a line makes no
    sense. docs/exec.md has the language.
    """
    name = "stdin" if str(script) == "-" else str(script)
    text = _read(script, name)
    clock: Clock = VirtualClock() if virtual_time else BootClock()
    files = [_backing(text) for text in backings]
    with new_machine(_control_maker(context), clock) as machine:
        for path, size in files:
            machine.make_file(path, size)
        status = run_script(text, machine, sys.stdout, sys.stderr, file=name, pages=pages, stop_on_error=stop_on_error)
        sys.stdout.flush()
    context.exit(status)


def _backing(text: str) -> tuple[str, int]:
    name, _, size = text.partition("=")
    if not name or not memparse(size):
        raise click.BadParameter(f"{text!r} is not NAME=SIZE", param_hint="--backing")
    return name, memparse(size)


def _read(script: Path, name: str) -> str:
    data = sys.stdin.buffer.read() if str(script) == "-" else script.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidValue(f"{name}:{line}: not UTF-8 text", hint="a script is a text file") from error


def _control_maker(context: click.Context) -> Callable[[Callable[[], int]], Control]:
    """How to make the set of devices for a clock, out of the plugins of this run."""
    plugins = plugins_of(context)
    catalogue = build_catalogue(plugins)

    def make(clock: Callable[[], int]) -> Control:
        return Control(catalogue, clock=clock, notify=plugins.notify, extra_attributes=plugins.extra_attributes)

    return make


command = exec_
