"""`bench latency`: what a request of 4 KiB takes while a writeback pass runs, and while none does.

Four threads read and write the first quarter of the device, in turn and at random; the pass writes the rest back. Both
phases of a round take as long, and every request is timed.
"""

from __future__ import annotations

import random
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter

from ..interfaces import Catalogue
from .backing import BackedDevice
from .data import PAGE, Data
from .rounds import Tell
from .rows import Row, ratio, spread

THREADS = 4
HOT = 4
"""One part in so many is what the threads use."""
TURN = 4096
"""Requests after which a thread starts its list again."""
QUIET, BUSY = "no pass", "during a pass"
PERCENTILES = (50, 99)


class Users:
    """Threads that use the hot part of a device until they are told to stop; how long each request took."""

    def __init__(self, device: BackedDevice) -> None:
        self.device = device.device
        self.pages = device.size // PAGE // HOT
        self.data = device.data

    def during(self, work: Callable[[], object]) -> list[float]:
        """The seconds of every request that ended while `work` ran. Raises what a request did."""
        stop = threading.Event()
        start = threading.Barrier(THREADS + 1)
        found: list[list[float]] = [[] for _ in range(THREADS)]
        failures: list[BaseException] = []

        def use(number: int) -> None:
            try:
                self._use(number, start, stop, found[number])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=use, args=(number,), name="bench") for number in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            try:
                start.wait()
            except BaseException:
                start.abort()  # not later: a thread that is slow to leave the barrier would find it broken
                raise
            work()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]
        return [seconds for each in found for seconds in each]

    def _use(self, number: int, start: threading.Barrier, stop: threading.Event, took: list[float]) -> None:
        chance = random.Random(number)
        plan = [(chance.randrange(self.pages) * PAGE, chance.choice(self.data.pages)) for _ in range(TURN)]
        pread, pwrite, stopped = self.device.pread, self.device.pwrite, stop.is_set
        start.wait()
        while True:  # a request each at least: a short pass may be over before a thread gets its turn
            for offset, page in plan:
                began = perf_counter()
                pread(offset, PAGE)
                read = perf_counter()
                pwrite(offset, page)
                took += (read - began, perf_counter() - read)
                if stopped():
                    return


def bench(
    catalogue: Catalogue, driver: str, comp: str, data: Data, size: int, folder: Path, rounds: int, tell: Tell
) -> Iterator[Row]:
    """Rows for the median and the 99th percentile, with and without a pass, on a device of `size` bytes."""
    found: dict[str, list[list[float]]] = {QUIET: [], BUSY: []}
    with closing(BackedDevice(catalogue, driver, comp, folder / driver, data, size)) as device:
        users = Users(device)
        cold = f"page_indexes={size // PAGE // HOT}-{size // PAGE - 1}"
        for number in range(rounds + 1):
            tell(f"round {number} of {rounds}" if number else "warming up")
            device.fill()
            began = perf_counter()
            busy = users.during(lambda: device.target.store("writeback", cold))
            duration = perf_counter() - began
            quiet = users.during(lambda: threading.Event().wait(duration))  # noqa: B023 - called before the next round
            if number:
                found[BUSY].append(busy)
                found[QUIET].append(quiet)
    for percentile in PERCENTILES:
        values = {
            side: [statistics.quantiles(times, n=100)[percentile - 1] for times in lists]
            for side, lists in found.items()
        }
        for side, times in values.items():
            against = ratio(values[QUIET], times)
            figures = {"times": 1 / against, "requests": float(sum(map(len, found[side])))}
            median = statistics.median(times) * 1e6
            label = f"zramcore {comp}, {driver}, {side}"
            yield Row(f"mixed, p{percentile}", PAGE, THREADS, label, median, spread(times), None, against, figures)
