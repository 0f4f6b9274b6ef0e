"""`zramcore daemon`: devices, policies, NBD and the control API in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import click

from ..config import DaemonConfig, absolute_listener
from ..daemon import logs
from ..daemon.sockets import VARIABLE, default_socket
from ..policy_state import default_state_file
from .common import open_control, open_kernel

FILE = click.Path(path_type=Path)
NEEDED = ("waitress", "prometheus_client")
"""Packages of the extra `serve`."""


@click.command("daemon")
@click.option("--config", type=FILE, metavar="FILE", help="The deployment to bring up; SIGHUP reads it again.")
@click.option(
    "--socket", "socket_path", envvar=VARIABLE, metavar="PATH", help="The control socket; default: as for clients."
)
@click.option(
    "--socket-group", metavar="GROUP", help="Members of GROUP may use the control socket (mode 0660, not 0600)."
)
@click.option("--nbd", multiple=True, metavar="ADDRESS", help="Serve NBD on unix:PATH or tcp:HOST:PORT; repeatable.")
@click.option("--nbd-certificate", type=FILE, metavar="FILE", help="Serve NBD with TLS: the certificate chain, PEM.")
@click.option("--nbd-key", type=FILE, metavar="FILE", help="Its private key; default: in the same file.")
@click.option("--nbd-client-ca", type=FILE, metavar="FILE", help="Clients need a certificate that one of these signed.")
@click.option("--http", metavar="tcp:HOST:PORT", help="Serve the control API over TCP too; needs --token-file.")
@click.option("--token-file", type=FILE, metavar="FILE", help="The bearer token of the API over TCP; mode 0600.")
@click.option(
    "--state",
    type=FILE,
    metavar="FILE",
    help="Where daily budgets survive a restart; default: a file named after the config in STATE_DIRECTORY, "
    "XDG_STATE_HOME/zramcore or /var/lib/zramcore (~/.local/state/zramcore).",
)
@click.option("-v", "--verbose", is_flag=True, help="Also log the decisions of policies to do nothing.")
@click.pass_context
def command(
    context: click.Context,
    config: Path | None,
    socket_path: str | None,
    socket_group: str | None,
    nbd: tuple[str, ...],
    nbd_certificate: Path | None,
    nbd_key: Path | None,
    nbd_client_ca: Path | None,
    http: str | None,
    token_file: Path | None,
    state: Path | None,
    verbose: bool,
) -> None:
    """Hold devices, run their policies, serve NBD and the control API; in the foreground, one log line an event.

    SIGTERM and SIGINT stop it cleanly: NBD clients are answered and disconnected, images are saved, devices removed.
    SIGHUP reads the config again, changes what can be changed live and says why it refuses the rest. Options stand
    above the [daemon] table of the config. `zramcore systemd install` writes a unit for it.
    """
    for needed in NEEDED:
        if importlib.util.find_spec(needed) is None:
            raise click.ClickException(f"the daemon needs {needed}: pip install 'zramcore[serve]'")
    service = importlib.import_module("zramcore.daemon.service")
    directory = Path.cwd()
    place = socket_path or default_socket()
    options = service.Options(
        socket=place,
        config=None if config is None else directory / config,
        socket_group=socket_group,
        daemon=DaemonConfig(
            tuple(absolute_listener(spec, directory) for spec in nbd), nbd_certificate, nbd_key, nbd_client_ca
        ),
        http=http,
        token_file=token_file,
        state=state or default_state_file(Path(place) if config is None else config),
    )
    control = open_control(context)
    with logs.structured(sys.stderr, verbose):
        status = service.Service(control, options, open_kernel()).run()
    sys.stderr.flush()
    if status:
        context.exit(status)
