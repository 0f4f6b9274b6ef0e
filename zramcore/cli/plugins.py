"""`zramcore plugins`: every plugin, where it comes from, what it offers, and what failed to load and why."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from ..attributes import ATTRIBUTES
from ..native import report
from ..pluginmanager import load_plugins
from ..pluginset import FAMILIES, Offer, PluginRow, PluginSet
from ..registry import build_catalogue

WIDTH = 100
"""Columns of the listing; only a single word longer than that (a path) goes beyond."""

_STATUS_ORDER = ("failed", "conflict", "disabled", "ok")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
@click.option("-v", "--verbose", is_flag=True, help="Also the file of each plugin, and tracebacks.")
@click.option(
    "--trial/--no-trial",
    default=True,
    help="Tell each observer once about a made-up device named `check`, to see whether it works (the default).",
)
@click.pass_context
def plugins(context: click.Context, as_json: bool, verbose: bool, trial: bool) -> None:
    """List every plugin: where it comes from, what it offers with its options, what failed to load and why; and whether
    the data path is compiled.

    Plugins that are not ok come first. The exit status is 0 also when there are such.
    """
    loaded = context.find_object(PluginSet) or load_plugins()
    native = report(build_catalogue(loaded))
    loaded.reserve("attributes", ATTRIBUTES)
    if trial:
        loaded.try_observers()
    rows = sorted(loaded.rows, key=lambda row: _STATUS_ORDER.index(row.status))
    if as_json:
        path = {"compiled": not native.reason, **asdict(native)}
        click.echo(json.dumps({"plugins": [_as_dict(row) for row in rows], "data_path": path}, indent=2))
        return
    for row in rows:
        for line in _lines(row, verbose):
            click.echo(line)
    for line in _wrapped(str(native), 3):
        click.echo(line)
    counts = ", ".join(
        f"{number} {status}"
        for status in reversed(_STATUS_ORDER)
        if (number := [row.status for row in rows].count(status))
    )
    click.echo(f"{len(rows)} plugins: {counts}" if rows else "no plugins are installed, not even zramcore's own")


command = plugins


def _lines(row: PluginRow, verbose: bool) -> Iterator[str]:
    """One plugin as text: a heading, its reason, and a line for each thing it offers."""
    mark = row.status if row.status == "ok" else row.status.upper()
    yield from _wrapped(f"{mark:<9}{row.label}  {row.entry_point}", 9)
    if verbose and row.file:
        yield from _wrapped(f"from {row.file}", 9, first=9)
    if row.reason:
        yield from _wrapped(row.reason, 9, first=9)
    for warning in row.warnings:
        yield from _wrapped(f"warning: {warning}", 9, first=9)
    for offer in row.offers:
        refused = " (refused)" if offer.error is not None else ""
        yield from _wrapped(
            f"{FAMILIES[offer.family]} {offer.name}{refused}: {offer.summary}".rstrip(": "), 15, first=11
        )
        for option in offer.options:
            yield from _wrapped(f"{option.name}={option.default}  {option.help}", 19, first=15)
    if row.observes:
        yield from _wrapped(f"observes {', '.join(row.observes)}", 15, first=11)
    if verbose and row.traceback:
        yield from (f"{'':11}{line}" for line in row.traceback.rstrip().splitlines())


def _wrapped(text: str, indent: int, *, first: int = 0) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _as_dict(row: PluginRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "distribution": row.distribution,
        "version": row.version,
        "entry_point": row.entry_point,
        "file": row.file,
        "status": row.status,
        "reason": row.reason,
        "errors": [type(error).__name__ for error in row.problems],
        "warnings": row.warnings,
        "provides": [_offer_as_dict(offer) for offer in row.provides],
        "refused": [_offer_as_dict(offer) for offer in row.offers if offer.error is not None],
        "observes": list(row.observes),
        "observer_errors": row.observer_errors,
        "last_observer_error": row.last_observer_error,
        "traceback": row.traceback,
    }


def _offer_as_dict(offer: Offer) -> dict[str, Any]:
    found: dict[str, Any] = {
        "family": offer.family,
        "name": offer.name,
        "summary": offer.summary,
        "options": [{"name": option.name, "default": option.default, "help": option.help} for option in offer.options],
    }
    if offer.error is not None:
        found["reason"] = offer.error.reason
    return found
