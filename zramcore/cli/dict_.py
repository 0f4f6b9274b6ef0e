"""`zramcore dict train`: a zstd dictionary from your own data, and how much it helps."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from ..device import PAGE_SIZES
from ..dictionary import LEAST_SIZE, Measure, Sampler, measure, train
from ..parse import memparse_rest
from .common import catalogue_of, complain
from .corpus import file_extents


def _size(context: click.Context, parameter: click.Parameter, text: str) -> int:
    size, rest = memparse_rest(text)
    if rest or size < LEAST_SIZE:
        raise click.BadParameter(f"{text!r} is not a size of {LEAST_SIZE} bytes or more, such as 65536 or 64K")
    return size


@click.group("dict")
def command() -> None:
    """Make dictionaries for algorithm_params."""


@command.command("train")
@click.argument("data", metavar="DATA...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the dictionary here.",
)
@click.option("--size", callback=_size, default="64K", show_default=True, help="At most this large.")
@click.option(
    "--page-size",
    type=click.Choice([str(size) for size in PAGE_SIZES]),
    default="4096",
    show_default=True,
    help="The device's pages, in bytes.",
)
@click.option("--level", type=int, default=3, show_default=True, help="The zstd level it is to be used with.")
@click.pass_context
def train_command(
    context: click.Context, data: tuple[Path, ...], output: Path, size: int, page_size: str, level: int
) -> None:
    """Train a zstd dictionary on the pages of DATA (files and folders), and measure what it gains.

    One page of eight is held out: those are written to a device without the dictionary and to one with it. Give data
    like what the device will hold. docs/dict.md says how to use the dictionary.
    """
    for path in data:
        path.stat()  # one that does not exist is a mistake; one that cannot be read is left out later
    sampler = Sampler(size, int(page_size))
    files = _sample(sampler, data)
    dictionary = train(sampler, level)
    pages = sampler.held_out.pages()
    catalogue = catalogue_of(context)
    without, with_it = (
        measure(catalogue, pages, page_size=int(page_size), level=level, dictionary=given)
        for given in (None, dictionary)
    )
    _write(output, dictionary)
    click.echo(
        f"{click.format_filename(output)}: {len(dictionary)} bytes, trained on {len(sampler.train)} of "
        f"{sampler.pages_seen} pages ({sampler.same_filled} same-filled) from {files} files"
    )
    click.echo(f"{len(pages)} pages that were held out, zstd level {level}:")
    click.echo(_row("without the dictionary", without))
    click.echo(_row("with it", with_it))
    change = 100 * (1 - with_it.compr_data_size / without.compr_data_size)
    if change > 0:
        click.echo(f"The dictionary makes them {change:.1f} % smaller.")
    else:
        click.echo(f"The dictionary makes them {abs(change):.1f} % larger: do not use it for data like these.")


def _sample(sampler: Sampler, data: tuple[Path, ...]) -> int:
    """Read everything; returns the number of files. What cannot be read is named on stderr."""
    files = 0
    for name, pieces in file_extents(data, _left_out):
        try:
            for piece in pieces:
                sampler.add(piece)
        except OSError as error:
            _left_out(name, error)
        else:
            files += 1
    return files


def _left_out(name: str, error: OSError) -> None:
    complain(f"left out {click.format_filename(name)}: {error.strerror or type(error).__name__}")


def _row(label: str, figures: Measure) -> str:
    return f"  {label:<24} {figures.compr_data_size:>10} bytes, ratio {figures.ratio:.3f}"


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing: an interrupted run leaves an older dictionary as it was."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
