"""The data a script writes: `zero`, `word:HEX`, `rand:SEED`, `randz:SEED:N` and `file:PATH:PAGE`.

`word` repeats a 64-bit little-endian word; `rand` is a byte stream that depends on SEED alone; `randz` fills the
first N bytes of each 4096 with the stream of SEED plus the page's number and leaves zeros behind; `file` reads
whole 4096-byte pages of a file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

PAGE = 4096
"""Bytes per page of `randz` and `file`, whatever the device's page size is."""

_MASK = (1 << 64) - 1


def number(text: str, base: int = 0) -> int:
    """A nonnegative number as strtoull reads it: base 0 takes decimal, 0x and 0 prefixes. Raises ValueError."""
    if base == 0 and len(text) > 1 and text[0] == "0" and text.isdigit():
        base = 8
    value = int(text, base)
    if value < 0:
        raise ValueError(f"{text!r} is negative")
    return value


@functools.lru_cache(maxsize=256)
def random_bytes(seed: int, length: int) -> bytes:
    """The first `length` bytes of the stream of `seed`: one step of xorshift64* for each byte, its top eight bits."""
    state = (seed * 6364136223846793005 + 1442695040888963407) & _MASK
    out = bytearray(length)
    for index in range(length):
        state ^= (state << 13) & _MASK
        state ^= state >> 7
        state ^= (state << 17) & _MASK
        out[index] = ((state * 2685821657736338717) & _MASK) >> 56
    return bytes(out)


def make(spec: str, length: int, resolve: Callable[[str], Path] = Path) -> bytes:
    """`length` bytes as `spec` says; `resolve` finds the file of a `file:` spec.

    Raises ValueError for a spec that is none of the five forms, OSError for a file that cannot be read, and
    EOFError when the file is too short.
    """
    kind, _, rest = spec.partition(":")
    if spec == "zero":
        return bytes(length)
    if kind == "word" and rest:
        word = (number(rest, 16) & _MASK).to_bytes(8, "little")
        return (word * (length // 8 + 1))[:length]
    if kind == "rand" and rest:
        return random_bytes(number(rest) & _MASK, length)
    if kind == "randz" and rest.count(":") == 1:
        seed, filled = (number(part) for part in rest.split(":"))
        return _random_then_zeros(seed, filled, length)
    if kind == "file" and ":" in rest:
        path, _, page = rest.rpartition(":")
        with resolve(path).open("rb") as file:
            file.seek(number(page) * PAGE)
            data = file.read(length)
        if len(data) != length:
            raise EOFError(f"{path} ends before page {page} and {length} bytes")
        return data
    raise ValueError(f"{spec!r} is no data spec: zero, word:HEX, rand:SEED, randz:SEED:N or file:PATH:PAGE")


def _random_then_zeros(seed: int, filled: int, length: int) -> bytes:
    out = bytearray(length)
    for offset in range(0, length, PAGE):
        part = random_bytes((seed + offset // PAGE) & _MASK, min(filled, length - offset))
        out[offset : offset + len(part)] = part
    return bytes(out)
