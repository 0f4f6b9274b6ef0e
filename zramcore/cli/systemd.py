"""`zramcore systemd install`: the unit of the daemon, with the user it runs as and the directories it uses."""

from __future__ import annotations

import os
import shlex
import sys
from importlib import resources
from pathlib import Path

import click

FILES = {
    "zramcore.service": "etc/systemd/system/zramcore.service",
    "zramcore-sysusers.conf": "etc/sysusers.d/zramcore.conf",
    "zramcore-tmpfiles.conf": "etc/tmpfiles.d/zramcore.conf",
    "zramcore.toml": "etc/zramcore/zramcore.toml",
}
"""Packaged file -> where it goes below the root."""
FOR_THE_KERNEL = {"kernel.conf": "etc/systemd/system/zramcore.service.d/kernel.conf"}
"""What is written too for devices of the kernel's zram."""
KEPT = ("zramcore.toml",)
"""Files that are the administrator's once they are there."""


@click.group("systemd")
def command() -> None:
    """Run the daemon as a systemd service."""


@command.command("install")
@click.option("--root", type=click.Path(path_type=Path), default=Path("/"), metavar="DIR", help="Write below DIR.")
@click.option("--program", metavar="PATH", help="The zramcore program the unit starts; default: this one.")
@click.option("--kernel", is_flag=True, help='Run it as root, for devices with target = "kernel".')
@click.option("--force", is_flag=True, help="Replace files that were changed.")
def install(root: Path, program: str | None, kernel: bool, force: bool) -> None:
    """Write the unit, the sysusers and tmpfiles files, and a config with nothing in it unless there is one.

    Nothing is started. Files that are there and different are not replaced without --force; the config never is.
    """
    files = {**FILES, **(FOR_THE_KERNEL if kernel else {})}
    texts = {name: _text(name, program or this_program()) for name in files}
    for name, place in files.items():
        path = root / place
        if name not in KEPT and not force and path.exists() and path.read_text() != texts[name]:
            raise click.ClickException(f"{path} exists and is different; --force replaces it")
    for name, place in files.items():
        path = root / place
        if name in KEPT and path.exists():
            click.echo(f"{path} (kept)")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[name])
        click.echo(path)
    if root == Path("/"):
        click.echo(
            "now: systemd-sysusers && systemd-tmpfiles --create zramcore.conf && systemctl daemon-reload && "
            "systemctl enable --now zramcore"
        )


def this_program() -> str:
    """The zramcore program beside the interpreter that runs, which a unit can start."""
    return os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "zramcore")


def _text(name: str, program: str) -> str:
    text = resources.files("zramcore").joinpath("data", name).read_text()
    # '%' and '$' mean something in a unit file
    quoted = shlex.quote(os.path.abspath(program)).replace("%", "%%").replace("$", "$$")
    return text.replace("@PROGRAM@", quoted)
