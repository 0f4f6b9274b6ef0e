"""Words of text files by the million: array operations instead of a loop, 0.1 us a word instead of 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import InvalidValue
from .trace import Array

CHUNK = 1 << 24
"""Bytes looked at together; the arrays about them take some ten times as much."""

_DIGITS = 18
"""The longest number: what always fits int64."""


class Lines:
    """Some lines of a file as words: word `n` is bytes ``start[n]:end[n]``, line `i` has words ``first[i]`` and
    ``words[i] - 1`` more. `number` is the first line's, from 1."""

    def __init__(self, data: bytes, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        self.data = np.frombuffer(data, np.uint8)
        blank = self.data <= 32
        edges = np.flatnonzero(np.diff(blank, prepend=True, append=True))
        self.start, self.end = edges[0::2], edges[1::2]
        ends_of_lines = np.flatnonzero(self.data == 10)
        before = np.searchsorted(self.start, ends_of_lines)
        self.first = np.concatenate([[0], before[:-1]]) if len(before) else before
        self.words = before - self.first

    def text(self, line: int) -> str:
        """One of the lines, by its position among these, as far as an error shows it."""
        first, words = int(self.first[line]), int(self.words[line])
        if not words:
            return ""
        found = self.data[self.start[first] : self.end[first + words - 1]].tobytes()
        return found[:80].decode("utf-8", "backslashreplace")

    def wrong(self, line: int, reason: str, hint: str) -> InvalidValue:
        """The error about one of the lines, by its position among these."""
        return InvalidValue(f"{self.path}:{self.number + line}: {reason}: {self.text(line)!r}", hint=hint)

    def word(self, index: int) -> bytes:
        """One word."""
        return self.data[self.start[index] : self.end[index]].tobytes()

    def equal(self, indexes: Array, word: bytes) -> Array:
        """Which of these words are `word`."""
        same: Array = (self.end[indexes] - self.start[indexes]) == len(word)
        at = self.start[indexes[same]]
        matches = np.ones(len(at), bool)
        for offset, byte in enumerate(word):
            matches &= self.data[at + offset] == byte
        same[same] = matches
        return same

    def contains(self, indexes: Array, letter: bytes) -> Array:
        """Which of these words have a letter in them."""
        start, end = self.start[indexes], self.end[indexes]
        found: Array = np.zeros(len(indexes), bool)
        for offset in range(int((end - start).max(initial=0))):
            at = np.minimum(start + offset, end - 1)
            found |= self.data[at] == letter[0]
        return found

    def numbers(self, indexes: Array, ignore: bytes = b"") -> tuple[Array, Array]:
        """The decimal numbers that these words are (int64), and which of them are none. A byte `ignore` in them is
        passed over."""
        start, length = self.start[indexes], self.end[indexes] - self.start[indexes]
        bad = (length > _DIGITS + len(ignore)) | (length == 0)
        values = np.zeros(len(indexes), np.int64)
        last = len(self.data) - 1
        for offset in range(int(length[~bad].max(initial=0))):
            byte = self.data[np.minimum(start + offset, last)]
            counts = offset < length
            if ignore:
                counts &= byte != ignore[0]
            digit = byte.astype(np.int64) - 48
            bad |= counts & ((digit < 0) | (digit > 9))
            values = np.where(counts & ~bad, values * 10 + digit, values)
        return values, bad


class Names:
    """Numbers for words of which there are few different ones, such as file names."""

    def __init__(self) -> None:
        self.names: list[bytes] = []

    def numbers(self, lines: Lines, indexes: Array) -> Array:
        """The number of each of these words; new ones get the next."""
        found = np.full(len(indexes), -1, np.int64)
        for number, name in enumerate(self.names):
            found[lines.equal(indexes, name)] = number
        while len(left := np.flatnonzero(found < 0)):
            name = lines.word(int(indexes[left[0]]))
            found[left[lines.equal(indexes[left], name)]] = len(self.names)
            self.names.append(name)
        return found


def read_lines(path: Path, skip: int = 0) -> Iterator[Lines]:
    """The lines of a file, but for the first `skip`, many at a time. Raises OSError."""
    number = 1 + skip
    with open(path, "rb") as file:
        for _ in range(skip):
            file.readline()
        rest = b""
        while data := file.read(CHUNK):
            data = rest + data
            cut = data.rfind(b"\n") + 1
            rest = data[cut:]
            if cut:
                lines = Lines(data[:cut], path, number)
                yield lines
                number += len(lines.first)
        if rest:
            yield Lines(rest + b"\n", path, number)
