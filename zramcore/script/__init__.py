"""Scripts of attribute and I/O commands against in-process devices: what `zramcore exec` runs.

The language is a small shell: reader.py makes a tree.py of the text, shell.py and expand.py run it. Its commands are
those of builtins.py (the shell's own), text.py (echo, cat, ...), tool.py (`zt`: one request or attribute) and words.py
(what one does with a device); docs/exec.md lists them. They act on a machine.py, through block.py. It is also the
language in which zram's behaviour was recorded on real kernels, so one interpreter runs both.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TextIO

from ..control import Control
from ..errors import did_you_mean
from .builtins import BUILTINS
from .machine import BootClock, Clock, Machine, VirtualClock
from .reader import parse_script
from .shell import Run, Shell, Streams
from .text import TEXT_WORDS
from .tree import Function, ScriptError, Sequence, Simple
from .words import Words, device_variables

__all__ = ["BootClock", "Clock", "Machine", "ScriptError", "VirtualClock", "command_table", "new_machine", "run_script"]


def new_machine(make_control: Callable[[Callable[[], int]], Control], clock: Clock) -> Machine:
    """A machine with one device, zram0, as a freshly loaded zram module has. `make_control` is given the clock."""
    machine = Machine(make_control, clock)
    machine.control.hot_add()
    return machine


def command_table(machine: Machine) -> dict[str, Run]:
    """Every command of the language, bound to `machine`."""
    return {**BUILTINS, **TEXT_WORDS, **Words(machine).table()}


def run_script(
    text: str,
    machine: Machine,
    out: TextIO,
    err: TextIO,
    *,
    file: str = "-",
    pages: str = "pages.bin",
    stop_on_error: bool = False,
    commands: Mapping[str, Run] | None = None,
    check: bool = True,
) -> int:
    """Run a script and return its exit status: 0, what `exit` was given, or 1 when `stop_on_error` stopped it.

    `pages` is the first value of `$P`; `commands` replaces `command_table(machine)`. With `check`, a command that
    does not exist is an error before anything runs. Raises ScriptError, which names file and line.
    """
    tree = parse_script(text, file)
    table = command_table(machine) if commands is None else commands
    if check:
        _check(tree, table, file)
    shell = Shell(table, machine, file, {**device_variables(0), "P": pages}, stop_on_error)
    status = shell.run(tree, Streams(io.StringIO(), out, err))
    return status if stop_on_error or shell.exited else 0


def _check(tree: Sequence, table: Mapping[str, Run], file: str) -> None:
    """Raises ScriptError for the first command that is neither in the table nor a function of the script."""
    defined = {node.name for node in _nodes(tree) if isinstance(node, Function)}
    for node in _nodes(tree):
        name = node.words[0].literal if isinstance(node, Simple) and node.words else None
        if isinstance(node, Simple) and name is not None and name not in table and name not in defined:
            hint = did_you_mean(name, sorted({*table, *defined}))
            raise ScriptError(f"unknown command {name!r}", file=file, line=node.line, hint=hint)


def _nodes(node: object) -> Iterator[object]:
    """A node of the tree and everything below it."""
    yield node
    if isinstance(node, tuple):
        for item in node:
            yield from _nodes(item)
    elif is_dataclass(node):
        for field in fields(node):
            yield from _nodes(getattr(node, field.name))
