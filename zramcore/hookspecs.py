"""The hooks of zramcore, for plugin authors. Hooks only register; everything rich or hot is a class of interfaces.py.

A plugin is a module (or object) named by an entry point of group ``zramcore`` whose functions carry ``hookimpl``::

    from zramcore.hookspecs import hookimpl

    @hookimpl
    def zramcore_compressors():
        return [MyCompressor]

No hook is ever called per page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from .interfaces import Allocator, BackingDriver, Compressor, WritebackPolicy

if TYPE_CHECKING:
    import click

PROJECT = "zramcore"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# Registration: called once, when the plugins are loaded -------------------------------------------------------------


@hookspec
def zramcore_compressors() -> Iterable[type[Compressor]]:  # type: ignore[empty-body]
    """The compressors this plugin offers, each under its ``name``."""


@hookspec
def zramcore_allocators() -> Iterable[type[Allocator]]:  # type: ignore[empty-body]
    """The allocators this plugin offers, each under its ``name``."""


@hookspec
def zramcore_backing_drivers() -> Iterable[type[BackingDriver]]:  # type: ignore[empty-body]
    """The backing drivers this plugin offers, each under its ``name``."""


@hookspec
def zramcore_policies() -> Iterable[type[WritebackPolicy]]:  # type: ignore[empty-body]
    """The policies this plugin offers, each under its ``name``."""


@hookspec
def zramcore_attributes() -> Sequence[Any]:  # type: ignore[empty-body]
    """Further device attributes: a sequence of ``zramcore.attributes.Attribute``."""


@hookspec
def zramcore_cli_commands() -> Sequence[click.Command]:  # type: ignore[empty-body]
    """Further commands for the ``zramcore`` command line."""


# Observers: called at events in a device's life; one that raises is logged with its plugin's name ---------------------


@hookspec
def zramcore_device_added(device: str) -> None:
    """A device exists now (hot_add). `device` is its name, e.g. ``zram0``."""


@hookspec
def zramcore_device_initialized(device: str, disksize: int) -> None:
    """disksize (bytes) was set: the device takes I/O."""


@hookspec
def zramcore_device_reset(device: str) -> None:
    """The device was reset: its data is gone."""


@hookspec
def zramcore_device_removed(device: str) -> None:
    """The device does not exist any more (hot_remove)."""


@hookspec
def zramcore_writeback_done(device: str, mode: str, pages: int, freed: int, error: str) -> None:
    """A writeback pass ended: `mode` as written to the attribute, pages written, bytes of memory freed, and the
    errno's name or an empty string."""


@hookspec
def zramcore_recompress_done(device: str, mode: str, pages: int, freed: int, error: str) -> None:
    """A recompression pass ended; the arguments are those of `zramcore_writeback_done`."""
