"""`zramcore bench`: measure zramcore on this machine, with the user's data, against the kernel and the bare codec."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from ..bench import backing, codecs, devices, latency, memory, nbd, scans
from ..bench.block import BlockSide, KernelSide, LimitSide, OurSide
from ..bench.data import MIB, PAGE, Data
from ..bench.kernel_zram import KernelZram, kernel_zram
from ..bench.loops import bare_loop
from ..bench.rows import Row
from ..bench.table import size as show_size
from .bench_options import (
    Bench,
    Measured,
    Source,
    against_kernel,
    allocator_option,
    choice,
    comp_option,
    with_bench,
    with_source,
)
from .gathering import choose_algorithms, read_size, split_words
from .trial import scratch_folder

DISTINCT = 64 * MIB
"""How much of the data is different where more is wanted only to keep a disk busy: the rest repeats it."""


@click.group("bench")
def command() -> None:
    """Measure zramcore on this machine, with your data, against the kernel and the bare codec.

    Sides take turns at the same work, round by round. docs/bench.md explains the tables.
    """


@command.command("codecs")
@with_bench(7)
@with_source("8M")
@comp_option
def codecs_(bench: Bench, source: Source, comp: str | None) -> Measured:
    """Compressors: microseconds a page and ratio, against the bare loop over the same codec."""
    names = choose_algorithms(bench.context, comp, list(bench.catalogue.compressors))
    compressors = {name: bench.catalogue.compressors[name] for name in names}
    data = source.take(bench.tell)
    return Measured(list(codecs.bench(compressors, data, bench.rounds, bench.tell)), source.about(data))


@command.command("device")
@with_bench(5)
@with_source("32M")
@comp_option
@allocator_option
@against_kernel
@choice("work", {work: work for work in devices.WORKS}, "What is done.")
@choice("order", {order: order for order in devices.ORDERS}, "In which order.")
@choice("request", {show_size(size).lower(): size for size in devices.REQUESTS}, "Sizes of requests.")
@choice("threads", {"1": 1, "2": 2}, "Threads that make requests.")
def device(
    bench: Bench,
    source: Source,
    comp: str | None,
    allocator: str | None,
    kernel_algorithm: str | None,
    work: list[str],
    order: list[str],
    request: list[int],
    threads: list[int],
) -> Measured:
    """Devices: requests of 1 MiB, 64 KiB and 4 KiB, in order and at random, by one thread and by two."""
    chosen = choose_algorithms(bench.context, comp, ["lz4"])
    allocators = _allocators(bench, allocator)
    _check_kernel(kernel_algorithm)
    data = source.take(bench.tell)
    rows: list[Row] = []
    for name in chosen:
        size, most = data.size * len(threads), max(threads)
        with _sides(bench, data, name, allocators, kernel_algorithm, size, most) as sides:
            rows += devices.bench(
                sides, data, works=work, orders=order, requests=request, threads=threads, rounds=bench.rounds,
                tell=bench.tell,
            )  # fmt: skip
    return Measured(rows, source.about(data))


@command.command("memory")
@with_bench()
@with_source("256M")
@comp_option
@allocator_option
@against_kernel
def memory_(
    bench: Bench, source: Source, comp: str | None, allocator: str | None, kernel_algorithm: str | None
) -> Measured:
    """Memory that the data take: mem_used_total, and what this process grows by."""
    chosen = choose_algorithms(bench.context, comp, ["lz4", "zstd"])
    allocators = _allocators(bench, allocator)
    _check_kernel(kernel_algorithm)
    data = source.take(bench.tell)
    rows: list[Row] = []
    for name in chosen:
        with _sides(bench, data, name, allocators, kernel_algorithm, data.size) as sides:
            rows += memory.bench(sides, data, bench.tell)
    return Measured(rows, source.about(data))


def _allocators(bench: Bench, text: str | None) -> list[str]:
    return bench.named("allocators", text or next(iter(bench.catalogue.allocators)))


def _check_kernel(algorithm: str | None) -> None:
    """Refuse before the data are taken."""
    if algorithm is not None:
        KernelZram()


@contextlib.contextmanager
def _sides(
    bench: Bench,
    data: Data,
    comp: str,
    allocators: Sequence[str],
    kernel_algorithm: str | None,
    size: int,
    workers: int = 1,
) -> Iterator[list[BlockSide]]:
    """Devices of `size` bytes with these allocators, with and without `workers`, the limit, and the kernel's."""
    with contextlib.ExitStack() as stack:
        kernel = stack.enter_context(kernel_zram(kernel_algorithm is not None))
        sides: list[BlockSide] = []
        for allocator in allocators:
            label = f"zramcore {comp}" if len(allocators) == 1 else f"zramcore {comp}, {allocator}"
            for count in (1, workers) if workers > 1 else (1,):
                side = OurSide(label, bench.catalogue, comp, allocator, data, size, count)
                stack.callback(side.close)
                sides.append(side)
        sides.append(LimitSide(bare_loop(bench.catalogue.compressors[comp], data)))
        if kernel is not None:
            kernel.start(kernel_algorithm or comp, size)
            sides.append(KernelSide(kernel, data))
        yield sides


@command.command("writeback")
@with_bench(3)
@with_source("256M")
@comp_option
@click.option("--driver", default="all", metavar="A,B,...", help="The backing drivers; `all` for every one.")
@click.option("--folder", type=click.Path(exists=True, file_okay=False), help="Where the backing files go.")
def writeback(bench: Bench, source: Source, comp: str | None, driver: str, folder: str | None) -> Measured:
    """Backing drivers: idle pages written back and read again, against plain O_DIRECT requests of 1 MiB."""
    names = choose_algorithms(bench.context, comp, ["lz4"])
    drivers = bench.named("backing_drivers", driver)
    size = max(source.size // MIB, 2) * MIB
    rows: list[Row] = []
    with _place(folder, size * (len(drivers) + 1)) as made:
        data = source.take(bench.tell, DISTINCT)
        for name in names:
            rows += backing.bench(bench.catalogue, drivers, name, data, size, made, bench.rounds, bench.tell)
    return Measured(rows, f"{size // MIB} MiB in {made.parent}, made of {source.about(data)}")


@contextlib.contextmanager
def _place(folder: str | None, size: int) -> Iterator[Path]:
    """A new folder in `folder`, or where `size` bytes have room; it is removed at the end."""
    place = folder or scratch_folder(size)
    with tempfile.TemporaryDirectory(prefix="zramcore-bench-", dir=place) as made:
        yield Path(made)


@command.command("latency")
@with_bench(3)
@with_source("256M")
@comp_option
@click.option("--driver", default="direct", show_default=True, metavar="A,B,...", help="The backing drivers.")
@click.option("--folder", type=click.Path(exists=True, file_okay=False), help="Where the backing files go.")
def latency_(bench: Bench, source: Source, comp: str | None, driver: str, folder: str | None) -> Measured:
    """Requests of 4 KiB by four threads, with and without a writeback pass under way."""
    names = choose_algorithms(bench.context, comp, ["lz4"])
    drivers = bench.named("backing_drivers", driver)
    size = max(source.size // MIB, 4) * MIB
    rows: list[Row] = []
    with _place(folder, size) as made:
        data = source.take(bench.tell, DISTINCT)
        for name in names:
            for each in drivers:
                rows += latency.bench(bench.catalogue, each, name, data, size, made, bench.rounds, bench.tell)
    return Measured(rows, f"{size // MIB} MiB in {made.parent}, made of {source.about(data)}")


def _slots(context: click.Context, parameter: click.Parameter, text: str) -> list[int]:
    counts = [read_size(context, parameter, word) // scans.RUN * scans.RUN for word in split_words(text)]
    if not all(counts):
        raise click.BadParameter(f"a table has {scans.RUN} slots or more")
    return counts


@command.command("scan")
@with_bench(7)
@click.option(
    "--slots",
    callback=_slots,
    default="1048576,26214400",
    show_default=True,
    metavar="N,M,...",
    help="Sizes of tables.",
)
@click.option("--allocated", type=click.IntRange(scans.RUN), default=1 << 20, show_default=True, help="Slots in use.")
@choice("layout", {layout: layout for layout in scans.LAYOUTS}, "Where they lie.")
@against_kernel
def scan(bench: Bench, slots: list[int], allocated: int, layout: list[str], kernel_algorithm: str | None) -> Measured:
    """Walks over the whole slot table: idle all, idle by age, the choice of candidates."""
    _check_kernel(kernel_algorithm)
    rows: list[Row] = []
    for size in slots:
        used = min(allocated, size) // scans.RUN * scans.RUN
        for where in layout if used < size else layout[:1]:
            with kernel_zram(kernel_algorithm is not None) as kernel:
                if kernel is not None:
                    kernel.start(kernel_algorithm or "lz4", size * PAGE)
                rows += scans.bench(bench.catalogue, size, used, where, kernel, bench.rounds, bench.tell)
    return Measured(rows, f"tables of which {allocated} slots are in use")


@command.command("nbd")
@with_bench(3)
@with_source("32M")
@comp_option
@choice("request", {show_size(size).lower(): size for size in devices.REQUESTS}, "Sizes of requests.")
@choice("depth", {"1": 1, "32": 32}, "Requests in flight.")
@click.option("--against", type=click.Choice(["nbdkit"]), help="Also nbdkit's memory plugin: zstd and malloc.")
def nbd_(
    bench: Bench, source: Source, comp: str | None, request: list[int], depth: list[int], against: str | None
) -> Measured:
    """The NBD server over a unix socket, one connection, and its memory."""
    chosen = choose_algorithms(bench.context, comp, ["lz4", "zstd"])
    servers = nbd.servers(chosen, peers=against is not None)
    data = source.take(bench.tell)
    limits = {name: LimitSide(bare_loop(bench.catalogue.compressors[name], data)) for name in chosen}
    rows = list(nbd.bench(servers, limits, data, request, depth, bench.rounds, bench.tell))
    return Measured(rows, source.about(data))
