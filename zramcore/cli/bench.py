"""`zramcore bench`: measure zramcore on this machine, with the user's data, against the kernel and the bare codec."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

from ..bench import codecs, devices, memory
from ..bench.block import BlockSide, KernelSide, LimitSide, OurSide
from ..bench.data import Data
from ..bench.kernel_zram import KernelZram, kernel_zram
from ..bench.loops import BareLoop
from ..bench.plot import plot, require_matplotlib
from ..bench.rounds import Tell
from ..bench.rows import Row
from ..bench.table import lines
from ..bench.table import size as show_size
from ..interfaces import Catalogue
from ..registry import explain_miss
from .common import catalogue_of, plugins_of
from .completion import complete_algorithms
from .corpus import Extent, Unreadable, file_extents, gather
from .gathering import choose_algorithms, read_size, report_unreadable, split_words, status_line
from .process import process_extents
from .trial import scratch_folder

Command = TypeVar("Command", bound=Callable[..., Any])

SPARE = 1.5
"""How much more data is taken than is worked on: same-filled pages are left out."""


@dataclass(frozen=True)
class Bench:
    """What all subcommands have in common."""

    context: click.Context
    paths: Sequence[Path]
    pid: int | None
    size: int
    rounds: int
    as_json: bool
    picture: Path | None

    @property
    def catalogue(self) -> Catalogue:
        """What devices may choose from."""
        return catalogue_of(self.context)

    def data(self, tell: Tell) -> Data:
        """The pages to work on. Raises InvalidValue (EINVAL) when there are too few."""
        for path in self.paths:
            path.stat()
        wanted = int(self.size * SPARE)
        folder = scratch_folder(0)

        def extents(unreadable: Unreadable) -> Iterator[Extent]:
            if self.pid:
                yield from process_extents(self.pid)
            if self.paths or self.pid:
                yield from file_extents(self.paths, unreadable)
            else:
                yield from _this_machine(wanted, unreadable)

        with contextlib.closing(
            gather(extents, wanted, folder, lambda taken: tell(f"taking the data: {taken >> 20} MiB"))
        ) as corpus:
            report_unreadable(corpus)
            return Data((chunk for _, chunk in corpus.chunks()), self.size)

    def about(self, data: Data) -> str:
        """What is measured with, in a sentence."""
        names = [f"the memory of process {self.pid}"] if self.pid else []
        names += [click.format_filename(path) for path in self.paths]
        if len(names) > 3:
            names = [*names[:2], f"{len(names) - 2} more"]
        source = ", ".join(names) or "this process's memory, Python sources and this machine's programs"
        return f"{data.size >> 20} MiB of pages from {source}"

    def report(self, rows: Sequence[Row], about: str, notes: Iterable[str] = ()) -> None:
        """Print the table, or JSON, and draw the picture."""
        if self.picture is not None:
            plot(rows, self.picture, about)
        if self.as_json:
            click.echo(json.dumps([row.as_json() for row in rows], indent=2))
            return
        click.echo(f"{about}; medians of {self.rounds} rounds")
        for note in notes:
            click.echo(note)
        click.echo()
        for line in lines(rows):
            click.echo(line)


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
def _cleaning_up() -> Iterator[None]:
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


PATHS = click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))
PID = click.option("--pid", type=click.IntRange(min=1), metavar="PID", help="Also (or only) this process's memory.")
JSON = click.option("--json", "as_json", is_flag=True, help="A list of rows, for machines.")
PLOT = click.option(
    "--plot", "picture", type=click.Path(path_type=Path), metavar="FILE", help="Draw it, too (PNG, SVG or PDF)."
)


def with_bench(size: str, rounds: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command a Bench, made of the arguments and options that all have, with these defaults."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def wrapper(
            paths: tuple[Path, ...], pid: int | None, size: int, rounds: int, as_json: bool, picture: Path | None,
            **options: Any,
        ) -> None:  # fmt: skip
            if picture is not None:
                require_matplotlib()
            function(Bench(click.get_current_context(), paths, pid, size, rounds, as_json, picture), **options)

        counts = "Rounds that count; one more warms up."
        for decorate in (
            PLOT,
            JSON,
            click.option("--rounds", type=click.IntRange(1), default=rounds, show_default=True, help=counts),
            click.option("--size", callback=read_size, default=size, show_default=True, help="How much data."),
            PID,
            PATHS,
        ):
            wrapper = decorate(wrapper)
        return wrapper

    return add


comp_option = click.option(
    "--comp",
    metavar="A,B,...",
    shell_complete=complete_algorithms,
    help="The algorithms, `all` for every one installed.",
)
allocator_option = click.option(
    "--allocator", default="", metavar="A,B,...", help="The allocators; `all` for every one."
)


class _Choices(click.ParamType[list[Any]]):
    """A comma-separated list of known words, as their values in the order of `known`."""

    name = "list"

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return ",".join(self.known).upper()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        if isinstance(value, list):
            return value
        words = [word.lower() for word in split_words(str(value))]
        for word in words:
            if word not in self.known:
                self.fail(f"{word!r} is none of {', '.join(self.known)}", param, ctx)
        return [meaning for word, meaning in self.known.items() if word in words]


def _choice(name: str, known: dict[str, Any], help: str) -> Callable[[Command], Command]:
    option: Callable[[Command], Command] = click.option(
        f"--{name}", type=_Choices(known), default=list(known.values()), help=f"{help}  [default: {','.join(known)}]"
    )
    return option


def _kernel_algorithm(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """None: not against the kernel; empty: with the algorithm that is measured."""
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


def _allocators(bench: Bench, text: str) -> list[str]:
    known = bench.catalogue.allocators
    names = list(known) if text == "all" else split_words(text) or list(known)[:1]
    for name in names:
        if name not in known:
            raise explain_miss("allocators", name, plugins_of(bench.context))
    return names


# Commands -------------------------------------------------------------------------------------------------------------


@click.group("bench")
def command() -> None:
    """Measure zramcore on this machine, with your data, against the kernel and the bare codec.

    Sides take turns at the same work, round by round. docs/bench.md explains the tables.
    """


@command.command("codecs")
@with_bench("8M", 7)
@comp_option
def codecs_(bench: Bench, comp: str | None) -> None:
    """Compressors: microseconds a page and ratio, against the bare loop over the same codec."""
    names = choose_algorithms(bench.context, comp, list(bench.catalogue.compressors))
    with status_line() as tell:
        data = bench.data(tell)
        compressors = {name: bench.catalogue.compressors[name] for name in names}
        rows = list(codecs.bench(compressors, data, bench.rounds, tell))
    bench.report(rows, bench.about(data))


@command.command("device")
@with_bench("32M", 5)
@comp_option
@allocator_option
@against_kernel
@_choice("work", {work: work for work in devices.WORKS}, "What is done.")
@_choice("order", {order: order for order in devices.ORDERS}, "In which order.")
@_choice("request", {show_size(size).lower(): size for size in devices.REQUESTS}, "Sizes of requests.")
@_choice("threads", {"1": 1, "2": 2}, "Threads that make requests.")
def device(
    bench: Bench,
    comp: str | None,
    allocator: str,
    kernel_algorithm: str | None,
    work: list[str],
    order: list[str],
    request: list[int],
    threads: list[int],
) -> None:
    """Devices: requests of 1 MiB, 64 KiB and 4 KiB, in order and at random, by one thread and by two."""
    names = choose_algorithms(bench.context, comp, ["lz4"])
    allocators = _allocators(bench, allocator)
    rows: list[Row] = []
    with _cleaning_up(), status_line() as tell:
        if kernel_algorithm is not None:
            KernelZram()  # refuses before data are taken
        data = bench.data(tell)
        for name in names:
            with kernel_zram(kernel_algorithm is not None) as kernel:
                if kernel is not None:
                    kernel.start(kernel_algorithm or name, data.size * len(threads))
                with _sides(bench, data, name, allocators, kernel, data.size * len(threads)) as sides:
                    rows += devices.bench(
                        sides, data, works=work, orders=order, requests=request, threads=threads, rounds=bench.rounds,
                        tell=tell,
                    )  # fmt: skip
    bench.report(rows, bench.about(data))


@contextlib.contextmanager
def _sides(
    bench: Bench, data: Data, comp: str, allocators: Sequence[str], kernel: KernelZram | None, size: int
) -> Iterator[list[BlockSide]]:
    with contextlib.ExitStack() as stack:
        sides: list[BlockSide] = []
        for allocator in allocators:
            label = f"zramcore {comp}" if len(allocators) == 1 else f"zramcore {comp}, {allocator}"
            side = OurSide(label, bench.catalogue, comp, allocator, data, size)
            stack.callback(side.close)
            sides.append(side)
        sides.append(LimitSide(BareLoop(bench.catalogue.compressors[comp]), data))
        if kernel is not None:
            sides.append(KernelSide(kernel, data))
        yield sides


@command.command("memory")
@with_bench("256M", 1)
@comp_option
@allocator_option
@against_kernel
def memory_(bench: Bench, comp: str | None, allocator: str, kernel_algorithm: str | None) -> None:
    """Memory that the data take: mem_used_total, and what this process grows by."""
    names = choose_algorithms(bench.context, comp, ["lz4", "zstd"])
    rows: list[Row] = []
    with _cleaning_up(), status_line() as tell:
        if kernel_algorithm is not None:
            KernelZram()
        data = bench.data(tell)
        for name in names:
            with kernel_zram(kernel_algorithm is not None) as kernel:
                if kernel is not None:
                    kernel.start(kernel_algorithm or name, data.size)
                with _sides(bench, data, name, _allocators(bench, allocator), kernel, data.size) as sides:
                    rows += memory.bench(sides, data, tell)
    bench.report(rows, bench.about(data))
