"""Combiner: calls that come while one is under way are carried out together, each with its own results."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from zramcore.nbd.combining import Combiner

PATIENCE = 20.0


class Gated:
    """A `carry_out` that squares; its first call waits for `gate`, and those of a bad item end before it."""

    def __init__(self, bad: Sequence[int] = ()) -> None:
        self.bad = bad
        self.batches: list[list[int]] = []
        self.entered, self.gate = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        if len(self.batches) == 1:
            self.entered.set()
            assert self.gate.wait(PATIENCE)
        found = []
        for item in items:
            if item in self.bad:
                break
            if item < 0:
                raise RuntimeError(str(item))
            found.append(item * item)
        return found


def queued(gated: Gated, combiner: Combiner[int, int], calls: Sequence[Sequence[int]]) -> list[object]:
    """What each call returns or raises when the second and those after it come, in order, while the first runs."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = []
        for number, items in enumerate(calls):
            futures.append(pool.submit(combiner, items))
            if number:
                while len(combiner._waiting) < number:
                    threading.Event().wait(0.001)
            else:
                assert gated.entered.wait(PATIENCE)
        gated.gate.set()
        return [future.exception(PATIENCE) or list(future.result()) for future in futures]


def test_calls_that_wait_are_carried_out_as_one():
    gated = Gated()
    assert queued(gated, Combiner(gated, 10), [[1], [2, 3], [4], [5, 6, 7]]) == [[1], [4, 9], [16], [25, 36, 49]]
    assert gated.batches == [[1], [2, 3, 4, 5, 6, 7]]


def test_no_more_than_may_go_together():
    gated = Gated()
    assert queued(gated, Combiner(gated, 3), [[1], [2, 3], [4], [5], [6, 7, 8, 9], [1]])[4] == [36, 49, 64, 81]
    assert gated.batches == [[1], [2, 3, 4], [5], [6, 7, 8, 9], [1]]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ([2], [[1], [], [16], [25, 36]]),
        ([3], [[1], [4], [16], [25, 36]]),
        ([4], [[1], [4, 9], [], [25, 36]]),
        ([6, 2], [[1], [], [16], [25]]),
        ([1, 5], [[], [4, 9], [16], []]),
    ],
)
def test_an_item_that_fails_is_of_its_call_alone(bad, expected):
    gated = Gated(bad)
    assert queued(gated, Combiner(gated, 10), [[1], [2, 3], [4], [5, 6]]) == expected


def test_an_exception_reaches_the_one_who_made_the_call_and_leaves_nobody_waiting():
    gated = Gated()
    combiner = Combiner(gated, 10)
    first, leader, other = queued(gated, combiner, [[1], [2], [-3]])
    assert first == [1]
    assert isinstance(leader, RuntimeError)
    assert other == []
    assert combiner([5]) == [25]
    with pytest.raises(RuntimeError):
        combiner([-1])
    assert combiner([6]) == [36]


def test_many_threads_get_their_own_results():
    def carry_out(items):
        sizes.append(len(items))
        return [item + 1 for item in items]

    sizes: list[int] = []
    combiner = Combiner(carry_out, 64)
    start = threading.Barrier(8)

    def work(number):
        start.wait(PATIENCE)
        for turn in range(300):
            items = [number * 1000000 + turn * 10 + at for at in range(turn % 5 + 1)]
            assert combiner(items) == [item + 1 for item in items]
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert max(sizes) <= 64
    assert sum(sizes) == 8 * 300 * 3
