"""Sides take turns at the same work, so that all meet the same noise: the times they spent, round by round.

A round goes through the work in steps; in each step every side does its part before the next step begins, and the order
changes from step to step. The first round warms up (memory is mapped, caches and branch predictors are filled) and is
dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from queue import SimpleQueue
from time import perf_counter
from types import TracebackType

Job = Callable[[], object]
Tell = Callable[[str], None]
"""Told what is being done, for whoever waits."""


def labelled(tell: Tell, label: str) -> Tell:
    """`tell`, with what is measured in front."""
    return lambda what: tell(f"{label}: {what}")


def _nothing(number: int) -> None:
    """What a contender does that has nothing to prepare."""


@dataclass
class Contender:
    """A side at a work. `plan` gives the jobs of a step, one for each thread that is to work; only they are timed.

    `begin` is called before each round with its number (0 warms up), `done` after each step.
    """

    side: str
    plan: Callable[[int], Sequence[Job]]
    threads: int = 1
    begin: Callable[[int], object] = _nothing
    done: Callable[[int], object] = _nothing
    base: str = ""
    """What it is with one thread, where that is another side: gains are told against it."""
    role: str = "ours"
    """"kernel" and "limit" are what the others are compared with, at the same number of threads."""
    seconds: list[float] = field(default_factory=list)
    """What it took, for each round."""


def in_one(
    side: str, job: Job, *, role: str = "ours", before: Job | None = None, after: Job | None = None
) -> Contender:
    """A contender whose round is a single job; what comes `before` and `after` it is not timed."""
    return Contender(
        side,
        lambda step: [job],
        begin=lambda number: before and before(),
        done=lambda step: after and after(),
        role=role,
    )


def take_turns(contenders: Sequence[Contender], steps: int, rounds: int, tell: Tell = lambda what: None) -> None:
    """Run `rounds` rounds after the one that warms up, and append to the `seconds` of each contender."""
    with Crew() as crew:
        for number in range(rounds + 1):
            tell(f"round {number} of {rounds}" if number else "warming up")
            for contender in contenders:
                contender.begin(number)
            spent = [0.0] * len(contenders)
            for step in range(steps):
                for turn in range(len(contenders)):
                    index = (turn + step + number) % len(contenders)
                    jobs = contenders[index].plan(step)
                    spent[index] += crew.time(jobs)
                    contenders[index].done(step)
            if number:
                for contender, seconds in zip(contenders, spent, strict=True):
                    contender.seconds.append(seconds)


class Crew(AbstractContextManager["Crew"]):
    """Threads that wait for jobs: starting one takes as long as several requests."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._results: SimpleQueue[BaseException | None] = SimpleQueue()

    def time(self, jobs: Sequence[Job]) -> float:
        """Seconds that the jobs take side by side, the first in the calling thread. Raises what one of them does."""
        others = jobs[1:]
        while len(self._threads) < len(others):
            thread = threading.Thread(target=self._work, name="bench")
            self._threads.append(thread)
            thread.start()
        failures = []
        start = perf_counter()
        for job in others:
            self._jobs.put(job)
        try:
            jobs[0]()
        finally:
            failures = [self._results.get() for _ in others]
        seconds = perf_counter() - start
        for failure in failures:
            if failure is not None:
                raise failure
        return seconds

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:
                self._results.put(error)
            else:
                self._results.put(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
