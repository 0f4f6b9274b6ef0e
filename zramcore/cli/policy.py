"""`zramcore policy`: what policies would do: `simulate` on a trace; `example` makes a trace up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..bench.plot import require_matplotlib
from ..config import Config, DeviceConfig
from ..errors import InvalidValue
from ..simulation.compare import Comparison, Judged
from ..simulation.example import example
from ..simulation.reading import read_trace
from ..simulation.rehearsal import Rehearsal
from ..simulation.replay import COLUMNS, World
from ..simulation.sizes import MOST_SAMPLES, Samples, draw
from ..simulation.trace import SECOND, Trace, save_trace
from .client import human, json_option, show_json, table
from .common import complain, open_control
from .config import checked_config
from .corpus import Extent, Unreadable, file_extents, gather
from .gathering import read_optional_size, read_size
from .preview import preview
from .quantities import duration, read_time
from .trial import scratch_folder

PATH = click.Path(path_type=Path)
MEASURED = 64 << 20
"""Bytes of data that --sizes looks at, at most."""


@click.group("policy")
def command() -> None:
    """What policies would do: now (preview), or over a recorded time (simulate). docs/policies.md explains both."""


@command.command("example")
@click.option("-o", "--output", type=PATH, required=True, metavar="FILE", help="The trace to write.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same trace, anywhere.")
@click.option("--size", callback=read_size, default="64M", show_default=True, help="The device that is used.")
@click.option("--duration", "seconds", callback=read_time, default="7d", show_default=True, help="How long it lasts.")
@click.option(
    "--accesses", type=click.IntRange(min=0), default=200_000, show_default=True, help="About how many there are."
)
def example_command(output: Path, seed: int, size: int, seconds: float, accesses: int) -> None:
    """Make up a trace: a hot set that grows cold half way, one that grows hot, pages that come back slowly, cold ones.

    Everything is written in the first hour.
    """
    pages = -(-size // 4096)
    if seconds < 3 * 3600:
        raise InvalidValue(f"{seconds:g} s are too short for an example", hint="--duration 3h or more")
    if pages < 64:
        raise InvalidValue(f"{size} bytes are too small for an example", hint="--size 256K or more")
    trace = example(seed, pages, seconds / 86400, accesses)
    save_trace(trace, output)
    click.echo(f"{output}: {trace.accesses} accesses to {pages} pages in {duration(seconds)}")


@command.command("simulate")
@click.argument("trace_file", metavar="TRACE", type=PATH)
@click.argument("config", metavar="CONFIG", type=PATH)
@click.option("--device", "device_name", metavar="NAME", help="The device of CONFIG, where it has several.")
@click.option("--over", callback=read_time, metavar="TIME", help="Stretch the trace over this time.")
@click.option("--seed", type=int, default=1, show_default=True, help="Which compressed size each page gets.")
@click.option(
    "--sizes", type=PATH, multiple=True, metavar="PATH", help="Draw compressed sizes from these files or folders."
)
@click.option(
    "--ram", callback=read_optional_size, metavar="SIZE", help="Memory of the machine.  [default: twice the device]"
)
@click.option(
    "--others", callback=read_optional_size, metavar="SIZE", help="What others use of it.  [default: half of it]"
)
@click.option(
    "--latency",
    callback=read_time,
    default="100us",
    show_default=True,
    help="What reading a page back takes.",
)
@click.option("--plot", type=PATH, metavar="FILE", help="Draw memory, writes and re-reads over time (PNG, SVG or PDF).")
@click.option("-v", "--verbose", is_flag=True, help="Also print what each policy did, and its last decision.")
@json_option
@click.pass_context
def simulate(
    context: click.Context,
    trace_file: Path,
    config: Path,
    device_name: str | None,
    over: float | None,
    seed: int,
    sizes: tuple[Path, ...],
    ram: int | None,
    others: int | None,
    latency: float,
    plot: Path | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Replay TRACE on a virtual clock through the policies of CONFIG: each alone, then all of them together.

    TRACE: a recording (`zramcore record`), an iolog of fio (version 2 or 3), or the text of blkparse. The device is
    simulated: nothing is created or written. docs/policies.md explains the table.
    """
    if plot is not None:
        require_matplotlib()
    control = open_control(context)
    checked = checked_config(context, config, control)
    device = chosen_device(checked, device_name)
    rehearsal = Rehearsal(device, control.catalogue)
    trace = read_trace(trace_file).of_pages(device.page_size)
    if over is not None:
        trace = trace.stretched(over)
    elif not trace.end:
        raise InvalidValue(f"{trace_file} has no times", hint="say how long it took: --over 1h")
    samples = _measured(rehearsal, sizes) if sizes else rehearsal.samples()
    setup = rehearsal.setup(trace)
    ram = 2 * setup.nr_pages * setup.page_size if ram is None else ram
    world = World(ram, ram // 2 if others is None else others, latency)
    huge = rehearsal.pool().huge_class_size
    pages = draw(samples, trace, trace.nr_pages, seed, device.page_size, huge)
    per_day = device.target.writes_per_day or checked.writes_per_day
    comparison = Comparison(trace, setup, pages, rehearsal.pool, world, per_day)
    judged = list(comparison.run_all(device.policies, control.catalogue))
    if plot is not None:
        from ..simulation.plot import plot_outcomes

        plot_outcomes([each.outcome for each in judged], trace, plot)
    if as_json:
        show_json(_as_json(trace, device, judged))
        return
    click.echo(_headline(trace, device, rehearsal))
    for line in table(HEAD, [_row(each) for each in judged]):
        click.echo(line)
    for each in judged if verbose else ():
        for name, activity in each.outcome.activity.items():
            told = f"{activity.ticks} looks, {activity.rounds} rounds, {activity.stopped} stopped early"
            click.echo(f"{each.outcome.label}: {name}: {told}")
            if activity.last_decision:
                click.echo(f"  last: {activity.last_decision}")
    _report_failures(judged)


command.add_command(preview)


def chosen_device(config: Config, name: str | None) -> DeviceConfig:
    """The device to look at: the only one, or the one that was named. Raises InvalidValue (EINVAL)."""
    names = [device.name for device in config.devices]
    if name is None and len(names) == 1:
        return config.devices[0]
    for device in config.devices:
        if device.name == name:
            return device
    reason = f"{config.path} has {len(names)} devices" if name is None else f"{config.path} has no device {name!r}"
    raise InvalidValue(reason, hint=f"--device NAME, one of {', '.join(names) or 'none'}")


def _measured(rehearsal: Rehearsal, paths: Sequence[Path]) -> Samples:
    for path in paths:
        path.stat()

    def extents(unreadable: Unreadable) -> Iterable[Extent]:
        return file_extents(paths, unreadable)

    size = rehearsal.config.page_size
    with contextlib.closing(gather(extents, MEASURED, scratch_folder(0))) as corpus:
        whole = corpus.size // size

        def pages() -> Iterator[bytes]:
            for _, chunk in corpus.chunks():
                yield from (chunk[at : at + size] for at in range(0, len(chunk) - size + 1, size))

        step = max(1, -(-whole // MOST_SAMPLES))
        return rehearsal.measure(page for number, page in enumerate(pages()) if number % step == 0)


# The table ------------------------------------------------------------------------------------------------------------

HEAD = ("policy", "memory", "peak", "at end", "saved", "of best", "written", "a day", "re-reads", "waited")


def _headline(trace: Trace, device: DeviceConfig, rehearsal: Rehearsal) -> str:
    algorithms = ", ".join(name for _, name in rehearsal.algorithms)
    return (
        f"{trace.source}: {trace.accesses} accesses to {trace.nr_pages} pages in {duration(trace.end / SECOND)}; "
        f"{device.name}: {algorithms}"
    )


def _row(judged: Judged) -> list[str]:
    outcome = judged.outcome
    written = outcome.written * outcome.page_size
    per_day = written * 86400 / outcome.seconds
    return [
        outcome.label,
        human(outcome.mean_memory),
        human(outcome.peak),
        human(outcome.end_memory),
        f"{round(judged.saved, 4) + 0.0:.1%}",  # no "-0.0%"
        "-" if judged.of_best is None else f"{round(judged.of_best, 3) + 0.0:.0%}",
        human(written),
        human(per_day),
        str(outcome.rereads),
        f"{judged.waited:.2f} s",
    ]


def _as_json(trace: Trace, device: DeviceConfig, judged: Sequence[Judged]) -> dict[str, Any]:
    return {
        "trace": {
            "source": trace.source, "seconds": trace.end / SECOND, "accesses": trace.accesses,
            "pages": trace.nr_pages, "page_size": trace.page_size,
        },
        "device": device.name,
        "results": [
            {
                "policy": each.outcome.label,
                "mean_memory": each.outcome.mean_memory,
                "peak_memory": each.outcome.peak,
                "end_memory": each.outcome.end_memory,
                "saved": each.saved,
                "best": each.best,
                "written": each.outcome.written * each.outcome.page_size,
                "rereads": each.outcome.rereads,
                "waited": each.waited,
                "activity": {name: asdict(activity) for name, activity in each.outcome.activity.items()},
                "series": {
                    name: each.outcome.series[:, column].tolist() for column, name in enumerate(COLUMNS)
                },
            }
            for each in judged
        ],
    }  # fmt: skip


def _report_failures(judged: Sequence[Judged]) -> None:
    for each in judged:
        for name, activity in each.outcome.activity.items():
            if activity.failures:
                complain(f"{each.outcome.label}: {name} failed {activity.failures} times: {activity.first_failure}")
