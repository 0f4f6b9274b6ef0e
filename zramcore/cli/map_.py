"""`zramcore map`: the slots of a device as a picture, in the terminal or as PNG; a cell stands for a group of slots."""

from __future__ import annotations

import math
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..daemon.client import Client
from .client import device_argument, json_option, show_json, with_client

LOOK = {
    "empty": (".", (38, 38, 38)),
    "same": ("s", (95, 135, 175)),
    "compressed": ("c", (95, 175, 95)),
    "huge": ("H", (215, 95, 95)),
    "idle": ("i", (215, 175, 95)),
    "written_back": ("w", (135, 95, 175)),
}
"""A state's letter where there is no colour, and its colour (red, green, blue)."""
GRID = (18, 18, 18)
"""The colour between two cells of a PNG, and behind those past the end."""
MOST_CELLS = 1 << 16


def dominant(counts: Sequence[int], states: Sequence[str]) -> str:
    """What a cell is drawn as: the state that most of its slots are in; empty only when all of them are."""
    stored = max(range(1, len(states)), key=lambda index: counts[index])
    return states[stored] if counts[stored] else states[0]


def png(rows: Sequence[Sequence[tuple[int, int, int]]], scale: int) -> bytes:
    """A PNG (8-bit RGB, ISO/IEC 15948) of cells of `scale` pixels, the last of them a grid line when there is room."""
    line = 1 if scale > 3 else 0
    data = bytearray()
    for row in rows:
        filled = b"".join(bytes(colour) * (scale - line) + bytes(GRID) * line for colour in row)
        data += (b"\0" + filled) * (scale - line)
        data += (b"\0" + bytes(GRID) * (len(row) * scale)) * line

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", len(rows[0]) * scale, len(rows) * scale, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(data), 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@click.command("map")
@with_client
@device_argument
@click.option("--png", "png_file", type=click.Path(path_type=Path), metavar="FILE", help="Write a PNG picture to FILE.")
@click.option("--cells", type=click.IntRange(1, MOST_CELLS), metavar="N", help="Draw N cells; default: what fits.")
@click.option("--color/--no-color", default=None, help="Colours or letters; default: colours on a terminal.")
@json_option
def command(
    client: Client, name: str, png_file: Path | None, cells: int | None, color: bool | None, as_json: bool
) -> None:
    """Draw the slots of a device: what is empty, same-filled, compressed, huge, idle, written back.

    A cell stands for a group of neighbouring slots and shows what most of those that hold something are. A slot is
    drawn as the last of these states that applies.
    """
    width, height = shutil.get_terminal_size()
    drawn = client.slot_map(name, cells or (4096 if png_file else max(width * max(height - 4, 1), 1)))
    if png_file is not None:
        png_file.write_bytes(_picture(drawn))
    if as_json:
        show_json(drawn)
    elif png_file is None:
        if color is None:
            color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        for line in _terminal(drawn, width, color):
            click.echo(line, color=color)
    if not as_json:
        click.echo(_summary(drawn))


def _picture(drawn: dict[str, Any]) -> bytes:
    cells = [LOOK[dominant(counts, drawn["states"])][1] for counts in drawn["counts"]]
    side = math.ceil(math.sqrt(len(cells)))
    rows = [cells[start : start + side] for start in range(0, len(cells), side)]
    rows[-1] = rows[-1] + [GRID] * (side - len(rows[-1]))
    return png(rows, max(1, min(16, 1024 // side)))


def _terminal(drawn: dict[str, Any], width: int, color: bool) -> list[str]:
    states = [dominant(counts, drawn["states"]) for counts in drawn["counts"]]
    lines = [states[start : start + width] for start in range(0, len(states), width)]
    legend = "  ".join(_mark(state, color) + " " + state.replace("_", " ") for state in LOOK)
    return ["".join(_mark(state, color) for state in line) for line in lines] + ["", legend]


def _mark(state: str, color: bool) -> str:
    letter, colour = LOOK[state]
    return click.style(" ", bg=colour) if color else letter


def _summary(drawn: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in drawn["totals"].items() if count)
    per_cell = drawn["slots_per_cell"]
    return (
        f"{drawn['slots']} slots, {per_cell} a cell: {counts}" if per_cell > 1 else f"{drawn['slots']} slots: {counts}"
    )
