"""BlockBitmap: which blocks of a backing store are taken, and the lowest that is not.

One bit a block, and above it one bit per full word, level by level: 64 times fewer each, so that the lowest free
block is found in as many steps as there are levels (five for 1 TiB of 4 KiB blocks, 32 MiB of bits and 1/63 of that
for the levels). The words come from calloc: memory is resident only once blocks there are taken.
A hint, the lowest word that may have a free bit, answers the usual case in one step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_FULL = (1 << 64) - 1
MANY = 32
"""So many blocks are looked at together with numpy: fewer are quicker one by one."""


def _level(bits: int) -> memoryview:
    """Words for `bits` bits, those past the end set, so that they are never found free."""
    words = np.zeros(-(-bits // 64), dtype=np.uint64).data.cast("B").cast("Q")
    if bits % 64:
        words[-1] = _FULL & ~((1 << bits % 64) - 1)
    return words


class BlockBitmap:
    """Blocks 0 .. `nr_blocks` - 1, all free at first. Not thread-safe: the owner holds a lock."""

    def __init__(self, nr_blocks: int) -> None:
        self.nr_blocks = nr_blocks
        self._words = _level(nr_blocks)
        self._above: list[memoryview] = []
        below = len(self._words)
        while below > 1:
            self._above.append(_level(below))
            below = len(self._above[-1])
        self._hint = 0

    def __contains__(self, block: int) -> bool:
        """Whether `block` is taken."""
        return bool(self._words[block >> 6] >> (block & 63) & 1)

    def all_taken(self, blocks: Sequence[int]) -> bool:
        """Whether each of `blocks` is taken."""
        if len(blocks) < MANY:
            return all(block in self for block in blocks)
        wanted = np.array(blocks, np.uint64)
        bits = np.frombuffer(self._words, np.uint64)[wanted >> np.uint64(6)] >> (wanted & np.uint64(63))
        return bool((bits & np.uint64(1)).all())

    def take_lowest(self) -> int | None:
        """Take the lowest free block; None when there is none."""
        at = self._lowest_word()
        if at < 0:
            return None
        word = self._words[at]
        low = ~word & (word + 1)
        self._set(at, word | low)
        return (at << 6) + low.bit_length() - 1

    def take_lowest_many(self, count: int) -> list[int]:
        """Take the `count` lowest free blocks, in ascending order; fewer when there are fewer."""
        taken: list[int] = []
        while count > 0 and (at := self._lowest_word()) >= 0:
            word = self._words[at]
            while count > 0 and word != _FULL:
                first = (~word & (word + 1)).bit_length() - 1
                above = word >> first
                free = min((above & -above).bit_length() - 1 if above else 64 - first, count)
                start = (at << 6) + first
                taken.extend(range(start, start + free))
                word |= ((1 << free) - 1) << first
                count -= free
            self._set(at, word)
        return taken

    def take(self, block: int) -> None:
        """Take this block, which is free."""
        at = block >> 6
        self._set(at, self._words[at] | 1 << (block & 63))

    def free(self, block: int) -> None:
        """Free this block, which is taken."""
        at = block >> 6
        word = self._words[at]
        self._words[at] = word & ~(1 << (block & 63))
        self._hint = min(self._hint, at)
        for level in self._above:
            if word != _FULL:
                break
            bit = at & 63
            at >>= 6
            word = level[at]
            level[at] = word & ~(1 << bit)

    def _set(self, at: int, word: int) -> None:
        self._words[at] = word
        for level in self._above:
            if word != _FULL:
                break
            bit = at & 63
            at >>= 6
            word = level[at] | 1 << bit
            level[at] = word

    def _lowest_word(self) -> int:
        """Index of the lowest word with a free bit, or -1."""
        if self._words[self._hint] != _FULL:
            return self._hint
        at = 0
        for level in reversed(self._above):
            word = level[at]
            if word == _FULL:
                return -1
            at = (at << 6) + (~word & (word + 1)).bit_length() - 1
        if self._words[at] == _FULL:
            return -1
        self._hint = at
        return at
