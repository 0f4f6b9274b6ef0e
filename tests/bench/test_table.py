"""Tables and pictures of rows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from zramcore.bench.plot import plot, require_matplotlib
from zramcore.bench.rows import Row
from zramcore.bench.table import lines, size
from zramcore.errors import NotSupported, ZramError

ROWS = [
    Row("sequential read", 1 << 20, 1, "zramcore lz4", 3.456, 0.051, None, 0.75),
    Row("sequential read", 1 << 20, 2, "bare lz4 calls", 2.5, 0.0, None, 1.0),
    Row("memory", 4096, 1, "zramcore lz4", figures={"used_bytes": 3 << 20, "data/used": 1.5}),
]


def test_a_table_has_the_columns_that_somebody_has_something_in() -> None:
    assert list(lines(ROWS)) == [
        "work             request  threads  side            us/page  spread  limit=1     used  data/used",
        "sequential read       1M        1  zramcore lz4       3.46      5%     0.75",
        "sequential read       1M        2  bare lz4 calls     2.50      0%     1.00",
        "memory                4K        1  zramcore lz4                              3.0 MiB       1.50",
    ]


def test_sizes_are_written_as_they_are_typed() -> None:
    assert [size(value) for value in (4096, 65536, 1 << 20, 100)] == ["4K", "64K", "1M", "100"]


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    picture = tmp_path / "out.png"
    plot(ROWS, picture, "two works")
    assert picture.read_bytes().startswith(b"\x89PNG")
    plot(ROWS, tmp_path / "out.svg", "two works")
    assert "<svg" in (tmp_path / "out.svg").read_text()
    for impossible in (tmp_path / "missing" / "out.png", tmp_path / "out.nonesuch"):
        with pytest.raises(ZramError, match="cannot write"):
            plot(ROWS, impossible, "two works")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NotSupported, match="not installed") as caught:
        require_matplotlib()
    assert "zramcore[plot]" in caught.value.hint
