"""`zramcore try`: what zram with idle and huge page writeback does with real data, one table row per algorithm."""

from __future__ import annotations

import contextlib
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .common import EXIT_ERROR, complain, open_control
from .completion import complete_algorithms
from .corpus import Corpus, Extent, Unreadable, file_extents, gather, python_installation
from .gathering import choose_algorithms, read_size, report_unreadable, status_line
from .process import process_extents
from .trial import PHASES, Progress, Result, run_trial, scratch_folder

DEFAULT_ALGORITHMS = ("lzo-rle", "lz4", "zstd")
"""What is tried when --comp does not say, as far as it is installed: the defaults of kernels and distributions."""
WIDTH = 80


@click.command("try")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--pid", type=click.IntRange(min=1), metavar="PID", help="Also (or only) the memory of this process.")
@click.option(
    "--comp",
    metavar="A,B,...",
    shell_complete=complete_algorithms,
    help=f"The algorithms, `all` for every one installed.  [default: {', '.join(DEFAULT_ALGORITHMS)}, as installed]",
)
@click.option(
    "--size", callback=read_size, default="256M", show_default=True, help="At most this much data, from the start."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
@click.pass_context
def command(
    context: click.Context, paths: tuple[Path, ...], pid: int | None, comp: str | None, size: int, as_json: bool
) -> None:
    """Show what zram does with your data: files, folders, a process's memory, or this Python installation.

    For each algorithm a device is filled with the data, all pages are marked idle, a quarter of them is read again,
    idle and huge pages are written back to a temporary file, and every byte is compared. The exit status is 1 when
    anything came back different. docs/try.md explains the table.
    """
    algorithms = choose_algorithms(context, comp, DEFAULT_ALGORITHMS)
    for path in paths:
        path.stat()  # one that does not exist is a mistake; one that cannot be read is left out later
    folder = scratch_folder(0)
    sources = list(paths) or ([] if pid else python_installation())

    def extents(unreadable: Unreadable) -> Iterator[Extent]:
        if pid:
            yield from process_extents(pid)  # first, so that its pages stay pages
        yield from file_extents(sources, unreadable)

    with status_line() as tell:
        gathered = gather(extents, size, folder, lambda taken: tell(f"taking the data: {taken >> 20} MiB"))
    with contextlib.closing(gathered) as corpus:
        report_unreadable(corpus)
        folder = scratch_folder(corpus.size)
        control = open_control(context)
        with _progress_bar(corpus.size * PHASES * len(algorithms)) as advance:
            results = [run_trial(control, name, corpus, folder, advance) for name in algorithms]
        if as_json:
            click.echo(json.dumps(_as_json(corpus, results), indent=2))
        else:
            _print(_source_line(corpus, paths, pid), results)
    for result in results:
        if not result.verified:
            complain(
                f"{result.comp_algorithm}: {len(result.different)} of {len(corpus.digests)} MiB did not come back as "
                f"they were written, the first at byte {result.different[0]}"
            )
    if not all(result.verified for result in results):
        context.exit(EXIT_ERROR)


@contextlib.contextmanager
def _progress_bar(length: int) -> Iterator[Progress]:
    """A bar on stderr when that is a terminal, otherwise nothing."""
    if not sys.stderr.isatty():
        yield lambda what, done: None
        return
    with click.progressbar(length=length, file=sys.stderr, width=24) as bar:

        def tell(what: str, done: int) -> None:
            bar.label = what.ljust(22)
            bar.update(done)
            if not done:
                bar.render_progress()

        yield tell


# Output ---------------------------------------------------------------------------------------------------------------


def _as_json(corpus: Corpus, results: Sequence[Result]) -> dict[str, Any]:
    return {
        "verified": all(result.verified for result in results),
        "data_size": corpus.size,
        "padding": corpus.padding,
        "truncated": corpus.truncated,
        "unreadable": len(corpus.unreadable),
        "results": [
            {
                key: round(value, 3) if isinstance(value, float) else value
                for key, value in {**asdict(result), "verified": result.verified}.items()
            }
            for result in results
        ],
    }


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}\N{NO-BREAK SPACE}MiB"


def _source_line(corpus: Corpus, paths: Sequence[Path], pid: int | None) -> str:
    """What was tried, in a sentence."""
    names = [f"the memory of process {pid}"] if pid else []
    names += [click.format_filename(path) for path in paths]
    if len(names) > 3:
        names = [*names[:2], f"{len(names) - 2} more"]
    rest = "; the rest is left out, --size sets the limit" if corpus.truncated else ""
    return f"data: {_mib(corpus.size)} from {', '.join(names) or 'this Python installation'}{rest}"


HEADINGS = (("", "ratio", "same-", "huge", "memory", "freed by", "write", "read"),
            ("", "", "filled", "", "used", "writeback", "MiB/s", "MiB/s"))  # fmt: skip


def _print(source: str, results: Sequence[Result]) -> None:
    """The table, and a sentence for each algorithm."""
    click.echo(_wrap(source))
    click.echo()
    for row in (*HEADINGS, *(_row(result) for result in results)):
        name, ratio, same, huge, used, freed, write, read = row
        line = f"{name:<12} {ratio:>6} {same:>7} {huge:>7} {used:>11} {freed:>11} {write:>7} {read:>7}"
        click.echo(_plain(line.rstrip()))
    click.echo()
    for result in results:
        end = "every byte verified" if result.verified else "DATA CAME BACK DIFFERENT"
        click.echo(
            _wrap(
                f"{result.comp_algorithm}: {_mib(result.orig_data_size)} of data took {_mib(result.mem_used_total)}; "
                f"writeback of idle and huge pages freed {_mib(result.freed_by_writeback)} of that; {end}"
            )
        )


def _row(result: Result) -> tuple[str, ...]:
    name = result.comp_algorithm
    pages = result.orig_data_size // 4096
    used = result.mem_used_total
    return (
        name if len(name) <= 12 else f"{name[:11]}…",
        f"{result.orig_data_size / used:.2f}" if used else "-",
        f"{100 * result.same_pages / pages:.1f} %",
        f"{100 * result.huge_pages / pages:.1f} %",
        _mib(used),
        _mib(result.freed_by_writeback),
        _speed(result.write_us_per_page),
        _speed(result.read_us_per_page),
    )


def _speed(us_per_page: float) -> str:
    """MiB a second: 256 pages of 4 KiB are 1 MiB."""
    return f"{1e6 / (256 * us_per_page):.0f}" if us_per_page else "-"


def _wrap(text: str) -> str:
    lines = textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return _plain(lines)


def _plain(text: str) -> str:
    """The no-break spaces between numbers and units have done their work when lines are broken."""
    return text.replace("\N{NO-BREAK SPACE}", " ")
