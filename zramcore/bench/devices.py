"""`bench device`: requests of several sizes, in order and not, on zramcore devices, the kernel's, and the bare codec.

Each number of threads works on a region of its own, of the size of the data: with one device for all (the kernel has
one /dev/zram0) they can still take turns step by step. Every page is checked after the last work of a request size.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial

from ..errors import DeviceIOError
from .block import BlockSide, Request
from .data import MIB, PAGE, Data
from .rounds import Contender, Job, Tell, labelled, take_turns
from .rows import Row, compare, gains

STEP = 4 * MIB
"""Bytes of a turn: long against what handing it to threads takes, short against what disturbs a machine."""
WORKS = ("write", "overwrite", "read", "mixed")
"""`write` is into an empty device, `mixed` reads and overwrites in turn."""
ORDERS = ("sequential", "random")
REQUESTS = (MIB, 64 << 10, 4 << 10)


class Course:
    """The works of one request size and order, one after the other on the same regions."""

    def __init__(
        self, sides: Sequence[BlockSide], data: Data, order: str, request: int, threads: Sequence[int]
    ) -> None:
        self.sides = sides
        self.data = data
        self.order = order
        self.request = request
        self.units = list(range(data.size // request))
        if order == "random":
            random.Random(request).shuffle(self.units)
        self.per_step = min(STEP, data.size) // request
        self.steps = -(-len(self.units) // self.per_step)
        self.threads = threads
        self.holds = [unit * request for unit in range(len(self.units))]
        self.shift = 0

    def run(self, works: Sequence[str], rounds: int, tell: Tell) -> Iterator[Row]:
        """The rows of these works. Raises DeviceIOError (EIO) when a side does not hold what was written."""
        if works[0] != "write":
            self._fill()
        for work in works:
            name = f"{self.order} {work}"
            contenders = [
                Contender(
                    side.side,
                    partial(self._plan, side, place * self.data.size, 1 if side.workers > 1 else count, work),
                    threads=count,
                    begin=partial(self._begin, side, place * self.data.size, work, first=not (index or place)),
                    base=side.base or side.side,
                    role=side.role,
                )
                for index, side in enumerate(self.sides)
                for place, count in self._places(side)
            ]
            take_turns(contenders, self.steps, rounds, labelled(tell, name))
            yield from compare(name, self.request, contenders, self.data.size // PAGE)
            yield from gains(name, self.request, contenders)
        self._verify()

    def _places(self, side: BlockSide) -> list[tuple[int, int]]:
        """The regions that a side uses, with the number of threads at work there."""
        alone = side.workers == 1
        if not alone and self.request == PAGE:
            return []  # a single page is not shared out
        return [(place, count) for place, count in enumerate(self.threads) if alone or count == side.workers]

    def _begin(self, side: BlockSide, base: int, work: str, number: int, *, first: bool) -> None:
        """Before a round: where writes go on; each overwrite brings other pages than are there."""
        if first:
            self.shift = (self.shift + MIB) % self.data.size
        if work == "write":
            side.discard(base, self.data.size)

    def _requests(self, work: str, step: int) -> list[Request]:
        units = self.units[step * self.per_step : (step + 1) * self.per_step]
        made = []
        for position, unit in enumerate(units):
            write = work != "read" and (work != "mixed" or bool(position % 2))
            offset = unit * self.request
            if write:
                self.holds[unit] = (offset + self.shift) % self.data.size
            made.append(Request(offset, self.request, self.holds[unit], write))
        return made

    def _plan(self, side: BlockSide, base: int, threads: int, work: str, step: int) -> list[Job]:
        requests = self._requests(work, step)
        bounds = [len(requests) * part // threads for part in range(threads + 1)]
        return [side.job(part, base, requests[bounds[part] : bounds[part + 1]]) for part in range(threads)]

    def _fill(self) -> None:
        everything = [Request(start, MIB, start, True) for start in range(0, self.data.size, MIB)]
        for side in self.sides:
            for place, _ in self._places(side):
                side.job(0, place * self.data.size, everything)()

    def _verify(self) -> None:
        for side in self.sides:
            for place, _ in self._places(side):
                for unit, start in enumerate(self.holds):
                    offset = place * self.data.size + unit * self.request
                    found = side.read(offset, self.request)
                    if found is None:
                        break
                    if found != self.data.view[start : start + self.request]:
                        raise DeviceIOError(f"{side.side} does not hold at byte {offset} what was written there")


def bench(
    sides: Sequence[BlockSide],
    data: Data,
    *,
    works: Sequence[str],
    orders: Sequence[str],
    requests: Sequence[int],
    threads: Sequence[int],
    rounds: int,
    tell: Tell,
) -> Iterator[Row]:
    """The rows, work by work. The devices among the sides have `len(threads)` times the size of the data."""
    for order in orders:
        for request in requests:
            yield from Course(sides, data, order, request, threads).run(works, rounds, tell)
