"""BlockBitmap against a set, at the sizes where its levels begin and end."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from zramcore.block_bitmap import BlockBitmap

SIZES = [1, 2, 63, 64, 65, 4095, 4096, 4097, 64**3 + 1]


@pytest.mark.parametrize("size", SIZES)
def test_hands_out_every_block_once_in_order(size: int) -> None:
    bitmap = BlockBitmap(size)
    assert bitmap.take_lowest_many(size + 100) == list(range(size))
    assert bitmap.take_lowest() is None
    assert bitmap.take_lowest_many(1) == []
    bitmap.free(size - 1)
    assert bitmap.take_lowest() == size - 1
    assert bitmap.take_lowest() is None


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_lowest_free_block_always(size: int, seed: int) -> None:
    """Emptied at random from full, and filled again: a model with a sorted list of free blocks agrees."""
    random_ = random.Random(seed)
    bitmap = BlockBitmap(size)
    bitmap.take_lowest_many(size)
    freed = random_.sample(range(size), min(size, 300))
    for block in freed:
        assert block in bitmap
        bitmap.free(block)
        assert block not in bitmap
    special = freed.pop()
    bitmap.take(special)
    freed.sort()
    while freed:
        count = random_.choice([1, 1, 2, 70])
        if count == 1:
            assert bitmap.take_lowest() == freed.pop(0)
        else:
            assert bitmap.take_lowest_many(count) == freed[:count]
            del freed[:count]
    assert bitmap.take_lowest() is None


TEBIBYTE = """
import os
from zramcore.block_bitmap import BlockBitmap

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before = resident()
bitmap = BlockBitmap(1 << 28)
for first in range(0, 1 << 20, 1 << 12):
    assert bitmap.take_lowest_many(1 << 12) == list(range(first, first + (1 << 12)))
print(resident() - before)
"""


def test_one_tebibyte_costs_memory_only_where_blocks_are_taken() -> None:
    """2^28 blocks; 2^20 taken are 128 KiB of bits, or one huge page where the system makes them."""
    run = subprocess.run([sys.executable, "-c", TEBIBYTE], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 12 << 20
    bitmap = BlockBitmap(1 << 28)
    bitmap.take_lowest_many(1 << 20)
    assert sum(level.nbytes for level in (bitmap._words, *bitmap._above)) < 32.6 * (1 << 20)


class CountedWords:
    """A level that counts how often one of its words is read."""

    reads = 0

    def __init__(self, words: memoryview) -> None:
        self.words = words

    def __getitem__(self, at: int) -> int:
        CountedWords.reads += 1
        return self.words[at]

    def __setitem__(self, at: int, word: int) -> None:
        self.words[at] = word


def test_no_search_over_full_words() -> None:
    """2^28 blocks with the first 2^18 taken: a low block comes and goes, and the next is far above, time and again."""
    bitmap = BlockBitmap(1 << 28)
    taken = 1 << 18
    bitmap.take_lowest_many(taken)
    assert len(bitmap._above) == 4
    bitmap._words = CountedWords(bitmap._words)  # type: ignore[assignment]
    bitmap._above = [CountedWords(level) for level in bitmap._above]  # type: ignore[misc]
    rounds = 100
    for _ in range(rounds):
        bitmap.free(0)
        assert bitmap.take_lowest() == 0
        assert bitmap.take_lowest() == taken
        bitmap.free(taken)
    # Four calls, each at most twice through the five levels; a search would read 4096 words for every second one.
    assert CountedWords.reads <= rounds * 4 * 10


@pytest.mark.parametrize("count", [0, 1, 5, 200])
def test_all_taken(count: int) -> None:
    bitmap = BlockBitmap(300)
    taken = bitmap.take_lowest_many(count)[::-1]
    assert bitmap.all_taken(taken)
    assert not bitmap.all_taken([*taken, count])
    if taken:
        bitmap.free(taken[-1])
        assert not bitmap.all_taken(taken)
