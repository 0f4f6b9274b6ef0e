"""Data: whole MiBs of pages that are not same-filled, from all parts of what was given."""

from __future__ import annotations

import ctypes
import os

import pytest

from zramcore.bench.data import MIB, PAGE, Data, aligned_buffer
from zramcore.errors import InvalidValue

PER_MIB = MIB // PAGE


def test_same_filled_pages_and_the_rest_of_a_page_are_left_out() -> None:
    real = os.urandom(2 * MIB)
    data = Data([bytes(MIB), real[:MIB], b"\7" * 8 * 512 * 9, real[MIB:], b"end"], 64 * MIB)
    assert (data.size, bytes(data.view)) == (2 * MIB, real)
    assert b"".join(data.pages) == real


def test_what_is_too_much_is_left_out_everywhere_not_at_the_end() -> None:
    pages = [number.to_bytes(8, "little") + os.urandom(PAGE - 8) for number in range(8 * PER_MIB)]
    data = Data([b"".join(pages)], 2 * MIB + 5)
    numbers = [int.from_bytes(page[:8], "little") for page in data.pages]
    assert len(numbers) == 2 * PER_MIB
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    assert numbers[-1] > 7 * PER_MIB


@pytest.mark.parametrize("chunks", [[], [bytes(9 * MIB)], [os.urandom(2 * MIB - 1)]])
def test_too_few_pages_are_refused(chunks: list[bytes]) -> None:
    with pytest.raises(InvalidValue, match="too few") as caught:
        Data(chunks, 4 * MIB)
    assert "--size" in caught.value.hint


def test_what_direct_io_is_given_is_aligned(data: Data) -> None:
    for view in (data.view, aligned_buffer(MIB)):
        assert ctypes.addressof(ctypes.c_char.from_buffer(view)) % PAGE == 0
