"""The attribute zsmalloc_classes: the allocator's own table, and errors where there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import ZramError
from zramcore.testing.walk import make_page


def test_the_class_table_is_the_allocators(device: Callable[..., Device]) -> None:
    new = device(8)
    new.pwrite(0, make_page("random", 1, 4096))
    lines = attributes.show(new, "zsmalloc_classes").splitlines()
    assert lines[0].split()[:4] == ["class", "size", "10%", "20%"]
    assert lines[1].split()[:2] == ["0", "32"]
    rows = [line.split() for line in lines[1:] if line and line.split()[0].isdigit()]
    assert len(rows) == 119
    assert [row[0:2] + row[-5:] for row in rows if row[-4] != "0"] == [["254", "4096", "1", "1", "1", "1", "0"]]
    assert lines[-1].split()[0] == "Total"


@pytest.mark.parametrize(("settings", "expected"), [({"pages": 0}, "ENOENT"), ({"allocator": "malloc"}, "EOPNOTSUPP")])
def test_without_classes_there_is_an_error(
    device: Callable[..., Device], settings: dict[str, object], expected: str
) -> None:
    with pytest.raises(ZramError) as caught:
        attributes.show(device(**settings), "zsmalloc_classes")
    assert caught.value.errno_name == expected
