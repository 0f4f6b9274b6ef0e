"""What the commands that work on the user's data share: sizes, algorithms, and what to tell while data are taken."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

import click

from ..parse import memparse_rest
from ..registry import explain_miss
from .common import catalogue_of, complain, plugins_of
from .corpus import Corpus

NAMED_UNREADABLE = 3
"""Unreadable files that are named; the others are counted."""


def read_size(context: click.Context, parameter: click.Parameter, text: str) -> int:
    """The bytes of a size as the kernel's memparse reads it: all of the text, and more than 0."""
    size, rest = memparse_rest(text)
    if rest or not size:
        raise click.BadParameter(f"{text!r} is not a size: write bytes, or a number with K, M, G or T behind it")
    return size


def read_optional_size(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """`read_size` of an option that may be left out."""
    return None if text is None else read_size(context, parameter, text)


def choose_algorithms(context: click.Context, comp: str | None, defaults: Sequence[str]) -> list[str]:
    """The algorithms that `--comp` names, each once; without it the defaults, as far as they are installed.

    Raises UnknownName (EINVAL) for one that is not installed.
    """
    plugins = plugins_of(context)
    known = catalogue_of(context).compressors
    if comp is None:
        names = [name for name in defaults if name in known] or list(known)
    elif comp == "all":
        names = list(known)
    else:
        names = split_words(comp)
    if not names:
        raise click.BadParameter("names no algorithm", context, param_hint="'--comp'")
    for name in names:
        if name not in known:
            raise explain_miss("compressors", name, plugins)
    return names


def split_words(text: str) -> list[str]:
    """The words of a comma-separated list, each once."""
    return list(dict.fromkeys(name for word in text.split(",") if (name := word.strip())))


def report_unreadable(corpus: Corpus) -> None:
    """One line on stderr about what could not be read."""
    missed = corpus.unreadable
    if missed:
        named = ", ".join(f"{click.format_filename(name)} ({reason})" for name, reason in missed[:NAMED_UNREADABLE])
        more = f" and {len(missed) - NAMED_UNREADABLE} more" if len(missed) > NAMED_UNREADABLE else ""
        complain(f"left out {len(missed)} that could not be read: {named}{more}")


@contextlib.contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Shows a line on stderr when that is a terminal; it is gone afterwards."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    try:
        yield lambda text: click.echo(f"\r\x1b[K{text}", nl=False, err=True)
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)
