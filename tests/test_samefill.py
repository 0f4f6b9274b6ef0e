"""Same-filled pages: one at a time and many at once find the same ones."""

from __future__ import annotations

from random import Random

import pytest

from zramcore.samefill import expand, same_word, same_words


@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
@pytest.mark.parametrize("word", [0, 1, 0xFF, 0x0102030405060708, (1 << 64) - 1])
def test_a_repeated_word_is_found_and_expanded(page_size: int, word: int) -> None:
    page = word.to_bytes(8, "little") * (page_size // 8)
    assert same_word(page) == word
    assert expand(word, page_size) == page
    assert [column.tolist() for column in same_words(memoryview(page), page_size)] == [[0], [word]]


@pytest.mark.parametrize("position", [0, 7, 8, 2048, 4087, 4088, 4095])
def test_one_other_byte_anywhere_is_enough(position: int) -> None:
    page = bytearray(b"12345678" * 512)
    page[position] ^= 1
    assert same_word(bytes(page)) is None
    assert not len(same_words(memoryview(page), 4096)[0])


def test_a_pattern_longer_than_a_word_is_not_same_filled() -> None:
    assert same_word(b"0123456789abcdef" * 256) is None
    assert same_word(b"01234567" * 256 + b"89abcdef" * 255 + b"01234567") is None


def test_many_pages_agree_with_one_by_one() -> None:
    random = Random(5)
    pages = [
        random.choice((bytes(4096), random.randbytes(8) * 512, random.randbytes(4096), b"a" * 4095 + b"b"))
        for _ in range(200)
    ]
    positions, words = same_words(memoryview(b"".join(pages)), 4096)
    expected = [(at, same_word(page)) for at, page in enumerate(pages) if same_word(page) is not None]
    assert list(zip(positions.tolist(), words.tolist(), strict=True)) == expected
    assert 50 < len(expected) < 150


def test_any_buffer_will_do() -> None:
    data = bytearray(b"\5" * 8192)
    assert same_words(memoryview(data), 4096)[0].tolist() == [0, 1]
