"""`zramcore run CONFIG`: a deployment in the foreground, with its policies, until SIGINT or SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click

from ..deployment import Deployment
from ..image import LoadCancelled
from ..policy_state import StateFile, default_state_file
from ..scheduler import Report, Scheduler
from .common import open_control, open_kernel
from .config import checked_config

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP too: a terminal that closes must not cost the image."""


@click.command("run")
@click.argument("config", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="One round of the policies that are due at the start, then shut down.")
@click.option(
    "--duration", type=click.FloatRange(min=0), metavar="SECONDS", help="Shut down by itself after this long."
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where daily budgets survive a restart; default: a file named after CONFIG in STATE_DIRECTORY, "
    "XDG_STATE_HOME/zramcore or /var/lib/zramcore (~/.local/state/zramcore).",
)
@click.option("-v", "--verbose", is_flag=True, help="Also print decisions to do nothing.")
@click.pass_context
def command(
    context: click.Context, config: Path, once: bool, duration: float | None, state: Path | None, verbose: bool
) -> None:
    """Bring the devices of CONFIG up, run their policies on their schedule, print what they decide.

    SIGINT or SIGTERM shuts down cleanly: policies stop, images are saved, devices are removed. Further signals
    during that are ignored: an image is replaced only when the new one is complete.
    """
    if once and duration is not None:
        raise click.UsageError("--once and --duration exclude each other")
    control, kernel = open_control(context), open_kernel()
    checked = checked_config(context, config, control)
    kept = StateFile(state or default_state_file(config))
    with stop_on_signals() as stop:
        try:
            deployment = Deployment.bring_up(checked, control, stop.is_set, kernel, state=kept)
        except LoadCancelled:
            click.echo("stopped before it was ready; images are untouched")
            return
        try:
            _operate(deployment, kept, stop, once, duration, verbose)
        finally:
            for deployed, stored in deployment.take_down():
                image = deployed.config.image
                click.echo(f"{deployed.label}: saved {image.save if image else ''}, {stored} bytes stored")
        click.echo("stopped")


def _operate(
    deployment: Deployment,
    kept: StateFile,
    stop: threading.Event,
    once: bool,
    duration: float | None,
    verbose: bool,
) -> None:
    """Say what is up and run the policies until it is time to stop."""

    def tell(report: Report) -> None:
        # a failure is a warning of the scheduler's log, and so on stderr already
        if not report.error and (verbose or report.writes):
            click.echo(report.decision())

    scheduler = Scheduler(on_report=tell, state=kept)
    policies = deployment.attach(scheduler)
    for deployed in deployment.devices:
        loaded = f", {deployed.loaded} bytes loaded" if deployed.loaded else ""
        click.echo(f"{deployed.label}: {deployed.disksize} bytes{loaded}")
        for line in deployed.lines():
            click.echo(f"{deployed.label}: {line}")
    devices = len(deployment.devices)
    click.echo(
        f"ready: {devices} device{'s' if devices != 1 else ''}, {policies} polic{'ies' if policies != 1 else 'y'}"
    )
    if once:
        scheduler.run_due()
        return
    scheduler.start()
    stop.wait(duration)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGNALS set; the handlers found are put back at the end."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        # In a thread of its own: the signal may have come while this one holds the event's lock.
        threading.Thread(target=stop.set).start()

    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals belong to the main thread
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
