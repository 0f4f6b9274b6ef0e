"""What the subcommands of `zramcore bench` share: their options, the data they take, how their rows are shown."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeVar

import click

from ..bench.data import Data
from ..bench.plot import plot, require_matplotlib
from ..bench.rounds import Tell
from ..bench.rows import Row
from ..bench.table import lines
from ..interfaces import Catalogue
from ..registry import explain_miss
from .common import catalogue_of, plugins_of
from .completion import complete_algorithms
from .corpus import Extent, Unreadable, file_extents, gather
from .gathering import read_size, report_unreadable, split_words, status_line
from .process import process_extents
from .trial import scratch_folder

SPARE = 1.5
"""How much more data is taken than is worked on: same-filled pages are left out."""


class Measured(NamedTuple):
    """What a subcommand found, and what it measured with, in a sentence."""

    rows: Sequence[Row]
    about: str


Function = Callable[..., Any]
Decorator = TypeVar("Decorator", bound=Function)


@dataclass(frozen=True)
class Bench:
    """The options that all subcommands have. `tell` shows what is going on."""

    context: click.Context
    rounds: int
    tell: Tell

    @property
    def catalogue(self) -> Catalogue:
        """What devices may choose from."""
        return catalogue_of(self.context)

    def named(self, family: str, text: str) -> list[str]:
        """The plugins that `text` names, each once; all for ``all``. Raises UnknownName (EINVAL)."""
        known: Mapping[str, object] = getattr(self.catalogue, family)
        names = list(known) if text == "all" else split_words(text)
        for name in names:
            if name not in known:
                raise explain_miss(family, name, plugins_of(self.context))
        return names


@dataclass(frozen=True)
class Source:
    """The options that say what data are worked on."""

    paths: Sequence[Path]
    pid: int | None
    size: int

    def take(self, tell: Tell, most: int | None = None) -> Data:
        """At most `size` (or `most`) bytes of pages. Raises InvalidValue (EINVAL) when there are too few, OSError."""
        for path in self.paths:
            path.stat()
        size = self.size if most is None else min(most, self.size)
        wanted = int(size * SPARE)

        def extents(unreadable: Unreadable) -> Iterator[Extent]:
            if self.pid:
                yield from process_extents(self.pid)
            if self.paths or self.pid:
                yield from file_extents(self.paths, unreadable)
            else:
                yield from _this_machine(wanted, unreadable)

        told = gather(extents, wanted, scratch_folder(0), lambda taken: tell(f"taking the data: {taken >> 20} MiB"))
        with contextlib.closing(told) as corpus:
            report_unreadable(corpus)
            return Data((chunk for _, chunk in corpus.chunks()), size)

    def about(self, data: Data) -> str:
        """It in a sentence."""
        names = [f"the memory of process {self.pid}"] if self.pid else []
        names += [click.format_filename(path) for path in self.paths]
        if len(names) > 3:
            names = [*names[:2], f"{len(names) - 2} more"]
        source = ", ".join(names) or "this process's memory, Python sources and this machine's programs"
        return f"{data.size >> 20} MiB of pages from {source}"


def _this_machine(wanted: int, unreadable: Unreadable) -> Iterator[Extent]:
    """A third each of this process's memory and of Python sources, and the rest of programs and libraries."""
    sources = (entry for entry in file_extents([sysconfig.get_path("stdlib")], unreadable) if entry[0].endswith(".py"))
    yield from _up_to(wanted // 3, process_extents(os.getpid()))
    yield from _up_to(wanted // 3, sources)
    yield from file_extents([path for path in ("/usr/bin", "/usr/lib") if os.path.isdir(path)], unreadable)


def _up_to(limit: int, extents: Iterable[Extent]) -> Iterator[Extent]:
    """The first extents, as far as `limit` bytes go."""
    left = limit

    def bounded(pieces: Iterator[bytes]) -> Iterator[bytes]:
        nonlocal left
        for piece in pieces:
            part = piece[:left]
            left -= len(part)
            yield part
            if left <= 0:
                return

    for name, pieces in extents:
        if left <= 0:
            return
        yield name, bounded(pieces)


@contextlib.contextmanager
def _stopped_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does: whatever is in use is given back."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# Options --------------------------------------------------------------------------------------------------------------


def with_bench(rounds: int | None = None) -> Callable[[Function], Function]:
    """Gives a command a Bench, and shows what it measured; adds the options for both. `rounds` is the default; None for
    a command that measures no times."""
    timed = rounds is not None

    def add(function: Function) -> Function:
        @functools.wraps(function)
        def run(as_json: bool, picture: Path | None = None, rounds: int = 1, **options: Any) -> None:
            if picture is not None:
                require_matplotlib()
            with _stopped_in_order(), status_line() as tell:
                rows, about = function(Bench(click.get_current_context(), rounds, tell), **options)
            if picture is not None:
                plot(rows, picture, about)
            if as_json:
                click.echo(json.dumps([row.as_json() for row in rows], indent=2))
                return
            medians = f"; medians of {rounds} round{'s' * (rounds > 1)}" if timed else ""
            click.echo(f"{about}{medians}\n")
            for line in lines(rows):
                click.echo(line)

        added: Function = click.option("--json", "as_json", is_flag=True, help="A list of rows, for machines.")(run)
        if timed:
            counts = "Rounds that count; one more warms up."
            for decorate in (
                click.option(
                    "--plot", "picture", type=click.Path(path_type=Path), metavar="FILE", help="Draw it, too."
                ),
                click.option("--rounds", type=click.IntRange(1), default=rounds, show_default=True, help=counts),
            ):
                added = decorate(added)
        return added

    return add


def with_source(size: str) -> Callable[[Function], Function]:
    """Gives a command a Source; adds its options, with this default."""

    def add(function: Function) -> Function:
        @functools.wraps(function)
        def run(bench: Bench, paths: tuple[Path, ...], pid: int | None, size: int, **options: Any) -> Measured:
            found: Measured = function(bench, Source(paths, pid, size), **options)
            return found

        for decorate in (
            click.option("--size", callback=read_size, default=size, show_default=True, help="How much data."),
            click.option("--pid", type=click.IntRange(min=1), metavar="PID", help="Also (or only) a process's memory."),
            click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path)),
        ):
            run = decorate(run)
        return run

    return add


comp_option = click.option(
    "--comp", metavar="A,B,...", shell_complete=complete_algorithms, help="The algorithms; `all` for every one."
)
allocator_option = click.option("--allocator", metavar="A,B,...", help="The allocators; `all` for every one.")


class Choices(click.ParamType[list[Any]]):
    """A comma-separated list of known words, as their values in the order of `known`."""

    name = "list"

    def __init__(self, known: Mapping[str, Any]) -> None:
        self.known = known

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "A,B,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        if isinstance(value, list):
            return value
        words = [word.lower() for word in split_words(str(value))]
        for word in words:
            if word not in self.known:
                self.fail(f"{word!r} is none of {', '.join(self.known)}", param, ctx)
        return [meaning for word, meaning in self.known.items() if word in words]


def choice(name: str, known: Mapping[str, Any], help: str) -> Callable[[Decorator], Decorator]:
    """An option that takes some of the words in `known`; by default all."""
    return click.option(
        f"--{name}", type=Choices(known), default=list(known.values()), help=f"{help}  [{','.join(known)}]"
    )


def _kernel_algorithm(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    if text is None:
        return None
    word, _, algorithm = text.partition(":")
    if word != "kernel":
        raise click.BadParameter(f"{text!r} is not kernel or kernel:ALGORITHM")
    return algorithm


against_kernel = click.option(
    "--against",
    "kernel_algorithm",
    callback=_kernel_algorithm,
    metavar="kernel[:ALGORITHM]",
    help="Also the kernel's /dev/zram0 (root; refused when it is in use; reset afterwards).",
)
"""None: not against the kernel; an empty text: with the algorithm that is measured."""
