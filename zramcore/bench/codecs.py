"""`bench codecs`: each compressor's batch calls, as a device makes them, against the bare loop over the same codec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ..interfaces import Buffer, Compressor
from .data import PAGE, Data
from .loops import BATCH, BareLoop, bare_loop
from .rounds import Contender, Job, Tell, labelled, take_turns
from .rows import Row, compare


def bench(compressors: Mapping[str, type[Compressor]], data: Data, rounds: int, tell: Tell) -> Iterator[Row]:
    """Rows for compressing and decompressing with each of these. Raises what a compressor says when it is set up."""
    loops = {name: bare_loop(compressor, data) for name, compressor in compressors.items()}
    numbers = range(len(data.pages))
    steps = -(-len(numbers) // BATCH)
    for work in ("compress", "decompress"):
        groups = {
            name: [
                Contender(name, partial(_batch, loop, work, data.pages)),
                Contender(loop.side, partial(_bare, loop, work, numbers), role="limit"),
            ]
            for name, loop in loops.items()
        }
        contenders = [contender for group in groups.values() for contender in group]
        take_turns(contenders, steps, rounds, labelled(tell, work))
        for name, group in groups.items():
            rows = compare(work, PAGE, group, len(numbers))
            rows[0].figures["ratio"] = loops[name].ratio()
            yield from rows


def _batch(loop: BareLoop, work: str, pages: Sequence[Buffer], step: int) -> list[Job]:
    context = loop.contexts.of(0)
    chosen = slice(step * BATCH, (step + 1) * BATCH)
    if work == "compress":
        return [partial(context.compress_pages, pages[chosen])]
    return [partial(context.decompress_pages, loop.objects[chosen], PAGE)]


def _bare(loop: BareLoop, work: str, numbers: Sequence[int], step: int) -> list[Job]:
    chosen = numbers[step * BATCH : (step + 1) * BATCH]
    return [loop.job(0, chosen, ()) if work == "compress" else loop.job(0, (), chosen)]
