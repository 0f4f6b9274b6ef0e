"""Compares what a replay printed with a transcript, line by line.

Before two lines are compared, what depends on the moment and not on zram is taken out of both: access times become
"set" or "unset", dates and random UUIDs a word.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from differences import Explainer

_TIME = re.compile(r" +([0-9]+)\.000000 (?=[.a-z]{6}(?:\]|$))")
_DATE = re.compile(r"[A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}")
_UUID = re.compile(r"UUID=[0-9a-f-]{36}")


@dataclass(frozen=True)
class Difference:
    """Line `number` of the transcript (from 1) and what came instead; None where one side has no line.

    `reason` is that of the differences table, or empty.
    """

    number: int
    expected: str | None
    actual: str | None
    reason: str

    def __str__(self) -> str:
        lines = [f"  expected: {self.expected!r}"] if self.expected is not None else ["  expected no line"]
        lines += [f"  got:      {self.actual!r}"] if self.actual is not None else ["  got no line"]
        return "\n".join(lines)


def normalise(line: str) -> str:
    """The line without what depends on time or chance."""
    line = _TIME.sub(lambda match: " (set) " if int(match[1]) else " (unset) ", line)
    return _UUID.sub("UUID=(random)", _DATE.sub("(date)", line)).rstrip("\r")


def _key(line: str) -> str:
    """What the line is about, without its answer: for finding the place again after a missing or extra line."""
    if line.startswith("$ "):
        return line.partition(" => ")[0]
    match = re.match(r"  +(?:[a-z_]+:|= |lines=|\[ *[0-9]+|flags:)", line)
    return match[0] if match else line


def _pairs(expected: list[str], actual: list[str]) -> Iterator[tuple[int, str | None, str | None]]:
    """(line number, expected, actual) in order, with None for a line that the other side has not."""
    left, right = [_key(line) for line in expected], [_key(line) for line in actual]
    if left == right:
        yield from ((number, expected[number - 1], actual[number - 1]) for number in range(1, len(expected) + 1))
        return
    for _, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for index in range(max(b - a, d - c)):
            mine = expected[a + index] if a + index < b else None
            yours = actual[c + index] if c + index < d else None
            yield min(a + index, b - 1 if b > a else a) + 1, mine, yours


@dataclass(frozen=True)
class Outcome:
    """`compared` counts the transcript's lines that a replayed line was held against; differences of both kinds."""

    compared: int
    differences: tuple[Difference, ...]

    @property
    def unexplained(self) -> list[Difference]:
        return [difference for difference in self.differences if not difference.reason]

    @property
    def explained(self) -> list[Difference]:
        return [difference for difference in self.differences if difference.reason]


def compare(transcript: str, expected: Iterable[str], actual: Iterable[str]) -> Outcome:
    """Hold a replay's lines against those of the transcript called `transcript` (its name without folder).

    Empty lines are not counted, but they must be there.
    """
    explainer = Explainer(transcript)
    compared = 0
    found: list[Difference] = []
    for number, mine, yours in _pairs(list(expected), list(actual)):
        compared += bool(mine)
        same = mine is not None and yours is not None and normalise(mine) == normalise(yours)
        reason = explainer.see(mine, yours, same)
        if reason is not None:
            found.append(Difference(number, mine, yours, reason))
    return Outcome(compared, tuple(found))
