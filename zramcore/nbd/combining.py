"""Combiner: calls that several threads make at once are carried out as one.

A call that finds none under way runs at once. Those that come meanwhile wait; when it ends, the first of them carries
out all of them. So a client alone never waits for company, and many clients share what a batch saves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Call(Generic[Item, Result]):
    """One thread's call, which waits for its turn or for its results."""

    __slots__ = ("company", "gate", "items", "results")

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.results: Sequence[Result] = ()
        self.company: list[_Call[Item, Result]] = []
        """The calls that this one's thread is to carry out, itself first; empty when another thread has done it."""
        self.gate = threading.Lock()
        self.gate.acquire()


class Combiner(Generic[Item, Result]):
    """Called with items, it returns their results in order: fewer than items when the next one failed."""

    def __init__(self, carry_out: Callable[[Sequence[Item]], Sequence[Result]], most: int) -> None:
        """`carry_out` does what a call does; combined calls have at most `most` items, or are a single one."""
        self._carry_out = carry_out
        self._most = most
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: list[_Call[Item, Result]] = []

    def __call__(self, items: Sequence[Item]) -> Sequence[Result]:
        """Raises what `carry_out` raises; to others in its company it then looks as if their first item had failed."""
        with self._lock:
            call = _Call[Item, Result](items) if self._busy else None
            if call is None:
                self._busy = True
            else:
                self._waiting.append(call)
        if call is None:
            try:
                return self._carry_out(items)
            finally:
                self._hand_over()
        call.gate.acquire()
        if call.company:
            try:
                self._serve(call.company)
            finally:
                self._hand_over()
                for other in call.company[1:]:
                    other.gate.release()
        return call.results

    def _serve(self, calls: list[_Call[Item, Result]]) -> None:
        """Carry calls out together. When an item fails, the calls after the one that it belongs to start again."""
        position = 0
        while position < len(calls):
            results = self._carry_out([item for call in calls[position:] for item in call.items])
            done = 0
            while position < len(calls) and done <= len(results):
                call = calls[position]
                call.results = results[done : done + len(call.items)]
                done += len(call.items)
                position += 1

    def _hand_over(self) -> None:
        """Let the first of the calls that wait carry out as many as may go together; or note that none does."""
        with self._lock:
            if not self._waiting:
                self._busy = False
                return
            count, size = 1, len(self._waiting[0].items)
            while count < len(self._waiting) and size + len(self._waiting[count].items) <= self._most:
                size += len(self._waiting[count].items)
                count += 1
            company, self._waiting = self._waiting[:count], self._waiting[count:]
        company[0].company = company
        company[0].gate.release()
