"""`zramcore record`: who touches which page of a running device, in a file that `policy simulate` replays."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import BinaryIO

import click

from ..daemon.client import Client
from ..errors import NotSupported, ZramError
from ..interfaces import PolicyTarget
from ..simulation.recorder import Recorder
from .client import with_client
from .common import complain
from .quantities import duration, read_time
from .run import stop_on_signals
from .targets import find_target


@click.command("record")
@with_client
@click.argument("name", metavar="TARGET")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help="A new file.")
@click.option("--period", callback=read_time, default="10s", show_default=True, help="How often to look at the device.")
@click.option("--duration", "seconds", callback=read_time, metavar="TIME", help="End by itself after this long.")
def command(client: Client, name: str, output: Path, period: float, seconds: float | None) -> None:
    """Record the accesses to TARGET, until SIGINT or SIGTERM: a device of the daemon, or zramN of the kernel.

    Nothing is changed on the device: its block_state is read again and again. The kernel's is in debugfs, which root
    can read, where the kernel has CONFIG_ZRAM_MEMORY_TRACKING. docs/policies.md describes the file.
    """
    target = find_target(client, name)
    with stop_on_signals() as stop, open(output, "xb") as file:
        recorder = _begin(target, file, output, period)
        click.echo(f"recording {target.name} every {duration(period)}: {recorder.pages} pages at the start")
        _look_until(stop, recorder, period, seconds)
    click.echo(f"{output}: {recorder.accesses} accesses, {output.stat().st_size} bytes")


def _begin(target: PolicyTarget, file: BinaryIO, output: Path, period: float) -> Recorder:
    """A recorder; without one there is no file either."""
    try:
        return Recorder(target, file, period=period)
    except ZramError as error:
        output.unlink()
        if isinstance(error, NotSupported):
            error.hint += "; or record every request: blktrace -d /dev/zram0 -o - | blkparse -i - > FILE"
        raise


def _look_until(stop: threading.Event, recorder: Recorder, period: float, seconds: float | None) -> None:
    """Look every `period`, and once more at the end."""
    started = time.monotonic()
    end = None if seconds is None else started + seconds
    due = started
    while True:
        due = max(due + period, time.monotonic())
        wake = due if end is None else min(due, end)
        stopped = stop.wait(max(0.0, wake - time.monotonic()))
        try:
            recorder.look()
        except ZramError as error:
            if not recorder.accesses:
                raise
            complain(f"{error}; the recording ends here")
            return
        if stopped or (end is not None and time.monotonic() >= end):
            return
