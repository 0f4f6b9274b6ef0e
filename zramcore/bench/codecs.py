"""`bench codecs`: each compressor's batch calls, as a device makes them, against the bare loop over the same codec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ..interfaces import Buffer, Compressor, CompressorContext
from .data import PAGE, Data
from .loops import BareLoop
from .rounds import Contender, Job, Tell, labelled, take_turns
from .rows import Row, compare

BATCH = 256
"""Pages of a call: what a device hands over at once."""


def bench(compressors: Mapping[str, type[Compressor]], data: Data, rounds: int, tell: Tell) -> Iterator[Row]:
    """Rows for compressing and decompressing with each of these. Raises what a compressor says when it is set up."""
    loops = {name: BareLoop(compressor) for name, compressor in compressors.items()}
    objects = {name: loop.objects(data.pages) for name, loop in loops.items()}
    steps = -(-len(data.pages) // BATCH)
    for work in ("compress", "decompress"):
        groups = {
            name: [
                Contender(name, partial(_batch, loop.context(0), work, data.pages, objects[name])),
                Contender(loop.side, partial(_bare, loop, work, data.pages, objects[name]), role="limit"),
            ]
            for name, loop in loops.items()
        }
        contenders = [contender for group in groups.values() for contender in group]
        take_turns(contenders, steps, rounds, labelled(tell, work))
        for name, group in groups.items():
            rows = compare(work, PAGE, group, len(data.pages))
            rows[0].figures["ratio"] = data.size / sum(min(len(data), PAGE) for data in objects[name])
            yield from rows


def _batch(
    context: CompressorContext, work: str, pages: Sequence[Buffer], objects: Sequence[Buffer], step: int
) -> list[Job]:
    chosen = slice(step * BATCH, (step + 1) * BATCH)
    if work == "compress":
        return [partial(context.compress_pages, pages[chosen])]
    return [partial(context.decompress_pages, objects[chosen], PAGE)]


def _bare(loop: BareLoop, work: str, pages: Sequence[Buffer], objects: Sequence[Buffer], step: int) -> list[Job]:
    chosen = slice(step * BATCH, (step + 1) * BATCH)
    return [loop.job(0, pages[chosen], ()) if work == "compress" else loop.job(0, (), objects[chosen])]
