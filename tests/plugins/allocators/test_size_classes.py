"""The arithmetic of the size classes, against the class table and thresholds of real kernels."""

import pytest

from zramcore.errors import InvalidValue
from zramcore_plugins.allocators.size_classes import (
    class_index,
    distinct_classes,
    fullness_group,
    huge_class_size,
    merged_classes,
)


@pytest.mark.parametrize(("page_size", "expected"), [(4096, 3625), (16384, 14553), (65536, 58137)])
def test_huge_class_size(page_size: int, expected: int) -> None:
    assert huge_class_size(page_size) == expected


@pytest.mark.parametrize(("page_size", "indexes", "distinct"), [(4096, 255, 119), (16384, 257, None)])
def test_number_of_classes(page_size: int, indexes: int, distinct: int | None) -> None:
    assert len(merged_classes(page_size)) == indexes
    if distinct is not None:
        assert len(distinct_classes(page_size)) == distinct


def test_a_1000_byte_object_shares_pages_of_four() -> None:
    """1000 + 8 bytes is class 61, which merges into 62: one page, four objects of 1024 bytes."""
    assert class_index(1008, 4096) == 61
    shared = merged_classes(4096)[61]
    assert (shared.index, shared.size, shared.pages, shared.objects) == (62, 1024, 1, 4)


def test_the_biggest_shared_class() -> None:
    """3624 + 8 bytes still share: eight pages hold nine; one byte more is a huge object."""
    last = merged_classes(4096)[class_index(3632, 4096)]
    assert (last.index, last.size, last.pages, last.objects, last.huge) == (225, 3632, 8, 9, False)
    huge = merged_classes(4096)[class_index(3633, 4096)]
    assert (huge.index, huge.size, huge.pages, huge.objects, huge.huge) == (254, 4096, 1, 1, True)


@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
def test_every_size_fits_its_class(page_size: int) -> None:
    for size in range(1, page_size + 1):
        assert merged_classes(page_size)[class_index(size, page_size)].size >= size
    for each in distinct_classes(page_size):
        assert 1 <= each.pages <= 8
        assert each.objects * each.size <= each.pages * page_size
        assert each.size % 16 == 0, "an object's handle is an aligned word"


def test_fullness_groups() -> None:
    """Of 127 objects one in use is group 10 %, not 0 %; 99 % is everything from 90 % to one short of full."""
    assert [fullness_group(inuse, 127) for inuse in (0, 1, 12, 13, 114, 115, 126, 127)] == [0, 1, 1, 2, 9, 10, 10, 11]
    assert [fullness_group(inuse, 2) for inuse in (0, 1, 2)] == [0, 6, 11]


def test_unknown_page_size() -> None:
    with pytest.raises(InvalidValue, match="8192"):
        merged_classes(8192)
