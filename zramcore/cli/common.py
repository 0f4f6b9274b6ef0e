"""What every command shares: the plugins of this run, and the boundary where an error becomes one line on stderr."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable

import click

from ..attributes import ATTRIBUTES
from ..control import Control
from ..errors import ZramError
from ..interfaces import Catalogue
from ..kernel import KernelControl, sysfs_root
from ..pluginmanager import load_plugins
from ..pluginset import PluginSet
from ..registry import build_catalogue

PROGRAM = "zramcore"
COMPLETE_VARIABLE = "_ZRAMCORE_COMPLETE"
"""Environment variable through which a shell's completion function asks; its value says what for."""
DEBUG_VARIABLE = "ZRAMCORE_DEBUG"
"""Environment variable: when set and not empty, an unexpected exception also prints its traceback."""

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def plugins_of(context: click.Context, commands: Iterable[str] = ()) -> PluginSet:
    """The plugins of this run, loaded at the first call and kept in the root context's `obj`.

    Offers that take the name of a built-in attribute, or of one of `commands`, are refused with a reason.
    """
    plugins = context.find_object(PluginSet)
    if plugins is None:
        plugins = load_plugins()
        build_catalogue(plugins)
        plugins.reserve("attributes", ATTRIBUTES)
        context.find_root().obj = plugins
    plugins.reserve("cli_commands", commands)
    return plugins


def catalogue_of(context: click.Context) -> Catalogue:
    """What a device may choose from."""
    return build_catalogue(plugins_of(context))


def open_control(context: click.Context) -> Control:
    """A new, empty set of devices whose events the plugins' observers are told of."""
    plugins = plugins_of(context)
    return Control(build_catalogue(plugins), notify=plugins.notify, extra_attributes=plugins.extra_attributes)


def open_kernel() -> KernelControl:
    """The kernel's own zram, below /sys or where ZRAMCORE_SYSFS says."""
    return KernelControl(sysfs=sysfs_root())


# Errors ---------------------------------------------------------------------------------------------------------------


def complain(text: object) -> None:
    """One line on stderr, with the program's name in front."""
    click.echo(f"{PROGRAM}: {' '.join(str(text).split())}", err=True)


def describe(error: BaseException) -> str:
    """What to tell the user about an error that ended a command."""
    if isinstance(error, ZramError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        names = " and ".join(click.format_filename(name) for name in (error.filename, error.filename2) if name)
        return f"{names}: {error.strerror}" if names else error.strerror
    return (
        f"internal error: {type(error).__name__}: {error} (with {DEBUG_VARIABLE}=1 set, the traceback is printed too)"
    )


def guarded(body: Callable[[], object]) -> int:
    """Run a command; the exit status. An error is one line on stderr, never a traceback.

    0: it ran; 1: it failed; 2: wrong usage; 130: interrupted. A reader that went away (EPIPE) is not worth a line.
    """
    handler = _OneLine()
    logger = logging.getLogger(PROGRAM)
    logger.addHandler(handler)
    try:
        try:
            body()
            sys.stdout.flush()  # here, where a closed pipe can still be handled
        except click.exceptions.Exit as leave:
            sys.stdout.flush()
            return leave.exit_code
    except BrokenPipeError:
        _silence_stdout()
        return EXIT_ERROR
    except (KeyboardInterrupt, EOFError, click.Abort):
        click.echo(err=True)  # ends the line in which the terminal shows ^C
        return EXIT_INTERRUPTED
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        complain(error.format_message())
        return error.exit_code
    except Exception as error:
        complain(describe(error))
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exception(error)
        return EXIT_ERROR
    finally:
        logger.removeHandler(handler)
    return 0


def _silence_stdout() -> None:
    """Let the interpreter's flush at exit go nowhere: it would report the closed pipe again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)


class _OneLine(logging.Handler):
    """Warnings of the library, without their tracebacks (those are what `zramcore plugins -v` is for)."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())
